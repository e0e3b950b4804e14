"""A byte rate that is kept by waiting: who has taken more than its share waits before it takes again."""

from __future__ import annotations

from typing import Final

WINDOW_S: Final = 1.0
"""The present rate is that of the last window of this length that is over."""


class ByteRate:
    """At most `burst_bytes` at once and `bytes_per_s` in the long run.

    The method is the generic cell rate algorithm (ITU-T I.371, annex A) with bytes for cells: `_due_s` is
    when everything taken so far would have passed at the rate alone; it may lie `burst / rate` ahead of now.
    Who takes is told how long to wait, in the order of taking, so several share one rate fairly.
    """

    __slots__ = ("_ahead_s", "_due_s", "_end_s", "_last", "_now_bytes", "bytes_per_s")

    def __init__(self, bytes_per_s: float, burst_bytes: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._ahead_s = burst_bytes / bytes_per_s
        self._due_s = float("-inf")
        self._end_s = float("-inf")
        self._now_bytes = 0
        self._last = 0.0

    def take(self, size_bytes: int, now: float) -> float:
        """Take so many bytes; for how many seconds to wait before they are passed on."""
        self._count(now)
        self._now_bytes += size_bytes
        self._due_s = max(self._due_s, now) + size_bytes / self.bytes_per_s
        return max(0.0, self._due_s - self._ahead_s - now)

    def present(self, now: float) -> float:
        """Bytes taken in the last second that is over."""
        self._count(now)
        return self._last

    def _count(self, now: float) -> None:
        if now < self._end_s:
            return
        # in the window that ended just now, unless that is longer ago
        self._last = self._now_bytes / WINDOW_S if now < self._end_s + WINDOW_S else 0.0
        self._now_bytes = 0
        self._end_s = now + WINDOW_S
