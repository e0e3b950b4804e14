from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import ProtocolError
from fedd.core import codec
from fedd.core.broadcast_messages import (
    CHUNK_BYTES,
    MAX_FLOODED_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_POST_BYTES,
    MAX_RANGES,
    Acks,
    Bcast,
    Chunk,
    Gone,
    Ihave,
    Iwant,
    Marks,
    Post,
    Pull,
)
from fedd.core.identity import PrivateKey
from fedd.core.presence_messages import (
    MAX_ENTRIES,
    MAX_FRAME_BYTES,
    Bye,
    Digest,
    Hello,
    Message,
    MessageDecoder,
    Pin,
    Ping,
    Pong,
    Refuse,
    RevocationMarks,
    Revocations,
    Rows,
    Versions,
    Want,
    decode_message,
    encode_message,
    split_rows,
    split_versions,
)
from fedd.core.records import MAX_SEALED_BYTES, Row
from fedd.core.revocation import MAX_ISSUERS, MAX_LIST_BYTES

PEERS = [PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in range(1, 9)]
ROW = Row(PEERS[0], (1, False, 2), b"sealed")
EVERY: list[Message] = [
    Hello("federation", b"chain", pinned=True),
    Ping(1, 250),
    Pong(1),
    Rows((ROW, Row(PEERS[1], (3, True, 4), b""))),
    Digest(bytes(24)),
    Versions("", PEERS[1], ((PEERS[0], (1, True, 2)),)),
    Want((PEERS[0], PEERS[1])),
    Refuse((ROW,)),
    Pin(False),
    Bye("left"),
    RevocationMarks(((PEERS[0], 1), (PEERS[1], 7))),
    Revocations(b"sealed"),
    Bcast((Post(PEERS[0], 1, 2, b"sealed", b"body"), Post(PEERS[1], 3, 4, b"sealed"))),
    Ihave((Post(PEERS[0], 1, 2, b"sealed"),)),
    Iwant(PEERS[0], 1, ((1, 2), (4, 4))),
    Gone(Post(PEERS[0], 1, 9, b"sealed"), ((1, 8),)),
    Pull(PEERS[0], 1, 2, 8192),
    Chunk(PEERS[0], 1, 2, 8192, b"piece"),
    Marks(True, 1500, ((PEERS[0], 1, 2), (PEERS[1], 3, 4))),
    Acks(PEERS[0], 1, 2, ((PEERS[1], b"sealed"),)),
]


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_messages_survive_any_split_of_the_stream(cuts: list[int]) -> None:
    data = b"".join(encode_message(message) for message in EVERY)
    decoder = MessageDecoder()
    received = []
    position = index = 0
    while position < len(data):
        step = cuts[index % len(cuts)]
        received += decoder.receive_data(data[position : position + step])
        position, index = position + step, index + 1
    assert received == EVERY


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_the_protocol_error(data: bytes) -> None:
    with suppress(ProtocolError):
        MessageDecoder().receive_data(data)
    with suppress(ProtocolError):
        decode_message(data)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(EVERY), st.integers(0, 400), st.integers(0, 7))
def test_a_changed_bit_gives_a_message_or_the_protocol_error(message: Message, at: int, bit: int) -> None:
    body = bytearray(encode_message(message)[2:])
    body[at % len(body)] ^= 1 << bit
    with suppress(ProtocolError):
        decode_message(bytes(body))


def test_a_frame_above_the_cap_is_refused_before_it_arrives() -> None:
    with pytest.raises(ProtocolError, match="announces"):
        MessageDecoder().receive_data((MAX_FRAME_BYTES + 1).to_bytes(2, "big"))


def test_one_does_not_send_what_the_other_end_refuses() -> None:
    row = Row(PEERS[0], (1, False, 1), bytes(MAX_SEALED_BYTES))
    with pytest.raises(ProtocolError, match="longer than"):
        encode_message(Rows((row, row)))


PEER_BYTES = bytes.fromhex("0024080112201f") + bytes(31)


@pytest.mark.parametrize(
    "items",
    [
        1,
        [],
        [1],
        ["unknown"],
        ["ping", 1],
        ["ping", -1, 0],
        ["ping", True, 0],
        ["pong", 2**32],
        ["hello", 1, "f", "chain", False],
        ["hello", 1, "f" * 129, b"", False],
        ["hello", 1, "f", b"", 1],
        ["rows", 1],
        ["rows", [[b"x", 1, False, 1]]],
        ["rows", [[b"not a peer id", 1, False, 1, b""]]],
        ["rows", [1] * (MAX_ENTRIES + 1)],
        ["versions", "", "", [[b"x", 1, False]]],
        ["digest", bytes(25)],
        ["want", ["text"]],
        ["pin", None],
        ["bye", "nonsense"],
        ["bye", 1],
        ["revocations", "text"],
        ["revocations", bytes(MAX_LIST_BYTES + 1)],
        ["revocation-marks", 1],
        ["revocation-marks", [1]],
        ["revocation-marks", [[PEER_BYTES]]],
        ["revocation-marks", [[PEER_BYTES, -1]]],
        ["revocation-marks", [[PEER_BYTES, 1]] * (MAX_ISSUERS + 1)],
        ["bcast", [[PEER_BYTES, 1, 1, b"sealed"]]],
        ["bcast", [[PEER_BYTES, 1, 1, b"sealed", bytes(MAX_FLOODED_BYTES + 1)]]],
        ["bcast", [[PEER_BYTES, 1, 1, bytes(MAX_POST_BYTES + 1), b""]]],
        ["ihave", [[PEER_BYTES, 1, 1, b"sealed", b""]]],
        ["iwant", PEER_BYTES, 1, [[1, 1]] * (MAX_RANGES + 1)],
        ["iwant", PEER_BYTES, 1, [[1]]],
        ["iwant", PEER_BYTES, 1, [[2, 1]]],
        ["gone", [PEER_BYTES, 1, 1], [[1, 1]]],
        ["pull", PEER_BYTES, 1, 1, MAX_PAYLOAD_BYTES + 1],
        ["chunk", PEER_BYTES, 1, 1, 0, bytes(CHUNK_BYTES + 1)],
        ["marks", True, 1, [[PEER_BYTES, 1]]],
        ["acks", PEER_BYTES, 1, 1, [[PEER_BYTES]]],
    ],
)
def test_a_readable_frame_that_is_no_message_is_refused(items: object) -> None:
    with pytest.raises(ProtocolError):
        decode_message(codec.encode(items))


def test_rows_are_split_so_that_each_group_fits_a_frame() -> None:
    rows = [Row(PEERS[0], (1, False, number), bytes(1500)) for number in range(40)]
    groups = list(split_rows(rows))
    assert [row for group in groups for row in group] == rows
    assert len(groups) > 1
    for group in groups:
        encode_message(Rows(group))
    assert list(split_rows([])) == []


def test_version_ranges_cover_every_id_exactly_once() -> None:
    stamps = [(f"{number:04d}", (1, False, number)) for number in range(2 * MAX_ENTRIES + 5)]
    parts = list(split_versions(reversed(stamps)))
    assert len(parts) == 3
    assert [entry for part in parts for entry in part.stamps] == stamps
    for probe in ["", "0", "0100", "01005", "9999", *(peer for peer, _ in stamps)]:
        assert [part.covers(probe) for part in parts].count(True) == (1 if probe else 0)
    assert list(split_versions([])) == [Versions("", "", ())]
