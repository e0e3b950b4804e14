"""What is signed of broadcasts, and how they share frames."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from core.broadcast_world import FEDERATION, PEERS
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import ProtocolError
from fedd.core import codec
from fedd.core.broadcast_messages import (
    MAX_PAYLOAD_BYTES,
    MAX_POST_BYTES,
    Bcast,
    Header,
    Marks,
    Post,
    decode_header,
    decode_items,
    encode_header,
    encode_items,
    split_marks,
    split_posts,
)
from fedd.core.identity import PrivateKey, seal
from fedd.core.presence_messages import encode_message
from fedd.core.records import MAX_COUNTER

HEADER = Header(3, 4, "note", True, 5, bytes(32))


def test_a_header_survives_its_signature_and_fits() -> None:
    largest = Header(MAX_COUNTER, MAX_COUNTER, "\U0001f600" * 32, True, MAX_PAYLOAD_BYTES, bytes(32))
    for header in (HEADER, largest):
        data = encode_header(FEDERATION, header)
        assert decode_header(FEDERATION, data) == header
        assert len(seal(PrivateKey.from_seed(bytes(32)), "fedd/broadcast/1", data)) <= MAX_POST_BYTES


@pytest.mark.parametrize(
    "bad",
    [
        {"epoch": 0},
        {"seq": 0},
        {"size": MAX_PAYLOAD_BYTES + 1},
        {"channel": "c" * 33},
        {"wants_acks": 1},
        {"digest": bytes(33)},
        {"epoch": MAX_COUNTER + 1},
    ],
)
def test_a_header_out_of_bounds_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        decode_header(FEDERATION, encode_header(FEDERATION, replace(HEADER, **bad)))


def test_a_header_of_another_federation_is_refused() -> None:
    with pytest.raises(ProtocolError, match="another federation"):
        decode_header(FEDERATION, encode_header("cd" * 32, HEADER))


@pytest.mark.parametrize("items", [1, [], [1] * 6, {"epoch": 1}])
def test_what_is_no_header_is_refused(items: object) -> None:
    with pytest.raises(ProtocolError):
        decode_header(FEDERATION, codec.encode(items))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=100))
def test_arbitrary_bytes_raise_only_the_protocol_error(data: bytes) -> None:
    with suppress(ProtocolError):
        decode_header(FEDERATION, data)
    with suppress(ProtocolError):
        decode_items(data)


def test_the_protocols_own_broadcasts_are_read_as_written() -> None:
    assert decode_items(encode_items(7, PEERS[:3])) == (7, PEERS[:3])


def test_posts_and_marks_are_split_so_that_each_group_fits_a_frame() -> None:
    posts = [Post(PEERS[0], 1, seq, bytes(MAX_POST_BYTES), bytes(1024)) for seq in range(1, 30)]
    groups = list(split_posts(posts))
    assert [post for group in groups for post in group] == posts
    assert max(len(encode_message(Bcast(group))) for group in groups) <= 16 * 1024
    assert list(split_posts([])) == []
    entries = [(PEERS[0], MAX_COUNTER, MAX_COUNTER)] * 500
    parts = list(split_marks(True, MAX_COUNTER, entries))
    assert [entry for part in parts for entry in part.entries] == entries
    assert max(len(encode_message(part)) for part in parts) <= 16 * 1024
    assert list(split_marks(False, 0, [])) == [Marks(False, 0, ())]
