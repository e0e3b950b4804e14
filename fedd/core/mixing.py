"""Mixing weights: how much of a neighbour's value goes into one's own, by the graph's rule.

Row i of the mixing matrix W belongs to member i: its neighbours' weights, and one minus their sum for
itself. Every rule gives nonnegative rows that sum to one. On undirected graphs W is doubly stochastic
(symmetric by every rule but "explicit"): averaging with it keeps the mean.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fedd.api.types import PeerId
from fedd.core.graph import Graph


def metropolis_weights(degree: int, neighbor_degrees: Mapping[PeerId, int]) -> dict[PeerId, float]:
    """Metropolis-Hastings mixing weights of one node, w_ij = 1 / (1 + max(d_i, d_j)), in sorted peer order.

    `degree` is the node's own degree, `neighbor_degrees` its neighbours'. The node keeps one minus the
    sum. Both ends of an edge compute the same weight.

    Source: L. Xiao, S. Boyd, S. Lall, "A scheme for robust distributed sensor fusion based on average
    consensus", IPSN 2005.
    """
    return {peer: 1.0 / (1 + max(degree, neighbor_degrees[peer])) for peer in sorted(neighbor_degrees)}


def neighbor_weights(
    graph: Graph,
    peer: PeerId,
    present: Collection[PeerId] | None = None,
    gone: Collection[PeerId] = (),
    round: int = 0,
) -> dict[PeerId, float]:
    """The weights with which `peer` mixes what it hears in a round, in sorted peer order.

    `present` are the neighbours it still has (None: all but those `gone`), `gone` the members that are out.

    - metropolis: 1 / (1 + max(d_i, d_j)), degrees counted without the members that are gone
    - lazy: half of it, so that no eigenvalue is negative
    - uniform: 1 / (1 + d), d the largest degree of the graph as it began
    - explicit: the graph's own; a lost neighbour's goes to the node itself, which keeps W doubly stochastic
      where it is symmetric

    On directed graphs the first three are 1 / (1 + in-degree), lazy half of it.

    Source: L. Xiao, S. Boyd, "Fast linear iterations for distributed averaging", Systems & Control
    Letters 53 (2004), section 4.1, for uniform (their maximum-degree weights); metropolis as
    `metropolis_weights`.
    """
    heard = graph.in_neighbors(peer, round)
    near = [other for other in heard if (other not in gone if present is None else other in present)]
    if graph.rule == "explicit":
        return {other: graph.weight(other, peer) for other in near}
    half = 0.5 if graph.rule == "lazy" else 1.0
    if graph.directed:
        return dict.fromkeys(near, half / (1 + len(near)))
    if graph.rule == "uniform":
        return dict.fromkeys(near, 1.0 / (1 + max(graph.degree(member) for member in graph.members)))
    degrees = {other: sum(each not in gone for each in graph.neighbors(other)) for other in near}
    return {other: half * weight for other, weight in metropolis_weights(len(near), degrees).items()}


def mixing_matrix(graph: Graph, round: int = 0) -> list[list[float]]:
    """W of a round, rows and columns in the order of the members."""
    index = {member: position for position, member in enumerate(graph.members)}
    rows: list[list[float]] = []
    for member in graph.members:
        row = [0.0] * len(graph.members)
        for other, weight in neighbor_weights(graph, member, round=round).items():
            row[index[other]] = weight
        row[index[member]] = 1.0 - sum(row)
        rows.append(row)
    return rows
