"""Which members a run has lost to edges that are cut: those to whom no path is left, or whom nobody hears."""

from __future__ import annotations

from collections.abc import Collection

from fedd.api.types import PeerId
from fedd.core.graph import Graph


def lost_by_cuts(
    graph: Graph, me: PeerId, gone: Collection[PeerId], cuts: Collection[tuple[PeerId, PeerId]]
) -> frozenset[PeerId]:
    """The members, of those not `gone`, that are out for `me`. `cuts` are edges in either order.

    In a directed graph an edge that only carries what goes *to* a member keeps nobody in touch with it:
    whoever has cut everything that came from it must not give it anything any more.
    """
    edges = {(min(edge), max(edge)) for edge in cuts}
    near = graph.reachable(me, without=gone, cut=edges)
    lost = {peer for peer in graph.members if peer not in near and peer not in gone}
    if graph.directed and edges:
        for peer in graph.members:
            hearers = {other for at in range(graph.period) for other in graph.out_neighbors(peer, at)}
            hearers.difference_update(gone)
            heard = any((min(peer, other), max(peer, other)) not in edges for other in hearers)
            if hearers and not heard and peer not in gone and peer != me:
                lost.add(peer)
    return frozenset(lost)
