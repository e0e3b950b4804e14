"""What presence knows, to be asked at any time: nothing here changes anything or waits."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from fedd.api.types import PeerId
from fedd.core.database import MAX_RECORDS
from fedd.core.membership import Membership
from fedd.core.verdicts import State
from fedd.net.bounds import Bound
from fedd.net.credentials import Credentials
from fedd.net.federation import FederationIdentity
from fedd.net.link_table import LinkTable
from fedd.net.member_view import MemberView, views_of, ways_to
from fedd.net.own_addresses import tellable
from fedd.net.pins import Pins
from fedd.net.swarm import Swarm


class PresenceView:
    """The questions that `Presence` answers; it sets the attributes."""

    credentials: Credentials
    """What makes others members."""

    _core: Membership | None
    _swarm: Swarm
    _table: LinkTable
    _pins: Pins
    _clock: Callable[[], float]
    _name: str
    _announce: tuple[str, ...]
    _entered_at: float

    @property
    def federation(self) -> FederationIdentity | None:
        """The federation this node is in."""
        return self.credentials.federation

    @property
    def name(self) -> str:
        """What this node calls itself."""
        return self._name

    @property
    def own_addresses(self) -> tuple[str, ...]:
        """Where others can dial this node: what it announces, else where it listens."""
        return self._announce or tellable(self._swarm.addresses)

    def members(self) -> list[MemberView]:
        """Everybody known, this node first; empty without a federation."""
        core = self._core
        if core is None:
            return []
        return views_of(core, self._entered_at, self._heard, self._is_relayed, self._clock())

    def state_of(self, peer: PeerId) -> State | None:
        """What this node thinks of `peer`, None when it is no known member."""
        return self._core.state_of(peer) if self._core is not None else None

    def is_member(self, peer: PeerId) -> bool:
        """Whether `peer` has proven to belong to this federation and has not left."""
        if self._core is None:
            return False
        record = self._core.records.get(peer)
        return not record.left if record is not None else peer in self._table.links

    def name_of(self, peer: PeerId) -> str:
        """The name `peer` gave itself, empty when unknown."""
        record = self._core.record_of(peer) if self._core is not None else None
        return record.name if record is not None else ""

    @property
    def has_links(self) -> bool:
        """Whether there is a live link with anybody."""
        return self._core is not None and any(map(self._core.link_of, self._core.links))

    def is_linked(self, peer: PeerId) -> bool:
        """Whether there is a live link with `peer`."""
        return self._core is not None and self._core.link_of(peer) is not None

    def addresses_of(self, peer: PeerId) -> tuple[str, ...]:
        """Where `peer` says that it can be dialled, or somebody else says it of it."""
        return self._core.addresses_of(peer) if self._core is not None else ()

    def ways_to(self, peer: PeerId) -> list[PeerId]:
        """Members that are linked with `peer` and with this node, or can be dialled; the best first."""
        return ways_to(self._core, peer) if self._core is not None else []

    def bounds(self) -> list[Bound]:
        """What is known and held here, and the most of it."""
        core = self._core
        known, refused = (len(core.records), core.refused_records) if core is not None else (0, 0)
        return [
            Bound("members", known, MAX_RECORDS, refused, "records of members, those dead or left included"),
            self._pins.bound(),
            *self.credentials.bounds(),
        ]

    @property
    def epoch(self) -> int:
        """The epoch of this node's records, 0 without a federation."""
        return self._core.epoch if self._core is not None else 0

    def neighbours_of(self, peer: PeerId) -> AbstractSet[PeerId]:
        """The members with which `peer` has links, by its own record and theirs."""
        return self._core.edges.adjacent(peer) if self._core is not None else frozenset()

    def links_version(self) -> object:
        """Equal as long as `neighbours_of` is the same, for all."""
        return self._core.edges_version if self._core is not None else None

    def rtt_of(self, peer: PeerId) -> float | None:
        """The round trip of the link with `peer` in seconds, None when there is none or it is not known."""
        link = self._core.link_of(peer) if self._core is not None else None
        return link[1] if link is not None else None

    def _heard(self, peer: PeerId, at: float) -> float:
        connection = self._swarm.direct(peer)
        return max(at, connection.last_received) if connection is not None else at

    def _is_relayed(self, peer: PeerId) -> bool:
        connection = self._swarm.connections.get(peer)
        return connection is not None and connection.relayed_by is not None
