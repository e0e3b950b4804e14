"""multistream-select: the bytes of the specification, and agreement over any link."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_link import converse

from fedd.api.errors import ProtocolError
from fedd.core.multistream import (
    HEADER,
    MAX_LINE_BYTES,
    MAX_PROPOSALS,
    Dialer,
    Listener,
    Rejected,
    Selected,
)

HEADER_LINE = b"\x13/multistream/1.0.0\n"
NA = b"\x03na\n"


def line(text: str) -> bytes:
    assert len(text) < 127
    return bytes([len(text) + 1]) + text.encode() + b"\n"


def test_header_and_first_proposal_go_out_in_one_write() -> None:
    dialer = Dialer(["/noise", "/tls/1.0.0"])
    assert dialer.data_to_send() == HEADER_LINE + b"\x07/noise\n"
    assert dialer.data_to_send() == b""


def test_a_listener_answers_header_and_proposal_together() -> None:
    listener = Listener(["/noise"])
    assert listener.receive_data(HEADER_LINE + line("/noise") + b"first bytes") == [Selected("/noise")]
    assert listener.data_to_send() == HEADER_LINE + line("/noise")
    assert listener.finished
    assert listener.trailing == b"first bytes"


def test_after_a_refusal_comes_the_next_proposal_without_a_header() -> None:
    dialer = Dialer(["/a", "/b"])
    dialer.data_to_send()
    assert dialer.receive_data(HEADER_LINE + NA) == []
    assert dialer.data_to_send() == line("/b")
    assert dialer.trailing == b""
    assert dialer.receive_data(line("/b") + b"rest") == [Selected("/b")]
    assert dialer.trailing == b"rest"


def test_a_dialer_is_told_when_nothing_is_spoken_there() -> None:
    dialer = Dialer(["/a", "/b"])
    assert dialer.receive_data(HEADER_LINE + NA + NA) == [Rejected(("/a", "/b"))]
    assert dialer.finished
    assert dialer.data_to_send() == HEADER_LINE + line("/a") + line("/b")


def test_a_listener_goes_on_after_a_refusal() -> None:
    listener = Listener(lambda protocol: protocol.startswith("/b"))
    assert listener.receive_data(HEADER_LINE + line("/a")) == [Rejected(("/a",))]
    assert listener.data_to_send() == HEADER_LINE + NA
    assert listener.receive_data(line("/b/2")) == [Selected("/b/2")]


def test_ls_lists_what_is_spoken() -> None:
    listener = Listener(["/a", "/bc"])
    listener.data_to_send()
    assert listener.receive_data(HEADER_LINE + line("ls")) == []
    listing = line("/a") + line("/bc")
    assert listener.data_to_send() == bytes([len(listing) + 1]) + listing + b"\n"
    assert listener.receive_data(line("/bc")) == [Selected("/bc")]


def test_ls_of_a_function_lists_what_it_is_told_to() -> None:
    listener = Listener(lambda protocol: True, listed=["/x"])
    listener.data_to_send()
    listener.receive_data(HEADER_LINE + line("ls"))
    assert listener.data_to_send() == b"\x05\x03/x\n\n"


def test_bytes_after_the_selection_gather_in_trailing() -> None:
    dialer = Dialer(["/a"])
    dialer.receive_data(HEADER_LINE + line("/a"))
    assert dialer.receive_data(memoryview(b"one")) == []
    assert dialer.receive_data(bytearray(b" two")) == []
    assert dialer.trailing == b"one two"


def test_the_longest_line_is_accepted() -> None:
    name = "/" + "x" * (MAX_LINE_BYTES - 2)
    dialer, listener = Dialer([name]), Listener([name])
    assert listener.receive_data(dialer.data_to_send()) == [Selected(name)]
    assert dialer.receive_data(listener.data_to_send()) == [Selected(name)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00", "empty"),
        (b"\x81\x08", "longer than 1024"),
        (b"\xff\xff", "longer than 1024"),
        (b"\x93\x00", "shortest form"),
        (b"\x05/abcd", "newline"),
        (b"\x03\xff\xff\n", "UTF-8"),
        (b"\x14/multistream/0.9.9\n\n", "speaks"),
        (line("/ipfs/id/1.0.0"), "speaks"),
    ],
)
def test_broken_lines_are_refused_and_the_machine_stays_broken(data: bytes, reason: str) -> None:
    for machine in (Dialer(["/a"]), Listener(["/a"])):
        for given_data in (data, HEADER_LINE + line("/a")):
            with pytest.raises(ProtocolError, match=reason):
                machine.receive_data(given_data)
        assert not machine.finished


def test_an_answer_to_something_else_is_refused() -> None:
    dialer = Dialer(["/a"])
    with pytest.raises(ProtocolError, match="answered '/b' to the proposal '/a'"):
        dialer.receive_data(HEADER_LINE + line("/b"))


def test_endless_proposals_are_refused() -> None:
    listener = Listener(["/a"])
    assert len(listener.receive_data(HEADER_LINE + line("/x") * MAX_PROPOSALS)) == MAX_PROPOSALS
    with pytest.raises(ProtocolError, match="more than 64 proposals"):
        listener.receive_data(line("/a"))


def test_a_dialer_has_something_to_propose() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Dialer([])


def test_a_negotiation_cut_at_any_byte_says_so() -> None:
    conversation = HEADER_LINE + NA + line("/b")
    for end in range(len(conversation) + 1):
        dialer = Dialer(["/a", "/b"])
        dialer.receive_data(conversation[:end])
        if end == len(conversation):
            dialer.receive_eof()
        else:
            with pytest.raises(ProtocolError, match="closed the stream before"):
                dialer.receive_eof()


names = st.lists(st.from_regex(r"/[a-z]{1,4}/[0-9]", fullmatch=True), min_size=1, max_size=5, unique=True)


@settings(deadline=None)
@given(names, names, st.randoms(use_true_random=False), st.binary(max_size=20), st.binary(max_size=20))
def test_both_ends_agree_over_any_link(
    wanted: list[str], spoken: list[str], random: Random, question: bytes, answer: bytes
) -> None:
    dialer, listener = Dialer(wanted), Listener(spoken)
    talk: dict[int, bytes] = {id(dialer): question, id(listener): answer}
    outgoing: dict[int, bytearray] = {id(dialer): bytearray(), id(listener): bytearray()}

    class Talking:
        """Says its piece as soon as the protocol is selected."""

        def __init__(self, machine: Dialer | Listener) -> None:
            self.machine = machine

        def data_to_send(self) -> bytes:
            said = self.machine.data_to_send() + bytes(outgoing[id(self.machine)])
            outgoing[id(self.machine)].clear()
            return said

        def receive_data(self, data: bytes) -> list[Selected | Rejected]:
            events = self.machine.receive_data(data)
            if any(isinstance(event, Selected) for event in events):
                outgoing[id(self.machine)] += talk[id(self.machine)]
            return events

    events = converse(Talking(dialer), Talking(listener), random)
    common = [protocol for protocol in wanted if protocol in spoken]
    if common:
        assert events["left"] == [Selected(common[0])]
        assert events["right"][-1] == Selected(common[0])
        assert (dialer.trailing, listener.trailing) == (answer, question)
    else:
        assert events["left"] == [Rejected(tuple(wanted))]
        assert events["right"] == [Rejected((protocol,)) for protocol in wanted]
    assert dialer.finished
    assert listener.finished is bool(common)


@given(st.lists(st.binary(max_size=30), max_size=6), st.booleans())
def test_garbage_raises_nothing_but_protocol_errors(chunks: list[bytes], polite: bool) -> None:
    for machine in (Dialer(["/a"]), Listener(["/a"])):
        try:
            if polite:
                machine.receive_data(HEADER_LINE)
            for chunk in chunks:
                machine.receive_data(chunk)
        except ProtocolError:
            continue


def test_the_header_is_the_published_one() -> None:
    assert HEADER == "/multistream/1.0.0"


def said_of(machine: Dialer | Listener, pieces: list[bytes]) -> tuple[list[object], bytes, bytes, str]:
    """What a machine decides about bytes that come in these pieces, what it answers and what is left."""
    events: list[object] = []
    error = ""
    try:
        for piece in pieces:
            if machine.finished:
                break
            events += machine.receive_data(piece)
    except ProtocolError as raised:
        error = raised.detail
    return events, machine.data_to_send(), machine.trailing, error


@pytest.mark.parametrize(
    "opening",
    [
        HEADER_LINE + line("/noise"),
        HEADER_LINE + line("/other"),
        HEADER_LINE + NA,
        HEADER_LINE + line("ls"),
        HEADER_LINE + line(""),
        HEADER_LINE + line("/no\nise"),
        HEADER_LINE + b"\x07/noise",
        HEADER_LINE + b"\x05\xff\xff\xff\xff\n",
        HEADER_LINE + b"\x06/noise\n",
        HEADER_LINE + b"\x80\x01/" + b"n" * 126 + b"\n",
        HEADER_LINE + b"\x80\x00\n",
        HEADER_LINE,
        line("/multistream/2.0.0") + line("/noise"),
    ],
)
@pytest.mark.parametrize("machine", [Dialer, Listener])
def test_what_comes_at_once_is_decided_as_what_comes_byte_by_byte(
    machine: type[Dialer] | type[Listener], opening: bytes
) -> None:
    at_once = said_of(machine(["/noise"]), [opening])
    assert at_once == said_of(machine(["/noise"]), [bytes([byte]) for byte in opening])
    assert at_once == said_of(machine(["/noise"]), [opening[:25], opening[25:]])
