"""This node's own record: when to publish its next version, and what to do about a newer one elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from fedd.api.types import PeerId
from fedd.core.deadlines import NEVER
from fedd.core.membership_types import PresenceTiming
from fedd.core.records import MAX_COUNTER, MAX_NEIGHBOURS, LossReason, Record

# More epoch jumps than this in a minute, and two machines hold one key.
JUMPS, JUMPS_WITHIN_S = 3, 60.0
# The cost of a storm of additions grows with the members who hear of each; below this many it is no storm.
STORM_MEMBERS = 16
# Beyond so many, a newcomer's links are told together rather than one by one.
CROWD_MEMBERS = 50
# Between versions of which the later says no more than that links were shed.
TRIM_GAP_S = 0.5
# A link between members that are connected without it is news for nobody's verdict: links that come within so
# long are told together, in a crowd within more. Shorter than any suspicion, in which it would be missed.
SPARE_EDGE_S, SPARE_EDGE_MAX_S = 0.5, 1.0
# Whoever said that it gives the link up tells so in its own record, by then.
TOLD_BY_PEER_S = 2.0


class OwnRecord:
    """Versions of one's own record, strictly rising and paced: losses at once, new links in growing steps."""

    __slots__ = (
        "_changed",
        "_hold_s",
        "_jumps",
        "_mine",
        "_pressing",
        "_put_off",
        "_seal",
        "_spare_due",
        "_timing",
        "_told_by",
        "due",
        "published_at",
    )

    def __init__(self, mine: Record, seal: Callable[[Record], Record], timing: PresenceTiming) -> None:
        self._mine = replace(mine, seq=0, neighbours=frozenset(), lost={}, left=False)
        self._seal = seal
        self._timing = timing
        self._hold_s = timing.addition_min_s
        self._jumps: list[float] = []
        # Something but the edges has changed since the last version.
        self._changed = False
        # Others' verdicts or databases wait for the next version.
        self._pressing = False
        # What there is to tell may wait, as things were when it was due.
        self._put_off = False
        # When new edges are told at the latest, and when a peer will have told of the end of another.
        self._spare_due = NEVER
        self._told_by = NEVER
        self.published_at = float("-inf")
        self.due = NEVER

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self._mine.epoch

    def renew(self, chain: bytes) -> None:
        """The next version carries another certificate chain."""
        self._mine = replace(self._mine, chain=chain)

    def lost_edge(self, reason: LossReason, now: float) -> None:
        """An edge is to be withdrawn: soon, others' verdicts wait for it.

        After one silent link others often follow within a heartbeat: these are gathered for a while.
        """
        gap_s = self._timing.withdrawal_gap_s if reason == "closed" else self._timing.silence_gap_s
        self._press(max(now, self.published_at + gap_s))

    def new_edge(self, members: int, now: float) -> None:
        """An edge is to be added: after the present pause, which is longer in a larger federation.

        Whether it is worth a version is decided then, by `may_wait`.
        """
        if now - self.published_at > self._timing.addition_quiet_s:
            self._hold_s = self._timing.addition_min_s
        # Whoever refuses the link does so in the same breath.
        crowd_s = min(self._timing.addition_min_s * members / CROWD_MEMBERS, self._timing.addition_max_s)
        pause_s = max(self._hold_s, crowd_s)
        if self._spare_due == NEVER:
            self._spare_due = now + min(max(SPARE_EDGE_S, crowd_s), SPARE_EDGE_MAX_S)
        self._due_by(max(now + self._timing.flood_s, self.published_at + pause_s))

    def gave_up_edge(self, now: float) -> None:
        """An edge is to be withdrawn whose end is no news of anybody: with what else is said soon."""
        self._press(max(now, self.published_at + TRIM_GAP_S))

    def told_of_end(self, now: float) -> None:
        """The peer gave an edge up and withdraws it: one end is enough, unless it does not."""
        self._told_by = now + TOLD_BY_PEER_S
        self._due_by(self._told_by)

    def hurry(self, now: float) -> None:
        """What may wait is to be told now: somebody's verdict has come to depend on it."""
        self._press(max(now, self.published_at + self._timing.withdrawal_gap_s))

    def look_again(self, now: float) -> None:
        """Others' records have changed: what was put off may be worth a version, after the present pause."""
        if self._put_off:
            self._due_by(max(now, self.published_at + self._hold_s))

    def says(self, neighbours: Iterable[PeerId], lost: Mapping[PeerId, LossReason]) -> bool:
        """Whether the last version says just this, so that there is nothing to publish after all."""
        said = self._mine
        return not self._changed and said.neighbours == frozenset(neighbours) and said.lost == lost

    def lists_any(self, neighbours: Iterable[PeerId]) -> bool:
        """Whether the last version tells of any of these."""
        return not self._mine.neighbours.isdisjoint(neighbours)

    def may_wait(
        self,
        neighbours: Iterable[PeerId],
        is_joined: Callable[[PeerId], bool],
        listed_by: AbstractSet[PeerId],
        now: float,
    ) -> bool:
        """Whether the version that is due would tell nobody anything yet; it is put off then.

        That is so while only links have come with peers that `is_joined` says are connected with this node
        by others, and only links have gone that their other ends, who are not among `listed_by`, have
        withdrawn already.
        """
        if self._pressing or self._changed:
            return False
        said, heard = self._mine.neighbours, frozenset(neighbours)
        due = self._spare_due
        if self._told_by < due and (said - heard) & listed_by:
            due = self._told_by
        if due != NEVER and (now >= due or not all(map(is_joined, heard - said))):
            return False
        self.due = due
        self._put_off = True
        return True

    def set_addresses(self, addresses: tuple[str, ...], now: float) -> bool:
        """This node can be dialled elsewhere; whether that is news, which is then due like a new edge."""
        if addresses == self._mine.addresses:
            return False
        self._mine = replace(self._mine, addresses=addresses)
        self._changed = True
        self.new_edge(0, now)
        return True

    def settle(self) -> None:
        """Nothing is to be told after all."""
        self.due = self._spare_due = self._told_by = NEVER
        self._pressing = self._put_off = False

    def publish(
        self,
        neighbours: Iterable[PeerId],
        lost: Mapping[PeerId, LossReason],
        members: int,
        now: float,
        *,
        left: bool = False,
    ) -> Record:
        """The next version, signed; `members` is the size of the federation."""
        longest_s = min(
            self._timing.addition_max_s, self._timing.addition_calm_s * max(1.0, members / STORM_MEMBERS)
        )
        self._hold_s = min(self._hold_s * 2, longest_s)
        # The first version lists nobody: the first link need not wait for it.
        self.published_at = now if self._mine.seq or left else now - 2 * self._timing.addition_quiet_s
        self.settle()
        self._changed = False
        self._mine = replace(
            self._mine,
            seq=self._mine.seq + 1,
            neighbours=frozenset(sorted(neighbours)[:MAX_NEIGHBOURS]),
            lost=dict(lost),
            left=left,
        )
        return self._seal(self._mine)

    def outbid(self, record: Record, now: float) -> bool | None:
        """Somebody holds a newer record of mine: begin the epoch above it.

        False when that happened too often of late, which means that another machine has this key; None when
        the epoch cannot be raised.
        """
        self._jumps = [at for at in self._jumps if now - at < JUMPS_WITHIN_S]
        if record.epoch >= MAX_COUNTER:
            return None
        if len(self._jumps) >= JUMPS:
            return False
        self._jumps.append(now)
        self._mine = replace(self._mine, epoch=record.epoch + 1, seq=0)
        return True

    def _press(self, at: float) -> None:
        self._pressing = True
        self._due_by(at)

    def _due_by(self, at: float) -> None:
        self.due = min(self.due, at)
