"""A deadline that moves: a task sleeps until it, and whoever moves it wakes nobody."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio


class Alarm:
    """Wakes one task at a time that others may bring forward. Times are those of `clock`, in seconds.

    Cores say after each message when they have something to do next. To wake the task that waits for it, only
    that it waits anew, would take as long as many a message does.
    """

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._scope: trio.CancelScope | None = None
        self.due = math.inf
        """When it rings."""

    def set(self, due: float) -> None:
        """Ring at `due`, or at once when that is over. Once it rings, nothing holds it back."""
        self.due = due
        if self._scope is not None:
            self._scope.deadline = self._trio_time(due)

    def advance(self, due: float) -> None:
        """Ring at `due` unless it does so earlier."""
        if due < self.due:
            self.set(due)

    async def wait(self) -> None:
        """Sleep until it rings."""
        with trio.CancelScope(deadline=self._trio_time(self.due)) as self._scope:
            try:
                await trio.sleep_forever()
            finally:
                self._scope = None

    def _trio_time(self, due: float) -> float:
        if self._clock is trio.current_time:
            return due
        ahead_s = due - self._clock()  # first, or it might ring a moment too early
        return trio.current_time() + ahead_s
