"""Noticing that the machine was suspended, which the monotonic clock does not show."""

from __future__ import annotations

import time
from collections.abc import Callable


def suspended_s() -> float:
    """How long this machine has been suspended since it was started, in seconds.

    CLOCK_BOOTTIME counts suspends and CLOCK_MONOTONIC does not (clock_gettime(2)); nobody can set either.
    """
    awake_s = time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.clock_gettime(time.CLOCK_BOOTTIME) - awake_s


class SuspensionWatch:
    """Tells how much of a suspend is new since it was last asked."""

    def __init__(self, total_s: Callable[[], float] = suspended_s) -> None:
        self._total_s = total_s
        self._known_s = total_s()

    def gap_s(self) -> float:
        """Seconds of suspend since the last call; a fraction of a millisecond without any."""
        total_s = self._total_s()
        gap_s, self._known_s = total_s - self._known_s, total_s
        return gap_s
