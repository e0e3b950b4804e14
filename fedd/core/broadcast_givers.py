"""Who passes a small broadcast on to whom: what each can tell from the records that all have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import Final
from zlib import crc32

from fedd.api.types import PeerId

# Of those who could give a member its copy so many do: one would do; the second makes up for a link that
# breaks or a member that stalls, and the marks for both.
GIVERS: Final = 2
# Whose neighbours are looked at for one broadcast, at most: some 3 us each. It is enough for all of a
# federation of fifty, and for the first two steps from an origin in any.
MAX_LOOKS: Final = 50
# What was found for so many pairs of origin and source is remembered: of a federation of fifty nearly all.
MAX_REMEMBERED: Final = 512

_NOBODY: Final[frozenset[PeerId]] = frozenset()


class Givers:
    """Whose part it is to give whom a broadcast, so that few copies meet and nobody is left out.

    The origin gives it to its neighbours. Whoever is further away has it from GIVERS of its neighbours that
    are a step nearer; where there is one only, also from one that is as far. Beyond MAX_LOOKS all give it who
    are not served by the same neighbour, of those who are GIVERS. `neighbours_of(peer)` are the members with
    which that member has links, by both their records, and `version()` is equal as long as all of them are
    the same; by default it never is, and nothing is remembered. Where they have changed a moment ago two may
    leave a third to each other; what does not come, for this or because of a liar, the marks bring.
    """

    def __init__(
        self,
        me: PeerId,
        neighbours_of: Callable[[PeerId], AbstractSet[PeerId]],
        version: Callable[[], object] = object,
    ) -> None:
        self._me = me
        self._neighbours_of = neighbours_of
        self._version = version
        self._remembered: dict[tuple[PeerId, ...], list[PeerId]] = {}
        self._remembered_of: object = None

    def served_by(self, source: PeerId | None) -> AbstractSet[PeerId]:
        """To whom `source` gives all it has, or sees to it that others do."""
        return self._neighbours_of(source) if source is not None else _NOBODY

    def mine(self, links: Collection[PeerId], origin: PeerId, source: PeerId | None) -> Sequence[PeerId]:
        """To whom of `links` this node gives what `origin` sent and `source` gave it (None: its own)."""
        if source is None:
            return list(links)
        version = self._version()
        if version != self._remembered_of or len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
            self._remembered_of = version
        question = (origin, source, *links)
        mine = self._remembered.get(question)
        if mine is None:
            mine = self._remembered[question] = self._found(links, origin, source)
        return mine

    def _found(self, links: Collection[PeerId], origin: PeerId, source: PeerId) -> list[PeerId]:
        seen: dict[PeerId, AbstractSet[PeerId]] = {}
        steps = self._steps(origin, seen)
        served = seen.get(source) or self._neighbours_of(source)
        return [
            peer
            for peer in links
            if peer not in (source, origin)
            and self._falls_to_me(peer, seen.get(peer) or self._neighbours_of(peer), steps, served)
        ]

    def _falls_to_me(
        self,
        peer: PeerId,
        theirs: AbstractSet[PeerId],
        steps: dict[PeerId, int],
        served: AbstractSet[PeerId],
    ) -> bool:
        """Whether this node is to give it to `peer`, whose neighbours are `theirs`."""
        place = steps.get(peer)
        if place is None:
            return peer not in served and self._is_among(GIVERS, peer, served & theirs)
        if place == 1:
            return False  # the origin does
        near = {other for other in theirs if steps.get(other) == place - 1}
        if self._me in near:
            return self._is_among(GIVERS, peer, near)
        if len(near) >= GIVERS or steps.get(self._me) != place:
            return False
        beside = {other for other in theirs if steps.get(other) == place}
        return self._is_among(GIVERS - len(near), peer, beside)

    def _steps(self, origin: PeerId, seen: dict[PeerId, AbstractSet[PeerId]]) -> dict[PeerId, int]:
        """How many steps all are away from `origin`, as far as MAX_LOOKS go; whose neighbours: `seen`."""
        steps = {origin: 0}
        edge = [origin]
        place = 0
        while edge and len(seen) + len(edge) <= MAX_LOOKS:
            place += 1
            beyond: dict[PeerId, int] = {}
            for peer in edge:
                seen[peer] = theirs = self._neighbours_of(peer)
                for other in theirs:
                    if other not in steps:
                        beyond[other] = place
            steps |= beyond
            edge = list(beyond)
        return steps

    def _is_among(self, most: int, peer: PeerId, givers: AbstractSet[PeerId]) -> bool:
        """Whether fewer than `most` of `givers` are preferred to this node: each pair prefers another."""

        def rank(giver: PeerId) -> int:
            return crc32(f"{giver} {peer}".encode())

        mine = rank(self._me)
        return sum(rank(giver) < mine for giver in givers) < most
