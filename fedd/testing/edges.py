"""Which edges of a simulated run are cut, as one device knows it."""

from __future__ import annotations

from collections.abc import Collection

from fedd.api.types import PeerId
from fedd.core.cut_edges import lost_by_cuts
from fedd.core.graph import Graph


class CutEdges:
    """In one epoch: every cut edge is known by whoever cut it, and why."""

    def __init__(self, me: PeerId, graph: Graph) -> None:
        self._me = me
        self._graph = graph
        self._cut: dict[tuple[PeerId, PeerId], str] = {}
        self.mine: set[PeerId] = set()
        """Neighbours without an edge to this device."""

    def add(self, by: PeerId, peer: PeerId, reason: str) -> PeerId | None:
        """An edge is cut because of what `peer` sent; returns the neighbour if it was one of this device."""
        self._cut.setdefault((by, peer), reason)
        if self._me not in (by, peer):
            return None
        other = peer if by == self._me else by
        self.mine.add(other)
        return other

    def out(self, gone: Collection[PeerId]) -> dict[PeerId, str]:
        """Members, of those not `gone`, to whom no path is left, and why."""
        return {
            peer: self.blame(peer) or self._why_no_path(peer)
            for peer in sorted(lost_by_cuts(self._graph, self._me, gone, self._cut.keys()))
        }

    def _why_no_path(self, peer: PeerId) -> str:
        if (peer, self._me) in self._cut:
            return f"cut: it can make nothing of what this node sent: {self._cut[peer, self._me]}"
        return "cut: no path to it is left in the run's graph"

    def blame(self, peer: PeerId, said: str = "") -> str:
        """What a neighbour of this member could not use of what it sent, and what it `said` itself."""
        by = [by for by, of in self._cut if of == peer]
        return "; ".join(filter(None, [self._cut[min(by), peer] if by else "", said]))
