"""How large one write may be: what a link takes in a few milliseconds, as it has shown."""

from __future__ import annotations

from typing import Final

from fedd.net.buffers import MAX_QUANTUM_BYTES, MIN_QUANTUM_BYTES
from fedd.net.transport import Wire

QUANTUM_S: Final = 0.002
"""How long one write may keep the link: a heartbeat that comes just after it waits so long. 16 KiB take
longer on a link below 66 Mbit/s; smaller writes would cost it more than they save."""

JUDGE_S: Final = 0.01
"""A link is judged by what it took in this much time of writing and waiting. Less, and a reader that was not
scheduled for a moment, on a busy machine, would make a fast link look slow."""

FAST_BYTES: Final = 8 * MIN_QUANTUM_BYTES
"""A link that may write as much at once may hold as much unsent in the kernel: the kernel then sends while
this process does other things. On a slower one that would undo what small writes are for."""


class Pace:
    """The size of writes on one link, in bytes of payload."""

    __slots__ = ("_bytes", "_limit_bytes", "_seconds", "_wire", "quantum_bytes")

    def __init__(self, wire: Wire) -> None:
        self.quantum_bytes = MIN_QUANTUM_BYTES
        self._limit_bytes = MAX_QUANTUM_BYTES
        self._wire = wire
        self._bytes = 0
        self._seconds = 0.0

    def took(self, size_bytes: int, seconds: float) -> None:
        """The kernel took a write, `seconds` after it was offered."""
        self._bytes += size_bytes
        self._seconds += seconds
        quantum_bytes = self.quantum_bytes
        if self._seconds >= JUDGE_S:
            fitting = int(self._bytes / self._seconds * QUANTUM_S)
            self._limit_bytes = max(MIN_QUANTUM_BYTES, min(fitting, MAX_QUANTUM_BYTES))
            self._bytes, self._seconds = 0, 0.0
            quantum_bytes = min(quantum_bytes, self._limit_bytes)
        elif size_bytes >= quantum_bytes:
            quantum_bytes = min(2 * quantum_bytes, self._limit_bytes)
        if quantum_bytes != self.quantum_bytes:
            was_fast = self.quantum_bytes >= FAST_BYTES
            self.quantum_bytes = quantum_bytes
            if (quantum_bytes >= FAST_BYTES) is not was_fast:
                self._wire.limit_unsent(MIN_QUANTUM_BYTES if was_fast else FAST_BYTES)
