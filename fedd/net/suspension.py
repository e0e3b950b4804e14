"""Noticing that the machine was suspended, which the monotonic clock does not show."""

from __future__ import annotations

import time
from collections.abc import Callable

APART_S = 0.001
"""Two readings of clocks that lie further apart do not tell of the same moment."""
_READINGS = 10
"""On a machine so busy that none of so many is undisturbed, the least disturbed has to do."""


def suspended_s(read: Callable[[int], float] = time.clock_gettime) -> float:
    """How long this machine has been suspended since it was started, in seconds.

    CLOCK_BOOTTIME counts suspends and CLOCK_MONOTONIC does not (clock_gettime(2)); nobody can set either. A
    process that has to wait for a processor between the two readings would take the wait for a suspend.
    """
    narrowest_s, suspended = float("inf"), 0.0
    for _ in range(_READINGS):
        before_s = read(time.CLOCK_MONOTONIC)
        since_boot_s = read(time.CLOCK_BOOTTIME)
        width_s = read(time.CLOCK_MONOTONIC) - before_s
        if width_s < narrowest_s:
            narrowest_s, suspended = width_s, since_boot_s - before_s
        if narrowest_s < APART_S:
            break
    return suspended


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
