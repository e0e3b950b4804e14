"""Broadcast commands on their way to their handlers: one after the other for each origin, in its order."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import trio

from fedd.api.types import PeerId
from fedd.net.bounds import Bound

WAITING_PER_ORIGIN = 64
"""Its handlers are that far behind; each took its time."""
WAITING_BYTES = 4 * 1024 * 1024
"""Of all origins: a broadcast has up to 64 KiB."""

Handle = Callable[[PeerId, bytes], Awaitable[None]]


class Inbox:
    """`handle` is called for each message and must raise no FeddError; `lost` when one has no room."""

    def __init__(self, handle: Handle, lost: Callable[[PeerId], None]) -> None:
        self._handle = handle
        self._lost = lost
        self._waiting: dict[PeerId, deque[bytes]] = {}
        self._bytes = 0
        self._dropped = 0

    def put(self, nursery: trio.Nursery, origin: PeerId, payload: bytes) -> None:
        """Take a message for its handler; never waits."""
        queue = self._waiting.get(origin)
        if self._bytes + len(payload) > WAITING_BYTES or len(queue or ()) >= WAITING_PER_ORIGIN:
            self._dropped += 1
            self._lost(origin)
            return
        self._bytes += len(payload)
        if queue is None:
            self._waiting[origin] = deque([payload])
            nursery.start_soon(self._work, origin)
        else:
            queue.append(payload)

    def is_waiting(self, origin: PeerId) -> bool:
        """Whether a message of that origin is being handled, or waits: what comes now comes after it."""
        return origin in self._waiting

    def bounds(self) -> list[Bound]:
        """How much waits."""
        help_text = "of broadcast commands that wait for their handlers; beyond it they are lost"
        return [Bound("command_inbox_bytes", self._bytes, WAITING_BYTES, self._dropped, help_text)]

    async def _work(self, origin: PeerId) -> None:
        queue = self._waiting[origin]
        try:
            while queue:
                await self._handle(origin, queue[0])
                self._bytes -= len(queue.popleft())
        finally:
            self._bytes -= sum(map(len, queue))
            del self._waiting[origin]
