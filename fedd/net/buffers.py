"""Buffers for whole reads and writes of a connection, and how a write is put into one."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Final

from fedd.core.noise import FULL_FRAME_BYTES, NoiseTransport

FRAMES_PER_SEND: Final = 8
"""Full Noise frames in one write; with 4, bulk is 6 % slower."""

MAX_QUANTUM_BYTES: Final = FRAMES_PER_SEND * FULL_FRAME_BYTES
MIN_QUANTUM_BYTES: Final = 16 * 1024
"""Payload of one write on a slow link: a heartbeat waits behind no more than this."""

BUFFER_BYTES: Final = FRAMES_PER_SEND * 65537 + 64 * 1024
"""A quantum with its tags, and room for the headers and control frames of all streams."""

SMALL_BYTES: Final = 8192
"""Pieces below this share a Noise frame: a frame of their own would cost 3 us at each end, and to copy them
costs less. Larger ones are sealed from where they are."""


class BufferPool:
    """Large buffers, lent for as long as one read or write takes. At most `keep` are held unused."""

    def __init__(self, keep: int = 4) -> None:
        self._keep = keep
        # glibc gives freed memory back to the kernel above twice the largest block that was ever freed,
        # at first 128 KiB: then every chunk of bulk data costs page faults. This moves the mark to 2.4 MB
        # (mallopt(3), M_TRIM_THRESHOLD) and keeps no memory.
        bytearray(2 * BUFFER_BYTES)
        self._free: list[memoryview] = []
        self._mapped = 0

    def take(self) -> memoryview:
        """Borrow BUFFER_BYTES of memory with anything in it."""
        if self._free:
            return self._free.pop()
        if self._mapped < self._keep:
            self._mapped += 1
            return memoryview(_map())
        return memoryview(bytearray(BUFFER_BYTES))  # malloc reuses it, without page faults

    def give(self, buffer: memoryview) -> None:
        """Give a borrowed buffer back."""
        if len(self._free) < self._keep:
            self._free.append(buffer)


def _map() -> mmap.mmap:
    # A bytearray is filled with zeros, all 0.6 MB of it. Of a mapping, only the pages that were used count:
    # on a link that carries heartbeats alone, these are two. Private, so that no child shares its content.
    return mmap.mmap(-1, BUFFER_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def seal(transport: NoiseTransport, buffer: memoryview, pieces: Sequence[bytes | memoryview]) -> int:
    """Encrypt into `buffer`: small pieces together, large ones straight from their memory.

    Gives how many bytes of the buffer the frames take.
    """
    offset = 0
    small: list[bytes | memoryview] = []
    small_bytes = 0
    for piece in pieces:
        size = len(piece)
        # What is left over beside full frames shares one with the header before it.
        odd = size if size < SMALL_BYTES else size % FULL_FRAME_BYTES
        if odd < SMALL_BYTES:
            small.append(piece[:odd])
            small_bytes += odd
            if odd == size:
                if small_bytes > FULL_FRAME_BYTES - 2 * SMALL_BYTES:
                    offset = transport.seal_into(buffer, offset, b"".join(small))
                    small, small_bytes = [], 0
                continue
            piece = piece[odd:]
        if small:
            offset = transport.seal_into(buffer, offset, b"".join(small))
            small, small_bytes = [], 0
        offset = transport.seal_frames(buffer, offset, piece)
    if small:
        offset = transport.seal_into(buffer, offset, b"".join(small))
    return offset
