"""What can be said of a topology before anybody runs on it."""

from __future__ import annotations

import math
from typing import Any

from fedd.api.errors import InvalidParameter
from fedd.core.explicit_edges import EXPLICIT, edge_nodes
from fedd.core.topology import build
from fedd.worker.spectrum import MAX_MEMBERS, graph_spectrum


def describe_topology(name: str, nodes: int, seed: int, tolerance: float) -> dict[str, Any]:
    """The graph, its spectrum and the rounds it needs, as JSON can hold it.

    {topology, members[], edges[[i, j]], arcs[[[i, j]]], directed, degree_min, degree_max, diameter, weights,
    second_eigenvalue, spectral_gap, rounds, chebyshev_rounds, tolerance}: `rounds` of plain averaging until
    the disagreement is `tolerance` of what it was, `chebyshev_rounds` where the matrix is symmetric, None
    where there is no such number. `nodes` is not asked where the edges are written out: they name them.

    Raises InvalidParameter (field "topology" or "members"), also for more than 1024 nodes.
    """
    if name.startswith(EXPLICIT):
        members = edge_nodes(name.removeprefix(EXPLICIT))
    else:
        members = [f"{number:04d}" for number in range(min(nodes, MAX_MEMBERS + 1))]
    if len(members) > MAX_MEMBERS:
        raise InvalidParameter(f"{nodes} nodes are more than {MAX_MEMBERS}", field="members")
    if not 0 < tolerance < 1:
        raise InvalidParameter(f"the tolerance {tolerance:g} is not between 0 and 1", field="tolerance")
    graph = build(name, members, seed)
    spectrum = graph_spectrum(graph)
    degrees = [graph.degree(member) for member in graph.members]
    document = graph.document()
    return {
        "topology": name,
        "members": list(graph.members),
        "edges": document["edges"],
        "arcs": document.get("arcs", []),
        "directed": graph.directed,
        "degree_min": min(degrees),
        "degree_max": max(degrees),
        "diameter": graph.diameter(),
        "weights": graph.rule,
        "second_eigenvalue": spectrum.second,
        "spectral_gap": spectrum.gap,
        "rounds": _whole(spectrum.rounds(tolerance)),
        "chebyshev_rounds": spectrum.chebyshev_rounds(tolerance),
        "tolerance": tolerance,
    }


def _whole(rounds: float) -> int | None:
    return None if math.isinf(rounds) else int(rounds)
