"""The pool of large buffers."""

from __future__ import annotations

import mmap
from pathlib import Path

from fedd.net.buffers import BUFFER_BYTES, BufferPool


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
