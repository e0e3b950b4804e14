"""This node's own record: when to publish its next version, and what to do about a newer one elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from fedd.api.types import PeerId
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


class OwnRecord:
    """Versions of one's own record, strictly rising and paced: losses at once, new links in growing steps."""

    def __init__(self, mine: Record, seal: Callable[[Record], Record], timing: PresenceTiming) -> None:
        self._mine = replace(mine, seq=0, neighbours=frozenset(), lost={}, left=False)
        self._seal = seal
        self._timing = timing
        self._hold_s = timing.addition_min_s
        self._jumps: list[float] = []
        # Something but the edges has changed since the last version.
        self._changed = False
        self.published_at = float("-inf")
        self.due: float | None = None

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self._mine.epoch

    def renew(self, chain: bytes) -> None:
        """The next version carries another certificate chain."""
        self._mine = replace(self._mine, chain=chain)

    def lost_edge(self, now: float) -> None:
        """An edge is to be withdrawn: soon, others' verdicts wait for it."""
        self._due_by(max(now, self.published_at + self._timing.withdrawal_gap_s))

    def new_edge(self, members: int, now: float) -> None:
        """An edge is to be added: after the present pause, which is longer in a larger federation."""
        if now - self.published_at > self._timing.addition_quiet_s:
            self._hold_s = self._timing.addition_min_s
        # Whoever refuses the link does so in the same breath.
        crowd_s = min(self._timing.addition_min_s * members / CROWD_MEMBERS, self._timing.addition_max_s)
        pause_s = max(self._hold_s, crowd_s)
        self._due_by(max(now + self._timing.flood_s, self.published_at + pause_s))

    def gave_up_edge(self, now: float) -> None:
        """An edge is to be withdrawn whose end is no news of anybody: with what else is said soon."""
        self._due_by(max(now, self.published_at + TRIM_GAP_S))

    def says(self, neighbours: Iterable[PeerId], lost: Mapping[PeerId, LossReason]) -> bool:
        """Whether the last version says just this, so that there is nothing to publish after all."""
        said = self._mine
        return not self._changed and said.neighbours == frozenset(neighbours) and said.lost == lost

    def set_addresses(self, addresses: tuple[str, ...], now: float) -> bool:
        """This node can be dialled elsewhere; whether that is news, which is then due like a new edge."""
        if addresses == self._mine.addresses:
            return False
        self._mine = replace(self._mine, addresses=addresses)
        self._changed = True
        self.new_edge(0, now)
        return True

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
        self.due = None
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

    def _due_by(self, at: float) -> None:
        self.due = at if self.due is None else min(self.due, at)
