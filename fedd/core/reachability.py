"""Who is reachable over edges that both ends list."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from fedd.api.types import PeerId

_NONE: frozenset[PeerId] = frozenset()


class TwoSidedEdges:
    """The undirected graph of edges that both ends list, kept current change by change.

    Requiring both ends (OSPF's bidirectionality check, RFC 2328 section 16.1) means that no member can attach
    itself, or anybody else, to a peer that does not hear it.
    """

    def __init__(self) -> None:
        self._listed: dict[PeerId, frozenset[PeerId]] = {}
        self._adjacent: dict[PeerId, set[PeerId]] = {}

    def set(self, peer: PeerId, neighbours: frozenset[PeerId]) -> None:
        """Replace what `peer` lists; unknown peers may be listed and count once they list back."""
        self._listed[peer] = neighbours
        before = self._adjacent.get(peer, _NONE)
        after = {other for other in neighbours if other != peer and peer in self._listed.get(other, _NONE)}
        for other in before - after:
            self._adjacent[other].discard(peer)
        for other in after - before:
            self._adjacent.setdefault(other, set()).add(peer)
        self._adjacent[peer] = after

    def remove(self, peer: PeerId) -> None:
        """Forget `peer` and its edges."""
        self.set(peer, _NONE)
        del self._listed[peer], self._adjacent[peer]

    def adjacent(self, peer: PeerId) -> AbstractSet[PeerId]:
        """Those that list `peer` and are listed by it."""
        return self._adjacent.get(peer, _NONE)

    def reachable_from(self, start: PeerId) -> AbstractSet[PeerId]:
        """Everybody connected with `start`, itself included: breadth first, O(members + edges)."""
        seen: AbstractSet[PeerId] = {start}
        frontier: AbstractSet[PeerId] = seen
        while frontier:
            frontier = {other for peer in frontier for other in self.adjacent(peer)} - seen
            seen = seen | frontier
        return seen
