"""What a daemon gives back to the kernel."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import pytest

from fedd.daemon import release_free_memory

BLOCK_BYTES = 64 * 1024  # below malloc's limit for blocks with a mapping of their own
BLOCKS = 400


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this libc cannot give memory back")
def test_free_memory_below_a_block_in_use_is_given_back() -> None:
    blocks = [bytes([1]) * BLOCK_BYTES for _ in range(BLOCKS)]
    last = blocks.pop()
    blocks.clear()
    before = resident_bytes()
    release_free_memory()
    assert before - resident_bytes() > BLOCKS * BLOCK_BYTES / 2
    assert len(last) == BLOCK_BYTES


def test_a_libc_without_trimming_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    release_free_memory()
