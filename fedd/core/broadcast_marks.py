"""Telling neighbours how far each origin's broadcasts have come here, and where a newcomer begins."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Final

from fedd.api.types import PeerId
from fedd.core.broadcast_answers import marks_of
from fedd.core.broadcast_messages import Marks, split_marks
from fedd.core.broadcast_table import OriginTable
from fedd.core.membership_types import Send
from fedd.core.overlay import Dice
from fedd.core.records import MAX_COUNTER

# What changed is told to the neighbours, so that the loss of the last one shows too: to some of them every
# second, to the others with what has changed by then. Who has nine hears of what it misses from one of them
# within a second all but 3 times in 100, for a third of what it would cost if each told all.
MARKS_S: Final = 1.0
MIN_TOLD: Final = 3
TOLD_SHARE: Final = 1 / 3
# A few marks to one neighbour now and then make up for what went wrong otherwise; 3 KiB at the most.
DIGEST_ORIGINS: Final = 64
# After this long in the federation a node misses nothing by having come late.
NEWCOMER_S: Final = 60.0
AGE_SLACK_S: Final = 0.5


class MarkTeller:
    """When to tell which marks to whom.

    A newcomer begins at the marks of the first neighbour that has been in the federation longer, and takes
    over its age: among nodes with one history nothing is skipped without a gap.
    """

    def __init__(self, table: OriginTable, now: float) -> None:
        self._table = table
        self._changed: set[PeerId] = set()
        # Of each neighbour, what has changed since it was told; and whose turn it is, the last first.
        self._untold: dict[PeerId, set[PeerId]] = {}
        self._turns: list[PeerId] = []
        self._behind: set[PeerId] = set()
        self._entered = self._since = now
        self._elder: PeerId | None = None
        self.due: float | None = None

    def changed(self, name: PeerId, now: float) -> None:
        """The mark of that origin has moved."""
        self._changed.add(name)
        self.due = now + MARKS_S if self.due is None else self.due

    def behind(self, peer: PeerId, now: float) -> None:
        """Something for `peer` was thrown away."""
        self._behind.add(peer)
        self.due = now + MARKS_S if self.due is None else self.due

    def greet(self, peer: PeerId, now: float) -> list[Send]:
        """Everything, as the first thing that is said on a link."""
        if peer == self._elder:
            self._elder = None
        age_ms = min(MAX_COUNTER, int((now - self._since) * 1000))
        return [Send(peer, part) for part in split_marks(True, age_ms, self._table.marks())]

    def is_elder(self, peer: PeerId, marks: Marks, now: float) -> bool:
        """Whether to begin where `peer` is: it was here before this newcomer and whomever that began with."""
        if not marks.greeting:
            return False
        age_s = marks.age_ms / 1000
        if now < self._entered + NEWCOMER_S and age_s > now - self._since + AGE_SLACK_S:
            self._elder = peer
            self._since = now - age_s
        return peer == self._elder

    def tell(self, links: Mapping[PeerId, object], rng: Dice, now: float) -> list[Send]:
        """What is due: what has changed, to some; everything, to those for whom something was thrown away."""
        if self.due is None or now < self.due:
            return []
        self._untold = {peer: self._untold.get(peer, set()) | self._changed for peer in links}
        self._changed.clear()
        by_name = self._table.by_name
        sends = []
        for peer in self._next_told(rng):
            changed = self._untold.pop(peer)
            if peer in self._behind:
                entries = self._table.marks()
            else:
                entries = marks_of(by_name[name] for name in sorted(changed) if name in by_name)
            if entries:
                sends += [Send(peer, part) for part in split_marks(False, 0, entries)]
        self._behind.clear()
        self.due = now + MARKS_S if any(self._untold.values()) else None
        return sends

    def _next_told(self, rng: Dice) -> list[PeerId]:
        """Those who are told now: who lacks something, and some of the others in turn.

        Each node has an order of its own, and a new one each time round, so that nobody is everybody's last.
        """
        told = [peer for peer in self._untold if peer in self._behind]
        room = max(MIN_TOLD, ceil(len(self._untold) * TOLD_SHARE))
        for _ in range(2):
            while self._turns and room:
                peer = self._turns.pop()
                if self._untold.get(peer) and peer not in told:
                    told.append(peer)
                    room -= 1
            if not self._turns:
                others = sorted(self._untold)
                self._turns = rng.sample(others, len(others))
        return told

    def digest(self, links: Mapping[PeerId, object], rng: Dice) -> list[Send]:
        """Some marks for one neighbour."""
        entries = self._table.marks()
        if not entries or not links:
            return []
        some = rng.sample(entries, min(DIGEST_ORIGINS, len(entries)))
        return [Send(rng.choice(sorted(links)), Marks(False, 0, tuple(some)))]
