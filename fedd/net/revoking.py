"""Revocation over the presence links: lists are flooded and compared, and whom they name is cut off."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from fedd.api.types import PeerId
from fedd.core.certificates import Certificate
from fedd.core.membership import Membership
from fedd.core.membership_types import Action
from fedd.core.presence_messages import Message, Refuse, RevocationMarks, Revocations, Rows
from fedd.core.records import MAX_NEIGHBOURS
from fedd.core.revocation import Revoked
from fedd.net.credentials import Credentials
from fedd.net.doors import TokenBucket
from fedd.net.link_table import LinkTable
from fedd.net.presence_link import PresenceLink
from fedd.net.swarm import Swarm

logger = logging.getLogger("fedd.net.admission")

# The revoked are told why before the connection ends: an honest one reads a small frame in this time.
CUT_S: Final = 0.25
# Comparisons that one neighbour may ask for: one when a link begins, then one in ten seconds. Each may cost
# all the lists there are.
MARKS_BURST, MARKS_PER_S = 8, 0.5


class Revoking:
    """Hands lists on, and makes them count for the links and records of this node.

    `core` gives the present membership, None without a federation; `perform` does what it asks for.
    """

    def __init__(
        self,
        swarm: Swarm,
        credentials: Credentials,
        table: LinkTable,
        core: Callable[[], Membership | None],
        perform: Callable[[list[Action]], None],
        clock: Callable[[], float],
    ) -> None:
        self._swarm = swarm
        self._credentials = credentials
        self._table = table
        self._core = core
        self._perform = perform
        self._clock = clock
        self._marks: dict[PeerId, TokenBucket] = {}
        self.expelled: Callable[[Revoked], None] = lambda revoked: None
        """Called when this node itself turns out to be revoked."""

    def greet(self, peer: PeerId) -> None:
        """A link stands: tell `peer` which lists are held here, be it none, and it sends what is newer."""
        self._table.send(peer, RevocationMarks(self._credentials.marks))

    def compare(self, peer: PeerId) -> None:
        """Databases are compared, so are lists; not where there are none, which spares idle traffic."""
        if self._credentials.marks:
            self.greet(peer)

    def receive(self, peer: PeerId, message: Message) -> Message | None:
        """Deal with what is about revocation; what is left of `message` for membership, if anything."""
        match message:
            case Revocations(sealed):
                if self._credentials.take(sealed, peer):
                    self.spread(sealed, peer)
            case RevocationMarks(marks) if self._may_ask(peer):
                for sealed in self._credentials.revocations.missing(marks):
                    self._table.send(peer, Revocations(sealed))
            case Rows(rows):
                # Neighbours that have not heard of it yet are not to blame for what they hand on.
                kept = tuple(row for row in rows if not self._credentials.refuses(row.id))
                return message if len(kept) == len(rows) else Rows(kept)
            case Refuse(rows):
                return Refuse(tuple(row for row in rows if not self._credentials.refuses(row.id)))
            case RevocationMarks():
                logger.debug("%s compares revocation lists too often", peer)
            case _:
                return message
        return None

    def _may_ask(self, peer: PeerId) -> bool:
        if len(self._marks) > MAX_NEIGHBOURS:  # of those without a link nothing need be remembered
            self._marks = {peer: bucket for peer, bucket in self._marks.items() if peer in self._table.links}
        now = self._clock()
        return self._marks.setdefault(peer, TokenBucket(MARKS_BURST, MARKS_PER_S, now)).take(now)

    def publish(self, sealed: bytes) -> None:
        """This node's own list, just signed: it counts from now on, here and everywhere."""
        if self._credentials.take(sealed, None):
            self.spread(sealed)

    def certificates(self) -> dict[PeerId, Certificate]:
        """The certificates of everybody known that count, those of the dead included."""
        core = self._core()
        if core is None:
            return {}
        found = {}
        for record in (*core.remembered.values(), *core.records.values()):
            if self._credentials.holds(record.id, record.chain):
                certificate = self._credentials.check(record.id, record.chain)
                if certificate is not None:
                    found[record.id] = certificate
        return found

    def admins(self) -> set[PeerId]:
        """Who may invite, approve and revoke, as far as is known."""
        return {peer for peer, certificate in self.certificates().items() if certificate.is_admin}

    def told(self, peer: PeerId, sealed: bytes) -> None:
        """`peer` refused this node because of a list. Anybody can say so: only the list counts."""
        if self._credentials.why_revoked(self._swarm.peer_id, sealed) is not None:
            self.receive(peer, Revocations(sealed))

    def spread(self, sealed: bytes, source: PeerId | None = None) -> None:
        """A list that counts from now on: hand it on, to those that it names as well, and enforce it."""
        for peer in list(self._table.links):
            if peer != source:
                self._table.send(peer, Revocations(sealed))
        self.enforce()

    def enforce(self) -> None:
        """Cut off whoever is a member no longer; it may be this node."""
        core, federation = self._core(), self._credentials.federation
        if core is None or federation is None:
            return
        holds = self._credentials.holds
        known = (*core.records.values(), *core.remembered.values())
        gone = {record.id for record in known if record.id != core.me and not holds(record.id, record.chain)}
        gone |= {peer for peer, link in self._table.links.items() if not holds(peer, link.chain)}
        for peer in sorted(gone):
            self.cut(peer)
        self._perform(core.expel(sorted(gone), self._clock()))
        try:
            self._credentials.check(core.me, federation.chain)
        except Revoked as revoked:
            self.expelled(revoked)

    def cut(self, peer: PeerId) -> None:
        """End every connection with `peer`, once it could read why."""
        link = self._table.links.get(peer)
        self._table.retire(peer)
        self._table.start(self._cut, peer, link)

    async def _cut(self, peer: PeerId, link: PresenceLink | None) -> None:
        connections = [each for each in self._swarm.all_connections if each.peer_id == peer]
        with trio.move_on_after(CUT_S):
            if link is not None:
                await link.done.wait()
            for connection in connections:
                await connection.aclose()
        for connection in connections:
            connection.end("local")
