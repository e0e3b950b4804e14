"""Mutations of bytes: blind ones, splices of two inputs, and a few that know lengths and CBOR heads."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

MAX_BYTES = 8192
"""Longer inputs find nothing more: every decoder here has its caps below, or is told of them by lengths."""

_INTERESTING = (
    b"\x00", b"\x01", b"\x7f", b"\x80", b"\xff", b"\x00\x00", b"\xff\xff", b"\x7f\xff", b"\x80\x00",
    b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00" * 8, b"\xff" * 8,
    b"\x80" * 9 + b"\x01", b"\xff" * 9 + b"\x7f",  # varints of the longest kind
    b"\x9f", b"\xbf", b"\x5f", b"\x7f\x61", b"\xff", b"\xc0", b"\xc2\x41\x01", b"\xd8\x28", b"\xd8\x1d\x00",
    b"\x81" * 40, b"\x9b" + b"\xff" * 8, b"\x5b" + b"\xff" * 8, b"\xbb\x00\x00\x00\x01\x00\x00\x00\x00",
    b"\xf9\x7e\x00", b"\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00", b"\xa2\x61a\x01\x61a\x02", b"\xf8\x18",
    b"\r\n", b"\n", b"\r\n\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"%00", b"/..",
    b"//", b"/p2p/", b"/ip6/::1", b"=", b"-", b"_", "\u00e9".encode(), b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
)  # fmt: skip

Mutation = Callable[[random.Random, bytearray], None]


def _position(rng: random.Random, data: bytearray) -> int:
    return rng.randrange(len(data) + 1)


def _flip_bit(rng: random.Random, data: bytearray) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_byte(rng: random.Random, data: bytearray) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def _add_to_byte(rng: random.Random, data: bytearray) -> None:
    if data:
        index = rng.randrange(len(data))
        data[index] = (data[index] + rng.choice((-2, -1, 1, 2))) & 255


def _delete(rng: random.Random, data: bytearray) -> None:
    start = _position(rng, data)
    del data[start : start + rng.randrange(1, 17)]


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[_position(rng, data) :]


def _repeat(rng: random.Random, data: bytearray) -> None:
    start = _position(rng, data)
    piece = data[start : start + rng.randrange(1, 33)]
    data[start:start] = piece * rng.choice((1, 1, 2, 17))


def _insert_interesting(rng: random.Random, data: bytearray) -> None:
    start = _position(rng, data)
    data[start:start] = rng.choice(_INTERESTING)


def _overwrite_interesting(rng: random.Random, data: bytearray) -> None:
    piece = rng.choice(_INTERESTING)
    start = _position(rng, data)
    data[start : start + len(piece)] = piece


def _insert_random(rng: random.Random, data: bytearray) -> None:
    start = _position(rng, data)
    data[start:start] = rng.randbytes(rng.randrange(1, 17))


_MUTATIONS: tuple[Mutation, ...] = (
    _flip_bit, _flip_bit, _set_byte, _add_to_byte, _delete, _cut, _repeat,
    _insert_interesting, _overwrite_interesting, _insert_random,
)  # fmt: skip


def mutated(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """An input made of those in `corpus`: one to eight changes, sometimes two inputs spliced."""
    data = bytearray(rng.choice(corpus))
    if rng.random() < 0.1:
        other = rng.choice(corpus)
        del data[_position(rng, data) :]
        data += other[rng.randrange(len(other) + 1) :]
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4, 8))):
        rng.choice(_MUTATIONS)(rng, data)
    return bytes(data[:MAX_BYTES])


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """The same bytes, as a network may deliver them."""
    if not data or rng.random() < 0.5:
        return [data]
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 4)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
