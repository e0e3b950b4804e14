"""The connections of a node: which are open, and which of two to one peer is the one in use."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import trio

from fedd.api.errors import NotConnected
from fedd.api.types import PeerId
from fedd.net.connection import Connection

log = logging.getLogger("fedd.net")

LinkCallback = Callable[[Literal["up", "down"], Connection, str], None]

SIMULTANEOUS_S: Final = 20.0
"""Two connections made within this time (two dial deadlines) can be a simultaneous dial. A second
one made later means that the peer has lost the first, for example by a power cut: it replaces it."""

PROBE_S: Final = 3.0
"""How long a peer that dials us has to answer on the connection that we had dialled shortly before."""


class ConnectionTable:
    """Holds the connections. `start` runs an async function, with its arguments, beside them."""

    def __init__(
        self, me: PeerId, start: Callable[[Callable[..., Awaitable[None]], Connection, Connection], None]
    ) -> None:
        self.in_use: dict[PeerId, Connection] = {}
        self.open: set[Connection] = set()
        """Those given up and not yet closed as well."""
        self._me = me
        self._start = start
        self._callbacks: list[LinkCallback] = []
        self._news = trio.Event()

    def subscribe(self, callback: LinkCallback) -> None:
        """As `Swarm.subscribe`."""
        self._callbacks.append(callback)

    async def changed(self) -> None:
        """Wait until another connection is in use with some peer, or none any more."""
        await self._news.wait()

    def direct(self, peer_id: PeerId) -> Connection | None:
        """The connection in use to this peer, unless it is relayed."""
        connection = self.in_use.get(peer_id)
        return connection if connection is not None and connection.relayed_by is None else None

    def has(self, peer_id: PeerId) -> bool:
        """Whether any connection to this peer is open."""
        return any(connection.peer_id == peer_id for connection in self.open)

    def settle(self, new: Connection) -> None:
        """Decide which of two connections to a peer stays; both ends decide alike.

        A direct one stays before a relayed one. Of two of a kind, opened by each other at once, the one
        opened by the lower peer id; else the newest.
        """
        if new.closed:
            return
        old = self.in_use.get(new.peer_id)
        if old is None:
            self.in_use[new.peer_id] = new
            self._publish("up", new, "")
            return
        if self._stays(old, new):
            if new.direction == "out":  # the old came while we dialled, so both ends have both
                new.retire()
            else:
                self._start(self._settle_by_probe, old, new)
            return
        self.in_use[new.peer_id] = new
        old.retire()
        self._publish("up", new, "replaced")

    def _stays(self, old: Connection, new: Connection) -> bool:
        """Whether the old one is to stay, if it still works."""
        if (old.relayed_by is None) != (new.relayed_by is None):
            return old.relayed_by is None
        at_once = new.opened_at - old.opened_at < SIMULTANEOUS_S
        return new.direction != old.direction and at_once and self._dialled_by_lower(old)

    async def _settle_by_probe(self, old: Connection, new: Connection) -> None:
        """Did the peer dial `new` at the same time as we dialled `old`, or because it has lost `old`?

        A peer that has both gives `new` up, as we do then. One that comes back from a power cut does not
        answer on `old`, or its kernel says that it knows no such connection.
        """
        with contextlib.suppress(NotConnected), trio.move_on_after(PROBE_S):
            await old.measure_rtt()
            new.retire()
            return
        old.end("error: the peer came back on another connection")

    def _dialled_by_lower(self, connection: Connection) -> bool:
        return (connection.direction == "out") == (self._me < connection.peer_id)

    def ended(self, connection: Connection, reason: str) -> None:
        """A connection has ended: use another to its peer if there is one."""
        self.open.discard(connection)
        if self.in_use.get(connection.peer_id) is not connection:
            return
        for other in self.open:  # given up for this one, and still open: better than none
            if other.peer_id == connection.peer_id and not other.retired:
                self.in_use[connection.peer_id] = other
                self._publish("up", other, "replaced")
                return
        del self.in_use[connection.peer_id]
        self._publish("down", connection, reason)

    def _publish(self, kind: Literal["up", "down"], connection: Connection, reason: str) -> None:
        log.debug("link %s: %s %s", kind, connection, reason)
        self._news.set()
        self._news = trio.Event()
        for callback in self._callbacks:
            try:
                callback(kind, connection, reason)
            except Exception:  # a listener's mistake must not cost a link
                log.exception("a subscriber to link changes failed")
