"""Which links a member keeps: a random overlay of bounded degree, healed and pinned where asked.

Up to six members everybody is linked with everybody; above that each keeps at least five links, which makes a
random graph that stays connected under the loss of any few members (Law and Siu 2003; Bollobas 1985).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, MutableSequence, Sequence
from dataclasses import field
from typing import Protocol, TypeVar

from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.records import Record
from fedd.core.verdicts import State

MIN_DEGREE = 5
# So many links are looked for at once. The others one by one: whoever comes with a crowd is dialled by others
# meanwhile, and would otherwise end with twice the links, each with its handshake and its heartbeats.
HASTY_DEGREE, CALM_DIAL_S = 3, 0.15
# Shedding begins above these, and links are refused at the caps; who can be dialled carries more.
SHED_ABOVE, SHED_ABOVE_DIALABLE = 8, 16
CAP, CAP_DIALABLE = 12, 24
SHED_EVERY_S = 1.0
# Two members that learn of each other at once would both dial: the higher id waits this long for the lower.
YIELD_S = 0.3
RETRY_S, RETRY_MAX_S = 1.0, 10.0
# A pinned link is needed by a run that waits for it.
PINNED_RETRY_S, PINNED_RETRY_MAX_S = 0.2, 3.0
# After so many dials of a pinned peer in vain (about 30 s) it is more likely behind a NAT than restarting:
# it is reached through a relay.
PINNED_ATTEMPTS, PINNED_PATIENT_S = 12, 30.0
# A peer of whom nothing but an address is known is left to healing after so many dials.
HINT_ATTEMPTS = 3
# A peer that shed the link has too many: leave it alone for a while.
AFTER_TRIM_S = 10.0
# Of more members than these, so many are drawn at random and looked at; whoever finds too few asks again.
CANDIDATES, SEARCH_AGAIN_S = 64, 0.5
# More hints are dropped, more pins refused: whoever has so many links knows its members by their records.
MAX_HINTS = 64
MAX_PINS = 64


_FOUND: tuple[State | None, ...] = ("alive", "left")

T = TypeVar("T")


class Dice(Protocol):
    """The source of chance, handed in: what `random.Random` offers and membership needs."""

    def uniform(self, a: float, b: float) -> float:
        """A number from `a` to `b`."""

    def choice(self, seq: Sequence[T]) -> T:
        """One item of a sequence that is not empty."""

    def sample(self, population: Sequence[T], k: int) -> list[T]:
        """`k` different items."""

    def shuffle(self, x: MutableSequence[T]) -> None:
        """Reorder in place."""


@dataclass(slots=True)
class _Attempt:
    not_before: float = 0.0
    failures: int = 0


@dataclass(slots=True)
class Overlay:
    """Decides whom to dial and whom to let go; the caller says what links there are."""

    me: PeerId
    dialable: bool
    rng: Dice
    hints: dict[PeerId, tuple[str, ...]] = field(default_factory=dict)
    pins: dict[PeerId, tuple[str, ...]] = field(default_factory=dict)
    dialing: set[PeerId] = field(default_factory=set)
    _attempts: dict[PeerId, _Attempt] = field(default_factory=dict)
    # Members with addresses, in any order, and where in that list each of them is.
    _dialable: list[PeerId] = field(default_factory=list)
    _place: dict[PeerId, int] = field(default_factory=dict)
    _shed_at: float = float("-inf")
    _calm_until: float = float("-inf")

    @property
    def cap(self) -> int:
        """At this many links, further ones are refused unless pinned."""
        return CAP_DIALABLE if self.dialable else CAP

    def content_with(self, heard: int) -> bool:
        """Whether so many links are neither too few nor too many."""
        return MIN_DEGREE <= heard <= (SHED_ABOVE_DIALABLE if self.dialable else SHED_ABOVE)

    def hint(self, peer: PeerId, addresses: tuple[str, ...]) -> bool:
        """A peer worth dialling whose record is not known, or not known to be alive; whether that is news.

        Failures at other addresses say nothing about these.
        """
        if peer == self.me or self.hints.get(peer) == addresses:
            return False
        if peer not in self.hints and len(self.hints) >= MAX_HINTS:
            return False
        self.hints[peer] = addresses
        attempt = self._attempts.get(peer)
        if attempt is not None and attempt.failures:
            del self._attempts[peer]
        return True

    def recommend(self, peer: PeerId, addresses: tuple[str, ...], now: float) -> None:
        """Somebody to try instead of a peer that has links enough: no need to let it dial first."""
        self.hint(peer, addresses)
        attempt = self._attempts.get(peer)
        if attempt is not None and attempt.not_before <= now + YIELD_S:
            attempt.not_before = now

    def pin(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """Keep a link with `peer`; the caller sees to it that there are at most MAX_PINS."""
        self.pins[peer] = addresses
        self._attempts.pop(peer, None)

    def linked(self, peer: PeerId) -> None:
        """A link with `peer` stands."""
        self.dialing.discard(peer)
        self.hints.pop(peer, None)
        self._attempts.pop(peer, None)

    def learn(self, record: Record) -> None:
        """Note whether the member of this record can be dialled."""
        if not record.addresses:
            self._no_longer_dialable(record.id)
        elif record.id not in self._place and record.id != self.me:
            self._place[record.id] = len(self._dialable)
            self._dialable.append(record.id)

    def met(self, peer: PeerId, now: float) -> None:
        """`peer` has just become known: let the lower id of the two dial first."""
        if self.me > peer:
            self._attempt(peer).not_before = now + YIELD_S

    def trimmed(self, peer: PeerId, now: float) -> None:
        """`peer`, or this node, gave the link up because it has others enough."""
        self._attempt(peer).not_before = now + AFTER_TRIM_S

    def failed(self, peer: PeerId, now: float) -> None:
        """A dial to `peer` failed."""
        self.dialing.discard(peer)
        attempt = self._attempt(peer)
        first, most = (PINNED_RETRY_S, PINNED_RETRY_MAX_S) if peer in self.pins else (RETRY_S, RETRY_MAX_S)
        if peer in self.pins and attempt.failures >= PINNED_ATTEMPTS:
            first = most = PINNED_PATIENT_S
        attempt.not_before = now + min(first * 2**attempt.failures, most) * self.rng.uniform(0.75, 1.25)
        attempt.failures = min(attempt.failures + 1, 16)

    def forget(self, peer: PeerId) -> None:
        """The peer is no longer known."""
        self._attempts.pop(peer, None)
        self._no_longer_dialable(peer)

    def wanted(
        self,
        records: Mapping[PeerId, Record],
        opinion_on: Callable[[PeerId], State | None],
        links: Mapping[PeerId, bool],
        now: float,
    ) -> tuple[dict[PeerId, tuple[str, ...]], float | None]:
        """Whom to dial now, at which addresses, and when to ask again.

        `links` maps each linked peer to whether it is heard. Marks the chosen as being dialled.
        """
        waiting: list[float] = []
        chosen = {}
        for peer in self.pins:
            addresses = self.addresses(peer, records)
            if (
                peer not in links
                and opinion_on(peer) != "left"
                and addresses
                and self._ready(peer, now, waiting)
            ):
                chosen[peer] = addresses
        lonely = not any(links.values())
        # With all links silent at once half the federation may be out of reach, and a dial to it a long wait.
        least = 2 * MIN_DEGREE if lonely and links else MIN_DEGREE
        have = sum(links.values()) + len(self.dialing | chosen.keys())
        need = least - have
        calm = not (lonely and links) and have >= HASTY_DEGREE
        if calm and need > 0:
            need = 1 if now >= self._calm_until else 0
            if not need:
                waiting.append(self._calm_until)
        elif not (lonely and links):
            need = HASTY_DEGREE - have
        if need > 0:
            drawn = [peer for peer in self._drawn() if peer not in links and peer not in chosen]
            candidates = [
                peer
                for peer in drawn
                if self._wants(peer, records.get(peer), opinion_on(peer), lonely)
                and self._ready(peer, now, waiting)
            ]
            if lonely and not candidates:
                # Who has links enough may have lost some since.
                candidates = [
                    peer
                    for peer in drawn
                    if peer != self.me and opinion_on(peer) != "left" and self._ready(peer, now, waiting)
                ]
            self.rng.shuffle(candidates)
            # Whoever hears nobody must not lose its time with those who were dead before.
            candidates.sort(
                key=lambda peer: (
                    opinion_on(peer) == "dead",
                    len(records[peer].neighbours) // 4 if peer in records else 0,
                )
            )
            chosen.update({peer: self.addresses(peer, records) for peer in candidates[:need]})
            if len(candidates) < need and len(self._dialable) > CANDIDATES:
                waiting.append(now + SEARCH_AGAIN_S)
            if candidates:
                self._calm_until = now + CALM_DIAL_S * self.rng.uniform(0.75, 1.25)
                if have + len(candidates[:need]) < least:
                    waiting.append(self._calm_until)
        self.dialing.update(chosen)
        return chosen, min(waiting, default=None)

    def healing(
        self,
        records: Mapping[PeerId, Record],
        opinion_on: Callable[[PeerId], State | None],
        links: Iterable[PeerId],
    ) -> PeerId | None:
        """One who can be dialled and is not known to be alive: how partitions find together again."""
        linked = set(links) | self.dialing
        candidates = [
            peer
            for peer in dict.fromkeys((*self.hints, *self._dialable))
            # Most are alive, so this is asked first.
            if opinion_on(peer) not in _FOUND and peer not in linked and self.addresses(peer, records)
        ]
        return self.rng.choice(candidates) if candidates else None

    def others(
        self,
        records: Mapping[PeerId, Record],
        opinion_on: Callable[[PeerId], State | None],
        links: Container[PeerId],
        most: int,
    ) -> list[Record]:
        """Up to `most` members, chosen at random, that a peer could try instead of this node."""
        looked_at = self._dialable
        if len(looked_at) > 2 * most:
            looked_at = self.rng.sample(looked_at, 2 * most)
        drawn = [p for p in looked_at if p in records and (p in links or opinion_on(p) == "alive")]
        return [records[peer] for peer in self.rng.sample(drawn, min(most, len(drawn)))]

    def shed(
        self,
        degree: Callable[[PeerId], int],
        links: Mapping[PeerId, bool],
        needed: Iterable[PeerId],
        now: float,
    ) -> tuple[list[PeerId], float | None]:
        """Links to give up, if there are too many, and when to ask again; never one that is needed.

        All at once: each time that links are given up costs a version of the own record, which travels
        everywhere. `degree(peer)` is how many edges a member has. Silent links are no edges and count for
        nothing here: after a partition they would drive out those that were found instead.
        """
        surplus = sum(links.values()) - (SHED_ABOVE_DIALABLE if self.dialable else SHED_ABOVE)
        if surplus <= 0:
            return [], None
        if now < self._shed_at + SHED_EVERY_S:
            return [], self._shed_at + SHED_EVERY_S
        kept = set(needed) | self.pins.keys()
        degrees = {peer: degree(peer) for peer, heard in links.items() if heard and peer not in kept}
        spare = [peer for peer, edges in degrees.items() if edges > MIN_DEGREE]
        if not spare:
            # Asked again when a record changes, which is when this can change.
            return [], None
        self._shed_at = now
        chosen = sorted(spare, key=lambda peer: (degrees[peer], peer), reverse=True)[:surplus]
        for peer in chosen:
            self.trimmed(peer, now)
        return chosen, None

    def addresses(self, peer: PeerId, records: Mapping[PeerId, Record]) -> tuple[str, ...]:
        """Where `peer` can be dialled: its own record first, then what pins and hints say."""
        known = records[peer].addresses if peer in records else ()
        return tuple(dict.fromkeys((*known, *self.pins.get(peer, ()), *self.hints.get(peer, ()))))

    def _wants(self, peer: PeerId, record: Record | None, state: State | None, lonely: bool) -> bool:
        if peer == self.me or state == "left":
            return False
        if record is None:
            attempt = self._attempts.get(peer)
            return lonely or attempt is None or attempt.failures < HINT_ATTEMPTS
        return (
            (lonely or state == "alive") and bool(record.addresses) and len(record.neighbours) < CAP_DIALABLE
        )

    def _drawn(self) -> Iterable[PeerId]:
        """Who is looked at for a new link: everybody who may be dialled, or of many some."""
        if len(self._dialable) <= CANDIDATES:
            return dict.fromkeys((*self.hints, *self._dialable))
        return dict.fromkeys((*self.hints, *self.rng.sample(self._dialable, CANDIDATES)))

    def _no_longer_dialable(self, peer: PeerId) -> None:
        place = self._place.pop(peer, None)
        if place is None:
            return
        last = self._dialable.pop()
        if last != peer:
            self._dialable[place] = last
            self._place[last] = place

    def _attempt(self, peer: PeerId) -> _Attempt:
        return self._attempts.setdefault(peer, _Attempt())

    def _ready(self, peer: PeerId, now: float, waiting: list[float]) -> bool:
        if peer in self.dialing:
            return False
        attempt = self._attempts.get(peer)
        if attempt is None or attempt.not_before <= now:
            return True
        waiting.append(attempt.not_before)
        return False
