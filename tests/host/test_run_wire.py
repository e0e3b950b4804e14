from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import ProtocolError
from fedd.core.mail import Item, MailKind, Receipt
from fedd.core.pieces import Pieces
from fedd.host.run_wire import (
    FIRST_BYTES,
    JOIN_UP_TO_BYTES,
    FrameDecoder,
    Kind,
    PreambleDecoder,
    RunFrame,
    encode_confirm,
    encode_frame,
    encode_mail,
    encode_preamble,
    encode_round,
    read_confirm,
    read_mail,
)

FRAMES = st.lists(
    st.one_of(
        st.tuples(
            st.just(Kind.ROUND), st.integers(0, 2**32 - 1), st.text(max_size=20), st.binary(max_size=40_000)
        ),
        st.tuples(
            st.sampled_from([kind for kind in Kind if kind not in (Kind.ROUND, Kind.MAIL)]),
            st.integers(0, 2**32 - 1),
            st.just(""),
            st.binary(max_size=4096),
        ),
    ),
    max_size=5,
)


def contents(frame: RunFrame) -> tuple[Kind, int, str, bytes]:
    return frame.kind, frame.number, frame.tag, bytes(frame.payload)


@settings(max_examples=60, deadline=None)
@given(frames=FRAMES, data=st.data())
def test_frames_survive_any_cutting(frames: list[tuple[Kind, int, str, bytes]], data: st.DataObject) -> None:
    wire = b""
    for kind, number, tag, payload in frames:
        if kind == Kind.ROUND:
            wire += b"".join(encode_round(number, tag, payload))
        else:
            wire += encode_frame(kind, number, payload)
    decoder = FrameDecoder(40_000)
    read: list[RunFrame] = []
    while wire:
        cut = data.draw(st.integers(1, len(wire)))
        read += decoder.receive_data(wire[:cut])
        wire = wire[cut:]
    assert [contents(frame) for frame in read] == frames


@pytest.mark.parametrize("size", [1, 7, 5000, JOIN_UP_TO_BYTES, 40_000])
def test_a_large_payload_comes_in_pieces_of_any_size(size: int) -> None:
    large, small = Random(1).randbytes(3 * JOIN_UP_TO_BYTES), b"small"
    wire = b"".join(
        (*encode_round(1, "t", small), *encode_round(2, "large", large), *encode_round(3, "", b""))
    )
    decoder = FrameDecoder(len(large))
    read: list[RunFrame] = []
    for begin in range(0, len(wire), size):
        read += decoder.receive_data(wire[begin : begin + size])
        assert len(decoder._pieces) <= 1 + len(large) // JOIN_UP_TO_BYTES  # whoever sends crumbs
    assert [contents(frame) for frame in read] == [
        (Kind.ROUND, 1, "t", small),
        (Kind.ROUND, 2, "large", large),
        (Kind.ROUND, 3, "", b""),
    ]


def test_the_pieces_of_a_large_payload_are_not_put_together() -> None:
    large = [bytes([number]) * JOIN_UP_TO_BYTES for number in range(3)]
    small = b"small"
    head = encode_round(1, "t", b"".join((large[0], large[1], small, small, large[2])))[0][:11]
    decoder = FrameDecoder(10 * JOIN_UP_TO_BYTES)
    for piece in (head, large[0], large[1], small, small):
        assert decoder.receive_data(bytes(piece)) == []
    (frame,) = decoder.receive_data(large[2])
    assert isinstance(frame.payload, Pieces)
    first, second, joined, last = frame.payload.buffers
    assert (first is large[0], second is large[1], last is large[2]) == (True, True, True)
    assert joined == 2 * small
    assert len(frame.payload) == 3 * JOIN_UP_TO_BYTES + 2 * len(small)


def test_the_start_of_a_large_payload_stays_where_it_came() -> None:
    small = b"".join(encode_round(1, "", b"small"))
    large = b"".join(encode_round(2, "t", bytes(3 * JOIN_UP_TO_BYTES)))
    came = small + large[: 2 * JOIN_UP_TO_BYTES]
    decoder = FrameDecoder(len(large))
    (frame,) = decoder.receive_data(came)
    assert contents(frame) == (Kind.ROUND, 1, "", b"small")
    frame, _ = decoder.receive_data(large[2 * JOIN_UP_TO_BYTES :] + small)
    assert isinstance(frame.payload, Pieces)
    first, _ = frame.payload.buffers
    assert isinstance(first, memoryview)
    assert first.obj is came
    assert contents(frame) == (Kind.ROUND, 2, "t", bytes(3 * JOIN_UP_TO_BYTES))


def test_large_payloads_are_not_copied() -> None:
    large = bytes(FIRST_BYTES + 10)
    first, rest = encode_round(1, "t", large)
    assert isinstance(rest, memoryview)
    assert rest.obj is large
    assert (len(first), len(rest)) == (11 + FIRST_BYTES, 10)
    for size in (10, JOIN_UP_TO_BYTES + 1, FIRST_BYTES):
        assert list(map(len, encode_round(1, "t", memoryview(large)[:size]))) == [11 + size]


@pytest.mark.parametrize(
    "wire",
    [
        b"\x00" + bytes(9),
        bytes([max(Kind) + 1]) + bytes(9),
        b"\x08\x00\x00\x00\x00\x00\x00\x00\x00\x8b",
        b"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x65",
        b"\x02\x00\x00\x00\x00\x00\x00\x00\x10\x01",
        b"\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\xff",
    ],
    ids=["kind 0", "unknown kind", "mail too long", "payload too long", "statement too long", "tag"],
)
def test_what_is_not_allowed_is_refused_before_it_is_kept(wire: bytes) -> None:
    with pytest.raises(ProtocolError):
        FrameDecoder(100).receive_data(wire)


def test_the_preamble_comes_in_pieces_and_keeps_what_follows() -> None:
    decoder = PreambleDecoder()
    wire = encode_preamble(b"manifest") + b"more"
    assert decoder.receive_data(wire[:2]) is None
    assert decoder.receive_data(wire[2:7]) is None
    assert decoder.receive_data(wire[7:]) == (b"manifest", b"more")
    with pytest.raises(ProtocolError):
        PreambleDecoder().receive_data(b"\xff\xff\xff\xff")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_the_protocol_error(data: bytes) -> None:
    decoder = FrameDecoder(1000)
    try:
        for byte in data:
            decoder.receive_data(bytes([byte]))
    except ProtocolError:
        pass


@pytest.mark.parametrize("size", [0, 5, JOIN_UP_TO_BYTES + 1, FIRST_BYTES + 1])
def test_mail_carries_its_number_its_receipt_and_its_item(size: int) -> None:
    item = Item(MailKind.QUESTION, 2**32 - 1, "täg", bytes(size))
    receipt = Receipt(2**40, 3, 2**33, True)
    buffers = encode_mail(7, item, receipt)
    assert len(buffers) == (2 if size > FIRST_BYTES else 1)
    (frame,) = FrameDecoder(size).receive_data(b"".join(buffers))
    assert read_mail(frame) == (7, receipt, item)
    (frame,) = FrameDecoder(0).receive_data(encode_confirm(receipt))
    assert read_confirm(frame) == receipt


@pytest.mark.parametrize("payload", [b"", bytes(30), bytes(33) + b"\x09" + bytes(4)])
def test_malformed_mail_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_mail(RunFrame(Kind.MAIL, 0, "", payload))
    with pytest.raises(ProtocolError):
        read_confirm(RunFrame(Kind.CONFIRM, 0, "", payload[:20]))
