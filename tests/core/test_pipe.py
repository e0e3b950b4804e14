"""Frames between daemon and worker: whole however they are cut, refused before they cost memory."""

import struct
from collections import deque
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import InvalidMessage, ProtocolError
from fedd.core import codec
from fedd.core.pieces import Pieces, whole
from fedd.core.pipe import MAX_HEADER_BYTES, Frame, PipeDecoder, drop_written, encode_frame

headers = st.dictionaries(
    st.text(max_size=6),
    st.one_of(st.integers(0, 2**32), st.text(max_size=6), st.lists(st.booleans())),
    max_size=4,
)
peers = st.lists(st.text(min_size=1, max_size=6), max_size=4)
rounds = st.integers(0, 2**63 - 1)
hot_headers = st.one_of(
    st.fixed_dictionaries(
        {
            "kind": st.just("exchange"),
            "round": rounds,
            "tag": st.text(max_size=6),
            "to": peers,
            "same": st.booleans(),
        }
    ),
    st.fixed_dictionaries({"kind": st.just("round"), "round": rounds, "from": peers, "gone": st.just([])}),
    st.fixed_dictionaries(
        {"kind": st.just("round"), "round": rounds, "from": peers, "gone": st.just([["p", "dead"]])}
    ),
)
bodies = st.lists(st.binary(max_size=300), max_size=5)


def wire(header: dict[str, Any], body: list[bytes]) -> bytes:
    return b"".join(encode_frame(header, body))


def contents(frames: list[Frame]) -> list[tuple[dict[str, Any], list[bytes]]]:
    return [(frame.header, [bytes(part) for part in frame.body]) for frame in frames]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.one_of(headers, hot_headers), bodies), max_size=5),
    st.randoms(use_true_random=False),
)
def test_frames_arrive_whole_however_they_are_cut(sent: list[Any], random: Random) -> None:
    stream = b"".join(wire(header, body) for header, body in sent)
    decoder = PipeDecoder(10_000)
    received: list[Frame] = []
    offset = 0
    while offset < len(stream):
        size = random.choice((1, random.randint(1, 40), len(stream)))
        received += decoder.receive_data(memoryview(stream)[offset : offset + size])
        offset += size
    assert contents(received) == sent
    assert decoder.at_boundary


def test_bodies_are_not_copied_into_the_header() -> None:
    large = memoryview(bytearray(1000)).cast("d")
    head, *rest = encode_frame({"kind": "exchange"}, [large, b"x"])
    assert rest[0] is large
    assert len(head) < 60
    (frame,) = PipeDecoder(2000).receive_data(head + large.tobytes() + b"x")
    assert [len(part) for part in frame.body] == [1000, 1]
    assert all(part.readonly for part in frame.body)


def test_a_part_in_pieces_is_written_piece_by_piece() -> None:
    pieces = Pieces([b"a" * 100, bytearray(b"b" * 50), memoryview(b"c" * 10)])
    _, *rest = frame = encode_frame({"kind": "round"}, [b"x", pieces, b""])
    assert [buffer is piece for buffer, piece in zip(rest[1:4], pieces.buffers, strict=True)] == [True] * 3
    (read,) = PipeDecoder(2000).receive_data(b"".join(frame))
    assert [bytes(part) for part in read.body] == [b"x", bytes(pieces), b""]
    assert len(pieces) == len(whole(pieces)) == 160


def test_a_frame_has_its_documented_bytes() -> None:
    header = codec.encode([{"k": 1}, [2, 0]])
    assert wire({"k": 1}, [b"ab", b""]) == struct.pack(">IQ", len(header), 2) + header + b"ab"


def test_an_exchange_and_a_round_have_their_documented_bytes() -> None:
    exchange = {"kind": "exchange", "round": 7, "tag": "grad\u00fc", "to": ["p1", "p2"], "same": True}
    header = struct.pack(">BBQHHQ", 1, 1, 7, 6, 1, 3) + "grad\u00fc".encode() + b"p1\0p2"
    assert wire(exchange, [b"abc"]) == struct.pack(">IQ", len(header), 3) + header + b"abc"
    uneventful = {"kind": "round", "round": 7, "from": [], "gone": []}
    header = struct.pack(">BBQHH", 2, 0, 7, 0, 0)
    assert wire(uneventful, []) == struct.pack(">IQ", len(header), 0) + header
    assert contents(PipeDecoder(100).receive_data(wire(uneventful, []))) == [(uneventful, [])]


@pytest.mark.parametrize(
    "header",
    [
        {"kind": "exchange", "round": 1, "tag": "t" * 70_000, "to": ["p"], "same": False},
        {"kind": "exchange", "round": 1, "tag": "", "to": ["p\0q"], "same": False},
        {"kind": "exchange", "round": 1, "tag": "", "to": [""], "same": False},
        {"kind": "round", "round": 1, "from": ["p"], "gone": [], "cut": ["q"]},
    ],
)
def test_what_does_not_fit_the_fixed_fields_travels_as_cbor(header: dict[str, Any]) -> None:
    assert wire(header, [b"x"])[12] == 0x82
    assert contents(PipeDecoder(200_000).receive_data(wire(header, [b"x"]))) == [(header, [b"x"])]


def test_a_cut_frame_is_known_at_the_end_of_the_pipe() -> None:
    stream = wire({"k": 1}, [b"abc"])
    for end in range(len(stream) + 1):
        decoder = PipeDecoder(1000)
        decoder.receive_data(stream[:end])
        assert decoder.at_boundary is (end in (0, len(stream)))


def test_headers_have_a_bound() -> None:
    with pytest.raises(InvalidMessage, match="header has"):
        encode_frame({"k": bytes(MAX_HEADER_BYTES)})
    overhead = len(codec.encode([{"k": bytes(70_000)}, []])) - 70_000
    largest = {"k": bytes(MAX_HEADER_BYTES - overhead)}
    assert len(encode_frame(largest)[0]) == MAX_HEADER_BYTES + 12
    assert contents(PipeDecoder(10**6).receive_data(wire(largest, []))) == [(largest, [])]


def frame(content: bytes, body_bytes: int = 0) -> bytes:
    return struct.pack(">IQ", len(content), body_bytes) + content


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (struct.pack(">IQ", 0, 0), "claims 0 bytes"),
        (struct.pack(">IQ", MAX_HEADER_BYTES + 1, 0), "claims 262145 bytes"),
        (struct.pack(">IQ", 2**32 - 1, 0), "claims 4294967295 bytes"),
        (struct.pack(">IQ", 10, 2**64 - 1), "more than 300000"),
        (struct.pack(">IQ", 10, 299_991), "a frame claims 300001 bytes, more than 300000"),
        (frame(b"\xff"), "malformed"),
        (frame(codec.encode({})), "not .fields, lengths"),
        (frame(codec.encode([{}])), "not .fields, lengths"),
        (frame(codec.encode([[], []])), "not .fields, lengths"),
        (frame(codec.encode([{}, {}])), "not .fields, lengths"),
        (frame(codec.encode([{}, [1]])), "do not add up"),
        (frame(codec.encode([{}, [2, -1]]), 1), "do not add up"),
        (frame(codec.encode([{}, [True]]), 1), "do not add up"),
        (frame(b"\x01"), "fixed fields is malformed"),
        (frame(struct.pack(">BBQHH", 1, 0, 0, 0, 9)), "fixed fields is malformed"),
        (frame(struct.pack(">BBQHH", 2, 0, 0, 0, 0) + b"\xff"), "fixed fields is malformed"),
        (frame(struct.pack(">BBQHHQ", 2, 0, 0, 0, 1, 5), 4), "do not add up"),
    ],
)
def test_broken_frames_are_refused_and_the_decoder_stays_broken(data: bytes, reason: str) -> None:
    decoder = PipeDecoder(300_000)
    for given_data in (data, wire({"k": 1}, [])):
        with pytest.raises(ProtocolError, match=reason):
            decoder.receive_data(given_data)


def test_what_was_whole_before_a_broken_frame_is_not_lost_with_it() -> None:
    decoder = PipeDecoder(300_000)
    good = [({"k": number}, [b"x"]) for number in range(2)]
    stream = b"".join(wire(*content) for content in good)
    assert contents(decoder.receive_data(stream + b"garbage" * 100)) == good
    for more in (b"", stream):
        with pytest.raises(ProtocolError, match="claims 1734439522 bytes"):
            decoder.receive_data(more)


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_garbage_raises_nothing_but_protocol_errors(chunks: list[bytes]) -> None:
    decoder = PipeDecoder(1000)
    try:
        for chunk in chunks:
            decoder.receive_data(chunk)
    except ProtocolError:
        return


def test_the_rest_of_a_body_is_read_into_its_place() -> None:
    decoder = PipeDecoder(10_000)
    sent = wire({"kind": "x"}, [b"a" * 100, b"b" * 50])
    assert decoder.room is None
    assert decoder.receive_data(sent[:-120]) == []
    room = decoder.room
    assert room is not None
    assert len(room) == 120
    room[:40] = sent[-120:-80]
    assert decoder.received(40) == []
    with pytest.raises(ValueError, match="no room for 81"):
        decoder.received(81)
    assert contents(decoder.receive_data(sent[-80:-10])) == []
    room = decoder.room
    assert room is not None
    room[:] = sent[-10:]
    assert contents(decoder.received(10)) == [({"kind": "x"}, [b"a" * 100, b"b" * 50])]
    assert decoder.room is None
    with pytest.raises(ValueError, match="no room"):
        decoder.received(0)
    assert contents(decoder.receive_data(sent)) == [({"kind": "x"}, [b"a" * 100, b"b" * 50])]


@pytest.mark.parametrize("written", [0, 1, 3, 4, 9, 10])
def test_what_was_written_is_dropped(written: int) -> None:
    unsent = deque([memoryview(b"abc"), memoryview(b"d"), memoryview(b"efghij")])
    drop_written(unsent, written)
    assert b"".join(unsent) == b"abcdefghij"[written:]
    assert all(unsent)
