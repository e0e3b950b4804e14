"""Looking for broadcasts that are missing: whose turn it is to be asked, and when to give up.

Marks are hearsay: they decide whom to ask, and nothing else. A gap is told only below what the origin itself
has signed, when every neighbour says that it has them no longer, or nobody could give them in time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Final

from fedd.api.types import PeerId
from fedd.core.broadcast_messages import MAX_RANGES, Iwant
from fedd.core.broadcast_origin import WINDOW, Origin
from fedd.core.dataclass import dataclass
from fedd.core.membership_types import Send

# What one path has lost mostly comes on another by itself.
PULL_AFTER_S: Final = 0.1
PATIENCE_S: Final = 0.1
# When nobody near has them: neighbours may be looking themselves.
PAUSE_S: Final = 0.5
MAX_DOUBLINGS: Final = 4
# A link that holds something up is silent after 3 s; those behind it have found another by then.
GIVE_UP_S: Final = 5.0
# Ranges of one origin that a neighbour has no longer: four answers.
MAX_GONE: Final = 4 * MAX_RANGES
# After so many rounds a mark that nobody can prove is not believed any more.
MAX_ROUNDS: Final = 3
# Origins of which a neighbour has more than this node: a liar costs 50 KiB.
MAX_CLAIMS: Final = 512


@dataclass(slots=True)
class _Quest:
    """For what `place` waits, since when; `upto` was the newest then, so what is missing below is as old."""

    place: tuple[int, int]
    upto: int
    since: float
    rounds: int = 0
    tried: set[PeerId] = field(default_factory=set)
    gone: dict[PeerId, tuple[tuple[int, int], ...]] = field(default_factory=dict)


class Search:
    """Which neighbour has more of which of `origins`, and what to ask of whom."""

    def __init__(self, origins: Mapping[PeerId, Origin], rtt_of: Callable[[PeerId], float | None]) -> None:
        self._origins = origins
        self._rtt_of = rtt_of
        self._claims: dict[PeerId, dict[PeerId, tuple[int, int]]] = {}
        self._quests: dict[PeerId, _Quest] = {}
        self._due: dict[PeerId, float] = {}

    def link_up(self, peer: PeerId) -> None:
        """`peer` can be asked."""
        self._claims[peer] = {}

    def link_down(self, peer: PeerId) -> None:
        """`peer` cannot be asked any more."""
        self._claims.pop(peer, None)

    def claim(self, peer: PeerId, origin: Origin, epoch: int, seq: int, now: float) -> None:
        """`peer` says that it has everything of `origin` up to there."""
        claims = self._claims[peer]
        if (epoch, seq) <= origin.mark:
            claims.pop(origin.name, None)
        elif origin.name in claims or len(claims) < MAX_CLAIMS:
            claims[origin.name] = max((epoch, seq), claims.get(origin.name, (0, 0)))
            self._want(origin, now)

    def look(self, origin: Origin, now: float) -> None:
        """`origin` may have come further, or may miss something now."""
        quest = self._quests.get(origin.name)
        if quest is not None and quest.place != origin.mark:
            gone = quest.gone if quest.place[0] == origin.epoch else {}
            self._quests[origin.name] = quest = _Quest(origin.mark, origin.top, now, gone=gone)
            self._due[origin.name] = now if self._gone_until(quest) else now + PULL_AFTER_S
        if origin.incomplete:
            self._want(origin, now)

    def gone(self, peer: PeerId, origin: Origin, ranges: tuple[tuple[int, int], ...], now: float) -> None:
        """`peer` has these no longer."""
        quest = self._quests.get(origin.name)
        if quest is None or peer not in self._claims:
            return
        quest.gone[peer] = (*ranges, *quest.gone.get(peer, ()))[:MAX_GONE]
        if self._gone_until(quest):
            self._due[origin.name] = now

    def forget(self, name: PeerId) -> None:
        """Nothing more of this origin is wanted."""
        self._due.pop(name, None)
        self._quests.pop(name, None)
        for claims in self._claims.values():
            claims.pop(name, None)

    def next_deadline(self) -> float | None:
        """When somebody is to be asked."""
        return min(self._due.values(), default=None)

    def step(self, now: float) -> tuple[list[Send], list[tuple[Origin, int]]]:
        """The questions that are due, and what to give up: origins, each with the last seq not to be had."""
        sends: list[Send] = []
        lost: list[tuple[Origin, int]] = []
        for name in [name for name, due in self._due.items() if now >= due]:
            self._step(self._origins[name], now, sends, lost)
        return sends, lost

    def _want(self, origin: Origin, now: float) -> None:
        if origin.name not in self._due:
            self._due[origin.name] = now + PULL_AFTER_S
            self._quests[origin.name] = _Quest(origin.mark, origin.top, now)

    def _gone_until(self, quest: _Quest) -> int:
        """Up to where all neighbours, of whom there are some, have no longer what comes next; 0: nowhere."""
        seq = quest.place[1] + 1
        ends = [
            max((last for first, last in quest.gone.get(peer, ()) if first <= seq <= last), default=0)
            for peer in self._claims
        ]
        return min(ends, default=0)

    def _step(self, origin: Origin, now: float, sends: list[Send], lost: list[tuple[Origin, int]]) -> None:
        epoch, ranges = self._missing(origin)
        if not ranges:
            self.forget(origin.name)
            return
        quest = self._quests[origin.name]
        if not quest.rounds and not quest.tried:
            quest.upto = origin.top
        first = ranges[0][0]
        gone_until = self._gone_until(quest)
        if epoch == origin.epoch and first == origin.next <= min(gone_until, origin.top):
            lost.append((origin, min(ranges[0][1], gone_until, origin.top)))
            return
        for peer, claims in self._claims.items():
            known = claims.get(origin.name, (0, 0))
            if peer not in quest.tried and known[0] == epoch and known[1] >= first:
                quest.tried.add(peer)
                asked = tuple((begin, min(end, known[1])) for begin, end in ranges if begin <= known[1])
                sends.append(Send(peer, Iwant(origin.name, epoch, asked)))
                patience_s = max(2 * (self._rtt_of(peer) or 0.0), PATIENCE_S)
                self._due[origin.name] = now + patience_s * 2 ** min(quest.rounds, MAX_DOUBLINGS)
                return
        quest.tried.clear()
        quest.rounds += 1
        pause_s = PAUSE_S * 2 ** min(quest.rounds - 1, MAX_DOUBLINGS)
        if epoch != origin.epoch or first > origin.top:
            if quest.rounds >= MAX_ROUNDS:
                self.forget(origin.name)
                return
        elif first == origin.next:
            if now >= quest.since + GIVE_UP_S:
                lost.append((origin, self._lost_until(origin, ranges, max(quest.upto, first))))
                return
            pause_s = min(pause_s, quest.since + GIVE_UP_S - now)
        self._due[origin.name] = now + pause_s

    def _lost_until(self, origin: Origin, ranges: list[tuple[int, int]], upto: int) -> int:
        """The last of `ranges` to give up now, and not what is being fetched."""
        fetched = min((seq for seq, held in origin.pending.items() if held.payload is None), default=upto + 1)
        last = max(min(end, upto) for begin, end in ranges if begin <= upto)
        return min(last, fetched - 1)

    def _missing(self, origin: Origin) -> tuple[int, list[tuple[int, int]]]:
        """What is wanted: of the present epoch first, then of one that neighbours speak of."""
        claims = [claims[origin.name] for claims in self._claims.values() if origin.name in claims]
        goal = max([origin.top, *(seq for epoch, seq in claims if epoch == origin.epoch)])
        ranges = origin.missing(goal)
        newer = max((claim for claim in claims if claim[0] > origin.epoch), default=None)
        if ranges or newer is None:
            return origin.epoch, ranges
        return newer[0], [(max(1, newer[1] - WINDOW + 1), newer[1])]
