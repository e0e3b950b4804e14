"""Who may stay connected when there are more clients than seats. Times are passed in, in seconds."""

from __future__ import annotations

import trio

from fedd.net.bounds import Bound

IDLE, STREAMING, BUSY = range(3)
"""What a connection does: wait for a request, follow a stream, have a request worked on."""


class Seat:
    """A connection's place; cancelling `scope` ends it. `last_heard`: the last byte read or item written."""

    def __init__(self, owner: bool, now: float) -> None:
        self.owner = owner
        self.last_heard = now
        self.state = IDLE
        self.scope = trio.CancelScope()


class Seats:
    """At most `total` seats, of which `reserved` are for the owner alone.

    When none is free, the idle connection that has been silent longest gives its seat up, or if none is
    idle the stream that has stalled longest; those with a request being worked on never do.
    """

    def __init__(self, total: int, reserved: int) -> None:
        self._total = total
        self._open = total - reserved
        self._seats: set[Seat] = set()
        self._crowded = 0

    def __len__(self) -> int:
        return len(self._seats)

    def bounds(self) -> list[Bound]:
        """How many clients are connected, and how many may be; beyond it the idle have to go."""
        help = "connections to the control socket"
        return [Bound("control_connections", len(self._seats), self._total, self._crowded, help)]

    def take(self, owner: bool, now: float) -> Seat | None:
        """A seat for a new connection, None when all that it could have are busy."""
        others = [seat for seat in self._seats if not seat.owner]
        if not owner and len(others) >= self._open:
            rivals = others
        elif len(self._seats) >= self._total:
            rivals = list(self._seats) if owner else others
        else:
            rivals = None
        if rivals is not None:
            self._crowded += 1
            evictable = [seat for seat in rivals if seat.state != BUSY]
            if not evictable:
                return None
            victim = min(evictable, key=lambda seat: (seat.state, seat.last_heard))
            victim.scope.cancel()
            self._seats.discard(victim)
        seat = Seat(owner, now)
        self._seats.add(seat)
        return seat

    def give_back(self, seat: Seat) -> None:
        """The connection ended. Does nothing when it had been evicted."""
        self._seats.discard(seat)
