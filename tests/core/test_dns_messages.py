"""DNS messages: what is written is read back, what others write is read, and what is malformed is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import ProtocolError
from fedd.core.dns_messages import (
    AAAA,
    ANY,
    CNAME,
    MAX_MESSAGE_BYTES,
    MAX_POINTERS,
    MAX_QUESTIONS,
    MAX_RECORDS,
    PTR,
    SRV,
    TXT,
    A,
    DnsMessage,
    Pointer,
    Question,
    Record,
    Service,
    Texts,
    decode_message,
    encode_message,
    parse_name,
)

HERE = parse_name("a.example")


def header(questions: int = 0, answers: int = 0, flags: int = 0x8400, additional: int = 0) -> bytes:
    numbers = (0, flags, questions, answers, 0, additional)
    return b"".join(number.to_bytes(2, "big") for number in numbers)


def test_names_are_labels_in_lower_case() -> None:
    assert parse_name("_P2P._udp.Local.") == (b"_p2p", b"_udp", b"local")
    for wrong in ("", "a..b", ".a", "a" * 64, ".".join(["a" * 63] * 4), "\u00fcber.example"):
        with pytest.raises(ProtocolError):
            parse_name(wrong)


def test_a_query_has_the_bytes_of_rfc_1035() -> None:
    data = encode_message(DnsMessage(id=0x1234, recursion=True, questions=(Question(HERE, TXT),)))
    assert data == bytes.fromhex("123401000001000000000000") + b"\1a\7example\0" + b"\0\x10\0\1"
    assert decode_message(data) == DnsMessage(id=0x1234, recursion=True, questions=(Question(HERE, TXT),))


def test_an_answer_of_every_kind_is_read_back() -> None:
    message = DnsMessage(
        is_response=True,
        is_truncated=True,
        code=3,
        answers=(Record(HERE, PTR, Pointer((b"x", *HERE)), 120),),
        additional=(
            Record(HERE, TXT, Texts((b"one", b"two=2")), 120, unique=True),
            Record(HERE, TXT, Texts(()), 0),
            Record(HERE, SRV, Service(4747, (b"host", b"local")), 120, unique=True),
            Record(HERE, A, bytes([192, 0, 2, 1]), 2**32 - 1),
            Record(HERE, AAAA, bytes(16), 1),
            Record(HERE, CNAME, Pointer(()), 1),
            Record(HERE, 47, b"whatever", 1),
        ),
    )
    assert decode_message(encode_message(message)) == message


LABELS = st.binary(min_size=1, max_size=12).map(bytes.lower)
NAMES = st.lists(LABELS, max_size=5).map(tuple)
DATA = st.one_of(
    st.tuples(st.sampled_from([PTR, CNAME]), NAMES.map(Pointer)),
    st.tuples(st.just(SRV), st.builds(Service, st.integers(0, 65535), NAMES)),
    st.tuples(st.just(TXT), st.lists(st.binary(min_size=1, max_size=255), max_size=3).map(tuple).map(Texts)),
    st.tuples(st.just(A), st.binary(min_size=4, max_size=4)),
    st.tuples(st.just(AAAA), st.binary(min_size=16, max_size=16)),
    st.tuples(st.integers(100, 65535), st.binary(max_size=40)),
)
RECORDS = st.builds(
    lambda name, data, ttl_s, unique: Record(name, data[0], data[1], ttl_s, unique),
    NAMES,
    DATA,
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
MESSAGES = st.builds(
    DnsMessage,
    id=st.integers(0, 65535),
    is_response=st.just(True),
    is_truncated=st.booleans(),
    recursion=st.booleans(),
    code=st.integers(0, 15),
    questions=st.lists(st.builds(Question, NAMES, st.integers(0, 65535)), max_size=3).map(tuple),
    answers=st.lists(RECORDS, max_size=4).map(tuple),
    additional=st.lists(RECORDS, max_size=4).map(tuple),
)


@given(MESSAGES)
@settings(max_examples=100, deadline=None)
def test_any_message_is_read_back(message: DnsMessage) -> None:
    assert decode_message(encode_message(message)) == message


@given(st.binary(max_size=200), st.integers(0, 20))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_message_or_refused(data: bytes, cut: int) -> None:
    for whole in (data, header(1, 1, additional=1) + data, header(0, 2) + b"\1a\0\0\x10\0\1" + data):
        try:
            message = decode_message(whole[: len(whole) - cut])
        except ProtocolError:
            continue
        assert decode_message(encode_message(replace(message, is_response=True))).answers == message.answers


def test_compressed_names_are_read() -> None:
    # As avahi and zeroconf write: the record's name points to the question's, its data into the record's.
    question = b"\4_p2p\4_udp\5local\0\0\x0c\0\1"
    record = b"\xc0\x0c\0\x0c\0\1\0\0\0\x78\0\6\3abc\xc0\x0c"
    behind = b"\xc0\x2d\0\x10\0\1\0\0\0\x78\0\3\2hi"
    message = decode_message(header(1, 2) + question + record + behind)
    service = parse_name("_p2p._udp.local")
    assert message.answers == (
        Record(service, PTR, Pointer((b"abc", *service)), 120),
        Record((b"abc", *service), TXT, Texts((b"hi",)), 120),
    )


def test_labels_are_compared_without_case() -> None:
    message = decode_message(header(1, flags=0) + b"\4_P2P\5LOCAL\0\0\xff\x80\1")
    assert message.questions == (Question((b"_p2p", b"local"), ANY),)


def test_questions_of_any_class_count_and_those_of_others_do_not() -> None:
    message = decode_message(header(2, flags=0) + b"\1a\0\0\1\0\xff" + b"\1b\0\0\1\0\3")
    assert message.questions == (Question((b"a",), A),)


def test_records_of_other_classes_and_the_authority_section_are_left_out() -> None:
    other = b"\1a\0\0\1\0\3\0\0\0\0\0\4abcd"
    mine = b"\1b\0\0\1\0\1\0\0\0\0\0\4abcd"
    data = header(0, 2)[:8] + b"\0\1\0\0" + other + mine + mine
    message = decode_message(data)
    assert message.answers == (Record((b"b",), A, b"abcd", 0),)
    assert message.additional == ()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "too early"),
        (header()[:11], "too early"),
        (bytes(MAX_MESSAGE_BYTES + 1), "too long"),
        (header(flags=0x2800), "neither query nor response"),
        (header(MAX_QUESTIONS + 1), "more than"),
        (header(0, MAX_RECORDS, additional=1), "more than"),
        (header(1), "too early"),
        (header(1) + b"\5abc", "too early"),
        (header(1) + b"\1a\0\0\1", "too early"),
        (header(1) + b"\x40a\0\0\1\0\1", "unknown kind"),
        (header(1) + b"\xbf" + bytes(80), "unknown kind"),
        (header(1) + b"\xc0\x0c\0\1\0\1", "forwards"),  # to itself
        (header(1) + b"\xc0\x0e\0\0\1\0\1", "forwards"),
        (header(1) + b"\1a\xc0\x0c\0\1\0\1", "forwards"),  # a circle
        (header(1) + b"\xc0", "too early"),
        (header(1) + b"\1a" * 128 + b"\0\0\1\0\1", "too many labels"),
        (header(1) + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", "more than 255 bytes"),
        (header(0, 1) + b"\0\0\1\0\1\0\0\0\0\0\5abcd", "longer than its message"),
        (header(0, 1) + b"\0\0\1\0\1\0\0\0\0\0\3abc", "wrong size"),
        (header(0, 1) + b"\0\0\x1c\0\1\0\0\0\0\0\4abcd", "wrong size"),
        (header(0, 1) + b"\0\0\x0c\0\1\0\0\0\0\0\4\1a\0\0", "does not fill it"),
        (header(0, 2) + b"\0\0\x10\0\1\0\0\0\0\0\3\5abcdef", "does not fill it"),
        (header(0, 1) + b"\0\0\x21\0\1\0\0\0\0\0\2\0\0\0\0\0\0\0", "longer than|does not fill it"),
    ],
)
def test_what_is_malformed_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        decode_message(data)


def chained(hops: int) -> bytes:
    """A message whose last name takes so many pointers to read, hidden in the data of a record before it."""
    question = b"\1a\0\0\1\0\1"
    at = len(header() + question) + 11
    targets = [12, *range(at, at + 2 * (hops - 2), 2)]
    chain = b"".join((0xC000 | target).to_bytes(2, "big") for target in targets)
    hidden = b"\0\0\x63\0\1\0\0\0\0" + len(chain).to_bytes(2, "big") + chain
    last = (0xC000 | at + 2 * (hops - 2)).to_bytes(2, "big") + b"\0\1\0\1\0\0\0\0\0\4abcd"
    return header(1, 2) + question + hidden + last


def test_a_chain_of_pointers_ends() -> None:
    assert decode_message(chained(MAX_POINTERS)).answers[1].name == (b"a",)
    with pytest.raises(ProtocolError, match="too often"):
        decode_message(chained(MAX_POINTERS + 1))


def calls_of(work: Callable[[], object]) -> int:
    """How many functions are called, those of C too: what work costs, whatever else the machine does."""
    calls = 0

    def note(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def test_the_worst_message_costs_a_few_calls_for_each_label() -> None:
    """As many names as there can be, each as long as it can be, each through pointers."""
    long = b"".join(b"\1" + bytes((97 + n % 26,)) for n in range(126)) + b"\0"
    first = long + b"\0\1\0\1"
    questions = first + b"\xc0\x0c\0\1\0\1" * (MAX_QUESTIONS - 1)
    records = b"\xc0\x0c\0\x0c\0\1\0\0\0\0\0\2\xc0\x0c" * MAX_RECORDS
    data = header(MAX_QUESTIONS, MAX_RECORDS) + questions + records
    message = decode_message(data)
    assert len(message.answers) == MAX_RECORDS
    assert len(message.answers[-1].name) == 126
    labels = (MAX_QUESTIONS + 2 * MAX_RECORDS) * 126
    assert calls_of(lambda: decode_message(data)) <= 4 * labels


@pytest.mark.parametrize(
    "message",
    [
        DnsMessage(questions=(Question((b"a" * 64,), A),)),
        DnsMessage(questions=(Question((b"",), A),)),
        DnsMessage(questions=(Question((b"a" * 60,) * 5, A),)),
        DnsMessage(answers=(Record(HERE, TXT, Texts((bytes(256),)), 0),)),
        DnsMessage(answers=(Record(HERE, 99, bytes(MAX_MESSAGE_BYTES), 0),)),
    ],
)
def test_what_dns_cannot_hold_is_not_written(message: DnsMessage) -> None:
    with pytest.raises(ProtocolError):
        encode_message(message)
