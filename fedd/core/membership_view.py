"""What one node's membership holds, and what can be read from it at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from fedd.api.types import PeerId
from fedd.core.exchange import Exchange
from fedd.core.heard_links import HeardLinks
from fedd.core.membership_types import PresenceTiming
from fedd.core.overlay import Dice, Overlay
from fedd.core.own_record import OwnRecord
from fedd.core.reachability import TwoSidedEdges
from fedd.core.records import Record, Row
from fedd.core.verdicts import State, Verdicts


class MembershipView:
    """The parts of membership and the questions that can be asked of them; nothing here changes anything."""

    # Here and in the parts: every message looks at them, and in its place an attribute is found with fewer
    # fetches from memory.
    __slots__ = (
        "_ended",
        "_exchange",
        "_expelled",
        "_links",
        "_overlay",
        "_own",
        "_remembered",
        "_rng",
        "_timing",
        "_verdicts",
        "me",
    )

    def __init__(
        self,
        mine: Record,
        *,
        seal: Callable[[Record], Record],
        open_row: Callable[[Row], Record],
        rng: Dice,
        timing: PresenceTiming,
        known: Iterable[Record],
    ) -> None:
        self.me = mine.id
        self._timing = timing
        self._rng = rng
        self._own = OwnRecord(mine, seal, timing)
        self._links = HeardLinks(timing.link_silent_s, timing.link_close_s)
        self._exchange = Exchange(self.me, open_row, timing)
        self._overlay = Overlay(self.me, bool(mine.addresses), rng)
        self._verdicts = Verdicts(
            self.me,
            confirm_s=timing.confirm_s,
            confirm_closed_s=timing.confirm_closed_s,
            isolated_hold_s=timing.isolated_hold_s,
        )
        # Not in the database: what they said of their edges in earlier days must make nobody alive today.
        self._remembered = {record.id: record for record in known if record.id != self.me}
        # What the expelled last said of themselves: to show whom the verdict is about, for nothing else.
        self._expelled: dict[PeerId, Record] = {}
        self._ended = False

    @property
    def records(self) -> Mapping[PeerId, Record]:
        """Everybody's newest record, this node's included."""
        return self._exchange.database.records

    @property
    def remembered(self) -> Mapping[PeerId, Record]:
        """Records of earlier days, of those who have not been heard of in this life."""
        return self._remembered

    def record_of(self, peer: PeerId) -> Record | None:
        """The newest that `peer` said of itself, be it in earlier days or before it was expelled."""
        return self.records.get(peer) or self._remembered.get(peer) or self._expelled.get(peer)

    @property
    def epoch(self) -> int:
        """This node's present epoch."""
        return self._own.epoch

    @property
    def links(self) -> list[PeerId]:
        """Peers with which a link stands, heard or not."""
        return sorted(self._links)

    @property
    def edges(self) -> TwoSidedEdges:
        """The graph of members: edges that both ends list."""
        return self._exchange.database.edges

    @property
    def edges_version(self) -> object:
        """Equal as long as `edges` are the same."""
        return self._exchange.database.edges_version

    @property
    def digest(self) -> bytes:
        """Hash of all that is held: two nodes with equal digests hold the same."""
        return self._exchange.database.digest

    @property
    def refused_records(self) -> int:
        """How many records of new owners found no room."""
        return self._exchange.database.refused

    @property
    def rows_refused(self) -> int:
        """How many records did not verify."""
        return self._exchange.rows_refused

    def state_of(self, peer: PeerId) -> State | None:
        """The verdict on `peer`; this node itself is alive until it has left."""
        if peer == self.me:
            return "left" if self._ended else "alive"
        return self._verdicts.state_of(peer)

    def since(self, peer: PeerId) -> tuple[float, str]:
        """Since when (seconds, monotonic) `peer` is in its state, and why."""
        verdict = self._verdicts.verdicts[peer]
        return verdict.since, verdict.reason

    def members(self) -> list[PeerId]:
        """Everybody with a state but this node, sorted."""
        return sorted(peer for peer, verdict in self._verdicts.verdicts.items() if verdict.announced)

    def link_of(self, peer: PeerId) -> tuple[float, float | None] | None:
        """(when last heard, round trip in seconds or None) of the live link with `peer`, if there is one."""
        link = self._links.get(peer)
        return (link.heard, link.rtt_s) if link is not None and link.up else None

    def addresses_of(self, peer: PeerId) -> tuple[str, ...]:
        """Where `peer` can be dialled."""
        return self._overlay.addresses(peer, self.records)

    def is_pinned(self, peer: PeerId) -> bool:
        """Whether this node needs its link with `peer`."""
        return peer in self._overlay.pins
