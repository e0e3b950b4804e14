"""Who may have a command handled next: so many at once, so many a sender, the senders in turn."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from fedd.api.errors import Unhealthy
from fedd.api.types import PeerId
from fedd.net.bounds import Bound

RUNNING = 8
"""Handlers at work at once. One of the places is kept for this node's own operator and plugins."""
RUNNING_PER_SENDER = 4
"""Of one sender: two of them cannot keep all others waiting."""
WAITING_PER_SENDER = 16
"""Each waits with its parameters in memory."""
PATIENCE_S = 10.0
"""How long a sender is kept waiting before it is told that there is too much to do."""


class Turns:
    """Hands out places to senders in turn."""

    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._running: Counter[PeerId] = Counter()
        self._waiting: dict[PeerId, deque[trio.Event]] = {}
        self._refused = 0

    @asynccontextmanager
    async def turn(self, sender: PeerId, patience_s: float | None = PATIENCE_S) -> AsyncIterator[None]:
        """Wait for a place and hold it. Raises Unhealthy when too many wait, or longer than `patience_s`."""
        await self._take(sender, patience_s)
        try:
            yield
        finally:
            self._release(sender)

    def bounds(self) -> list[Bound]:
        """How many places are taken."""
        taken = self._running.total()
        help_text = "handlers of commands at work; more wait, and are refused after a while"
        return [Bound("commands", taken, RUNNING, self._refused, help_text)]

    async def _take(self, sender: PeerId, patience_s: float | None) -> None:
        if self._is_free(sender):
            self._running[sender] += 1
            return
        queue = self._waiting.setdefault(sender, deque())
        if len(queue) >= WAITING_PER_SENDER:
            self._refused += 1
            raise Unhealthy(
                f"{len(queue)} commands of this sender wait here already", hint="wait for their answers"
            )
        place = trio.Event()
        queue.append(place)
        try:
            with trio.move_on_after(float("inf") if patience_s is None else patience_s):
                await place.wait()
        except BaseException:
            self._give_up(sender, place)
            raise
        if not place.is_set():
            self._give_up(sender, place)
            self._refused += 1
            raise Unhealthy(
                f"too many commands are being handled here: no turn within {patience_s:g} s",
                hint="try again later",
            )

    def _give_up(self, sender: PeerId, place: trio.Event) -> None:
        if place.is_set():
            self._release(sender)
            return
        self._waiting[sender].remove(place)
        if not self._waiting[sender]:
            del self._waiting[sender]

    def _is_free(self, sender: PeerId) -> bool:
        places = RUNNING if sender == self._me else RUNNING - 1
        return self._running.total() < places and self._running[sender] < RUNNING_PER_SENDER

    def _release(self, sender: PeerId) -> None:
        self._running[sender] -= 1
        if not self._running[sender]:
            del self._running[sender]
        for waiting in list(self._waiting):
            while waiting in self._waiting and self._is_free(waiting):
                queue = self._waiting.pop(waiting)
                self._running[waiting] += 1
                queue.popleft().set()
                if queue:
                    self._waiting[waiting] = queue  # at the end: the others come first now
                break
