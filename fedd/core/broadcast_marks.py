"""Telling neighbours how far each origin's broadcasts have come here, and where a newcomer begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fedd.api.types import PeerId
from fedd.core.broadcast_answers import marks_of
from fedd.core.broadcast_messages import Marks, split_marks
from fedd.core.broadcast_table import OriginTable
from fedd.core.membership_types import Send
from fedd.core.overlay import Dice
from fedd.core.records import MAX_COUNTER

# What changed is told to all neighbours, so that the loss of the last one shows too.
MARKS_S: Final = 1.0
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

    def tell(self, links: Mapping[PeerId, object], now: float) -> list[Send]:
        """What is due: what has changed, to all; everything, to those for whom something was thrown away."""
        if self.due is None or now < self.due:
            return []
        self.due = None
        by_name = self._table.by_name
        news = marks_of(by_name[name] for name in sorted(self._changed) if name in by_name)
        self._changed.clear()
        sends = []
        for peer in links:
            entries = self._table.marks() if peer in self._behind else news
            if entries:
                sends += [Send(peer, part) for part in split_marks(False, 0, entries)]
        self._behind.clear()
        return sends

    def digest(self, links: Mapping[PeerId, object], rng: Dice) -> list[Send]:
        """Some marks for one neighbour."""
        entries = self._table.marks()
        if not entries or not links:
            return []
        some = rng.sample(entries, min(DIGEST_ORIGINS, len(entries)))
        return [Send(rng.choice(sorted(links)), Marks(False, 0, tuple(some)))]
