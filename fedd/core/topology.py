"""Who talks to whom in a run: graphs and mixing weights as pure functions of (members, name, seed).

Every member derives the same graph from the manifest; no floating point decides an edge, and a
32-byte hash of the adjacency travels along, so that a disagreement shows before the first round.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from math import isqrt

from fedd.api.errors import InvalidParameter
from fedd.api.types import PeerId
from fedd.core.explicit_edges import EXPLICIT, explicit_graph
from fedd.core.graph import Graph
from fedd.core.mixing import metropolis_weights as metropolis_weights
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
    "directed-ring",
    "directed-exponential",
    "one-peer-exponential",
    "edges:FILE",
)
"""The topologies that `build` knows, as the user writes them."""

WEIGHTS = ("metropolis", "lazy", "uniform")
"""What may follow a topology's name and an `@`."""


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
    - directed-ring: member i sends to member i + 1
    - directed-exponential: member i sends to those 1, 2, 4, ... places further (Ying et al.)
    - one-peer-exponential: the same arcs, one of them a round: 1, 2, 4, ... places further in turn (Ying et
      al., section 4; after log2(n) rounds of averaging everybody has the mean, when n is a power of two)
    - edges:TEXT: see `fedd.core.explicit_edges`

    A name may end in `@lazy` or `@uniform`, the rule of the mixing weights (`fedd.core.mixing`; edges with
    weights have theirs).

    Raises InvalidParameter (field "topology" or "members") for an unknown name, for numbers that no graph
    has, or when no connected graph was found.
    """
    ordered = tuple(sorted(set(members)))
    if not 1 <= len(ordered) <= _MAX_MEMBERS:
        raise InvalidParameter(
            f"a graph needs between 1 and {_MAX_MEMBERS} members, not {len(ordered)}", field="members"
        )
    if name.startswith(EXPLICIT):
        return explicit_graph(name.removeprefix(EXPLICIT), ordered)
    shape, at, rule = name.partition("@")
    if at and rule not in WEIGHTS:
        raise InvalidParameter(
            f"{name!r:.80} names no rule of weights", hint=f"known: {', '.join(WEIGHTS)}", field="topology"
        )
    graph = _shaped(shape, ordered, seed)
    return replace(graph, rule=rule) if at else graph


def _shaped(name: str, ordered: tuple[PeerId, ...], seed: int) -> Graph:
    family, _, argument = name.partition(":")
    if family in _DRAWN:
        return _DRAWN[family](name, argument, ordered, seed)
    if name in _DIRECTED:
        phases = tuple(
            frozenset((ordered[source], ordered[target]) for source, target in arcs if source != target)
            for arcs in _DIRECTED[name](len(ordered))
        )
        return Graph(ordered, frozenset((min(arc), max(arc)) for arcs in phases for arc in arcs), phases)
    if name not in _PLAIN:
        raise InvalidParameter(
            f"there is no topology {name!r:.80}", hint=f"known: {', '.join(NAMES)}", field="topology"
        )
    edges = {(min(pair), max(pair)) for pair in _PLAIN[name](len(ordered))}
    return Graph(ordered, frozenset((ordered[low], ordered[high]) for low, high in edges))


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


def _directed_ring(count: int) -> list[list[tuple[int, int]]]:
    return [_shift(count, 1)]


def _one_peer_exponential(count: int) -> list[list[tuple[int, int]]]:
    return [_shift(count, 1 << power) for power in range((count - 1).bit_length())] or [[]]


def _directed_exponential(count: int) -> list[list[tuple[int, int]]]:
    return [[arc for arcs in _one_peer_exponential(count) for arc in arcs]]


def _shift(count: int, places: int) -> list[tuple[int, int]]:
    return [(here, (here + places) % count) for here in range(count)]


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

_DIRECTED: Mapping[str, Callable[[int], list[list[tuple[int, int]]]]] = {
    "directed-ring": _directed_ring,
    "directed-exponential": _directed_exponential,
    "one-peer-exponential": _one_peer_exponential,
}

_DRAWN: Mapping[str, Callable[[str, str, tuple[PeerId, ...], int], Graph]] = {
    "random-regular": random_regular,
    "erdos-renyi": erdos_renyi,
    "watts-strogatz": watts_strogatz,
}
