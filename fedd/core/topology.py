"""Who talks to whom in a run: graphs and mixing weights as pure functions of (members, name, seed).

Every member derives the same graph from the manifest; no floating point decides an edge, and a
32-byte hash of the adjacency travels along, so that a disagreement shows before the first round.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isqrt

from fedd.api.errors import InvalidParameter
from fedd.api.types import PeerId
from fedd.core.graph import Graph
from fedd.core.random_graphs import erdos_renyi, random_regular, watts_strogatz

_MAX_MEMBERS = 4096
"""Four times the largest federation that membership was simulated with."""

_COMPLETE_UP_TO = 5
"""The default graph is complete up to here: four links a node cost nothing."""

NAMES = (
    "complete",
    "ring",
    "star",
    "line",
    "grid",
    "torus",
    "hypercube",
    "exponential",
    "random-regular:K",
    "erdos-renyi:P",
    "watts-strogatz:K:P",
)
"""The topologies that `build` knows, as the user writes them."""


def default_topology(members: int) -> str:
    """The topology for this many members when nobody named one; never the ring, it mixes too slowly."""
    return "complete" if members <= _COMPLETE_UP_TO else "random-regular:4"


def build(name: str, members: Iterable[PeerId], seed: int) -> Graph:
    """The connected graph `name` over `members` in sorted order, the same for the same seed on every node.

    - complete; ring; line; star, around the first member
    - grid and torus: rows times columns as near to a square as the number of members allows
    - hypercube: 2**d members, linked where their numbers differ in one binary digit
    - exponential: member i with those 1, 2, 4, ... places further and back, round the circle
      (B. Ying et al., "Exponential graph is provably efficient for decentralized deep training", NeurIPS
      2021, made symmetric)
    - random-regular:K, erdos-renyi:P, watts-strogatz:K:P: see `fedd.core.random_graphs`; a K of at least
      len(members) - 1 is the complete graph

    Raises InvalidParameter (field "topology" or "members") for an unknown name, for numbers that no graph
    has, or when no connected graph was found.
    """
    ordered = tuple(sorted(set(members)))
    if not 1 <= len(ordered) <= _MAX_MEMBERS:
        raise InvalidParameter(
            f"a graph needs between 1 and {_MAX_MEMBERS} members, not {len(ordered)}", field="members"
        )
    family, _, argument = name.partition(":")
    if family in _DRAWN:
        return _DRAWN[family](name, argument, ordered, seed)
    if name not in _PLAIN:
        raise InvalidParameter(
            f"there is no topology {name!r}", hint=f"known: {', '.join(NAMES)}", field="topology"
        )
    edges = {(min(pair), max(pair)) for pair in _PLAIN[name](len(ordered))}
    return Graph(ordered, frozenset((ordered[low], ordered[high]) for low, high in edges))


def metropolis_weights(degree: int, neighbor_degrees: Mapping[PeerId, int]) -> dict[PeerId, float]:
    """Metropolis-Hastings mixing weights of one node, w_ij = 1 / (1 + max(d_i, d_j)), in sorted peer order.

    `degree` is the node's own degree, `neighbor_degrees` its neighbours'. The node keeps one minus the
    sum. Both ends of an edge compute the same weight.

    Source: L. Xiao, S. Boyd, S. Lall, "A scheme for robust distributed sensor fusion based on average
    consensus", IPSN 2005.
    """
    return {peer: 1.0 / (1 + max(degree, neighbor_degrees[peer])) for peer in sorted(neighbor_degrees)}


def _complete(count: int) -> Iterator[tuple[int, int]]:
    yield from itertools.combinations(range(count), 2)


def _line(count: int) -> Iterator[tuple[int, int]]:
    yield from itertools.pairwise(range(count))


def _ring(count: int) -> Iterator[tuple[int, int]]:
    yield from _line(count)
    if count > 2:
        yield 0, count - 1


def _star(count: int) -> Iterator[tuple[int, int]]:
    for leaf in range(1, count):
        yield 0, leaf


def _rectangle(count: int, name: str) -> tuple[int, int]:
    rows = next(rows for rows in range(isqrt(count), 0, -1) if count % rows == 0)
    if rows == 1 and count > 3:
        raise InvalidParameter(
            f"{count} members make no {name}: {count} is a prime number",
            hint="use another number of members, or line or ring",
            field="topology",
        )
    return rows, count // rows


def _grid(count: int) -> Iterator[tuple[int, int]]:
    rows, columns = _rectangle(count, "grid")
    for row, column in itertools.product(range(rows), range(columns)):
        here = row * columns + column
        if column + 1 < columns:
            yield here, here + 1
        if row + 1 < rows:
            yield here, here + columns


def _torus(count: int) -> Iterator[tuple[int, int]]:
    rows, columns = _rectangle(count, "torus")
    yield from _grid(count)
    if columns > 2:
        for row in range(rows):
            yield row * columns, row * columns + columns - 1
    if rows > 2:
        for column in range(columns):
            yield column, (rows - 1) * columns + column


def _hypercube(count: int) -> Iterator[tuple[int, int]]:
    if count & (count - 1):
        lower = 1 << (count.bit_length() - 1)
        raise InvalidParameter(
            f"{count} members make no hypercube: {count} is no power of two",
            hint=f"use {lower} or {2 * lower} members, or exponential",
            field="topology",
        )
    for here in range(count):
        for bit in range(count.bit_length() - 1):
            if here < here ^ 1 << bit:
                yield here, here ^ 1 << bit


def _exponential(count: int) -> Iterator[tuple[int, int]]:
    for here in range(count):
        for power in range((count - 1).bit_length()):
            yield here, (here + (1 << power)) % count


_PLAIN: Mapping[str, Callable[[int], Iterator[tuple[int, int]]]] = {
    "complete": _complete,
    "ring": _ring,
    "star": _star,
    "line": _line,
    "grid": _grid,
    "torus": _torus,
    "hypercube": _hypercube,
    "exponential": _exponential,
}

_DRAWN: Mapping[str, Callable[[str, str, tuple[PeerId, ...], int], Graph]] = {
    "random-regular": random_regular,
    "erdos-renyi": erdos_renyi,
    "watts-strogatz": watts_strogatz,
}
