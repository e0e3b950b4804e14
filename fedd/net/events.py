"""The event log: what happened on this node, newest last, for readers at their own pace.

One ring is shared by all readers and each keeps only a position in it: a stalled reader costs nothing,
and what the ring has already overwritten is reported to it as one `lagged` item.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from fedd.net.bounds import Bound

Event = dict[str, Any]

KINDS = ("member", "link", "run", "input", "federation", "plugin", "command", "node")
"""What an event's `kind` can be. `lagged` is said by a subscription itself."""

# A peer chooses its own name and reasons; longer strings are cut so that 4096 events stay below a few MiB.
MAX_TEXT_CHARS = 512


class EventLog:
    """The last `capacity` events, numbered from 1 since the daemon's start.

    Synchronous to publish, so that no decision ever waits for a reader. Each event is a flat dictionary
    `{seq, kind, unix_s, ...fields}` that JSON can hold; `unix_s` is for people to read and decides nothing.
    """

    def __init__(self, capacity: int = 4096, wall_clock: Callable[[], float] = time.time) -> None:
        self._events: deque[Event] = deque(maxlen=capacity)
        self._wall_clock = wall_clock
        self._seq = 0
        self._closed = False
        self._news = trio.Event()

    @property
    def last_seq(self) -> int:
        """The number of the newest event, 0 before the first."""
        return self._seq

    def publish(self, kind: str, **fields: Any) -> int:
        """Append an event and wake the readers; returns its `seq`. Fields that are None are left out."""
        if kind not in KINDS:
            raise ValueError(f"unknown kind of event {kind!r}, known are {', '.join(KINDS)}")
        self._seq += 1
        event: Event = {"seq": self._seq, "kind": kind, "unix_s": round(self._wall_clock(), 3)}
        for name, value in fields.items():
            if value is not None:
                event[name] = value[:MAX_TEXT_CHARS] if isinstance(value, str) else value
        self._events.append(event)
        self._wake()
        return self._seq

    def subscribe(self, since: int | None = None) -> Subscription:
        """Events after number `since` (0: all that are kept; None: only those still to come).

        A number from before a restart of the daemon, thus beyond the newest, starts at the oldest kept event
        with a `lagged` item.
        """
        return Subscription(self, self._seq if since is None else since)

    def bounds(self) -> list[Bound]:
        """How many events are kept, and how many may be; beyond it the oldest go."""
        kept, most = len(self._events), self._events.maxlen or 0
        return [Bound("events", kept, most, self._seq - kept, "events kept for `fedctl events --since`")]

    def close(self) -> None:
        """End every subscription once it has delivered what is there."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    def _next(self, position: int) -> tuple[int, Event] | None:
        """The position and the item after `position`, None when there is nothing yet."""
        first = self._seq - len(self._events) + 1
        if position > self._seq:
            return first - 1, {"kind": "lagged", "seq": first - 1, "missed": first - 1}
        if position < first - 1:
            return first - 1, {"kind": "lagged", "seq": first - 1, "missed": first - 1 - position}
        if position == self._seq:
            return None
        return position + 1, self._events[position + 1 - first]


class Subscription:
    """An asynchronous iterator over an `EventLog`. Needs no closing: it holds a number and nothing else.

    `{"kind": "lagged", "seq", "missed"}` stands in for events that were overwritten before they were read.
    """

    def __init__(self, log: EventLog, position: int) -> None:
        self._log = log
        self._position = position

    def __aiter__(self) -> Subscription:
        return self

    def take_ready(self, most: int) -> list[Event]:
        """What the iterator would give next without waiting, `most` items of it at most."""
        ready: list[Event] = []
        while len(ready) < most and (item := self._log._next(self._position)) is not None:
            self._position, event = item
            ready.append(event)
        return ready

    async def __anext__(self) -> Event:
        waited = False
        while True:
            item = self._log._next(self._position)
            if item is not None:
                if not waited:
                    await trio.lowlevel.checkpoint()
                self._position, event = item
                return event
            if self._log._closed:
                raise StopAsyncIteration
            await self._log._news.wait()
            waited = True
