"""The pool of large buffers."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from fedd.core.noise import FULL_FRAME_BYTES, NoiseTransport
from fedd.net.buffers import BUFFER_BYTES, MAX_QUANTUM_BYTES, SMALL_BYTES, BufferPool, seal


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_a_buffer_takes_only_the_memory_that_was_written_to() -> None:
    pool = BufferPool(keep=40)
    before = resident_bytes()
    taken = [pool.take() for _ in range(40)]
    for buffer in taken:
        buffer[:100] = bytes(100)
    assert resident_bytes() - before < 4 * BUFFER_BYTES  # filled, they would take ten times as much


def test_buffers_are_lent_again_and_few_are_kept() -> None:
    pool = BufferPool(keep=2)
    taken = [pool.take() for _ in range(3)]
    assert all(len(buffer) == BUFFER_BYTES and not buffer.readonly for buffer in taken)
    for buffer in taken:
        pool.give(buffer)
    again = [pool.take() for _ in range(3)]
    assert again[0] is taken[1]
    assert again[1] is taken[0]
    assert again[2] is not taken[2]


def sealed_frames(*pieces: bytes) -> list[int]:
    """Seal, open again, compare; give how many bytes of plaintext each frame holds."""
    buffer, opened = (memoryview(bytearray(BUFFER_BYTES)) for _ in range(2))
    end = seal(NoiseTransport(b"1" * 32, b"2" * 32), buffer, [memoryview(piece) for piece in pieces])
    far = NoiseTransport(b"2" * 32, b"1" * 32)
    sizes = []
    offset = filled = 0
    while offset < end:
        frame_end = offset + 2 + int.from_bytes(buffer[offset : offset + 2], "big")
        used, written = far.open_frames(buffer[offset:frame_end], opened[filled:])
        assert used == frame_end - offset
        sizes.append(written)
        offset, filled = frame_end, filled + written
    assert opened[:filled] == b"".join(pieces)
    return sizes


HEADER = b"h" * 12


@pytest.mark.parametrize(
    ("pieces", "sizes"),
    [
        ((), []),
        ((HEADER, b"x" * 100, HEADER), [124]),
        ((HEADER, b"x" * SMALL_BYTES), [12, SMALL_BYTES]),
        ((HEADER, bytes(range(256)) * 1000), [12, *[FULL_FRAME_BYTES] * 3, 60_160]),
        ((HEADER, b"ab" + b"c" * FULL_FRAME_BYTES, HEADER), [14, FULL_FRAME_BYTES, 12]),
        ((HEADER, b"odd" + b"x" * MAX_QUANTUM_BYTES), [15, *[FULL_FRAME_BYTES] * 8]),
    ],
)
def test_small_pieces_share_frames_also_with_what_large_ones_have_too_much(
    pieces: tuple[bytes, ...], sizes: list[int]
) -> None:
    assert sealed_frames(*pieces) == sizes


def test_many_small_pieces_fill_more_than_one_frame() -> None:
    sizes = sealed_frames(*(bytes([n]) * 4000 for n in range(30)))
    assert sum(sizes) == 30 * 4000
    assert 1 < len(sizes) < 4
