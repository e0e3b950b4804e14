"""Who talks to whom in a run: graphs and mixing weights as pure functions of (members, name, seed).

Every member derives the same graph from the manifest; no floating point decides an edge, and a
32-byte hash of the adjacency travels along, so that a disagreement shows before the first round.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fedd.api.errors import InvalidParameter
from fedd.api.types import PeerId

_MAX_MEMBERS = 4096
"""Four times the largest federation that membership was simulated with."""

_MAX_POINTS = 20_000
"""Members times neighbours of a random graph. Every member derives it before the run: 0.1 s a pairing, on the
loop that also answers heartbeats, whoever sent the manifest."""

_MAX_PAIRED = 1 << 19
"""Points of all pairings together before giving up: 3 s at the worst. At K = 2, the least likely to connect,
about sqrt(n) pairings are needed, which 1000 members have four times over."""

_COMPLETE_UP_TO = 5
"""The default graph is complete up to here: four links a node cost nothing."""

NAMES = ("complete", "ring", "random-regular:K")
"""The topologies that `build` knows, as the user writes them."""


@dataclass(frozen=True)
class Graph:
    """An undirected simple graph. `members` is sorted; every edge is a pair (lower, higher)."""

    members: tuple[PeerId, ...]
    edges: frozenset[tuple[PeerId, PeerId]]
    _adjacency: dict[PeerId, tuple[PeerId, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if list(self.members) != sorted(set(self.members)):
            raise InvalidParameter("the members of a graph must be sorted and distinct", field="members")
        adjacency: dict[PeerId, list[PeerId]] = {member: [] for member in self.members}
        for low, high in sorted(self.edges):
            if low not in adjacency or high not in adjacency or low >= high:
                raise InvalidParameter(f"{low} - {high} is not an edge between two members", field="edges")
            adjacency[low].append(high)
            adjacency[high].append(low)
        frozen = {member: tuple(sorted(near)) for member, near in adjacency.items()}
        object.__setattr__(self, "_adjacency", frozen)

    def neighbors(self, peer: PeerId) -> tuple[PeerId, ...]:
        """The sorted neighbours of `peer`; empty for one that is no member."""
        return self._adjacency.get(peer, ())

    def degree(self, peer: PeerId) -> int:
        """How many neighbours `peer` has."""
        return len(self.neighbors(peer))

    def reachable(
        self,
        start: PeerId,
        without: Iterable[PeerId] = (),
        cut: Iterable[tuple[PeerId, PeerId]] = (),
    ) -> frozenset[PeerId]:
        """The component of `start` (itself included) when some members and edges (lower, higher) are gone."""
        closed = set(without)
        cut_edges = frozenset(cut)
        found = {start}
        frontier = [start]
        while frontier:
            here = frontier.pop()
            for near in self.neighbors(here):
                edge = (here, near) if here < near else (near, here)
                if near not in found and near not in closed and edge not in cut_edges:
                    found.add(near)
                    frontier.append(near)
        return frozenset(found)

    def is_connected(self) -> bool:
        """Whether every member reaches every other. True for one member, False for none."""
        return bool(self.members) and len(self.reachable(self.members[0])) == len(self.members)

    def diameter(self) -> int:
        """The longest shortest path, in hops. Raises InvalidParameter when the graph is not connected."""
        if not self.is_connected():
            raise InvalidParameter("a graph that is not connected has no diameter", field="topology")
        return max(self._eccentricity(member) for member in self.members)

    def _eccentricity(self, start: PeerId) -> int:
        distance = {start: 0}
        queue = [start]
        for here in queue:
            for near in self.neighbors(here):
                if near not in distance:
                    distance[near] = distance[here] + 1
                    queue.append(near)
        return max(distance.values())

    def edge_indices(self) -> list[list[int]]:
        """The edges as sorted pairs of indices into `members`."""
        index = {member: position for position, member in enumerate(self.members)}
        return sorted([index[low], index[high]] for low, high in self.edges)

    def adjacency_hash(self) -> bytes:
        """32 bytes (SHA-256) that two nodes compare to know that they hold the same graph."""
        digest = hashlib.sha256(b"fedd/graph/1\n")
        for member in self.members:
            digest.update(f"{member}:{','.join(self.neighbors(member))}\n".encode())
        return digest.digest()


def default_topology(members: int) -> str:
    """The topology for this many members when nobody named one; never the ring, it mixes too slowly."""
    return "complete" if members <= _COMPLETE_UP_TO else "random-regular:4"


def build(name: str, members: Iterable[PeerId], seed: int) -> Graph:
    """The connected graph `name` over `members`, the same for the same seed on every node.

    `name` is "complete", "ring" (in sorted order) or "random-regular:K" (K neighbours each, drawn by
    pairing; K of at least len(members) - 1 is the complete graph).

    Raises InvalidParameter (field "topology" or "members") for an unknown name, for a K that no graph
    has, or when no connected graph was found.
    """
    ordered = tuple(sorted(set(members)))
    if not 1 <= len(ordered) <= _MAX_MEMBERS:
        raise InvalidParameter(
            f"a graph needs between 1 and {_MAX_MEMBERS} members, not {len(ordered)}", field="members"
        )
    family, _, argument = name.partition(":")
    if family == "random-regular":
        return _random_regular(name, argument, ordered, seed)
    if name not in _PLAIN:
        raise InvalidParameter(
            f"there is no topology {name!r}", hint=f"known: {', '.join(NAMES)}", field="topology"
        )
    return Graph(ordered, frozenset(_PLAIN[name](ordered)))


def metropolis_weights(degree: int, neighbor_degrees: Mapping[PeerId, int]) -> dict[PeerId, float]:
    """Metropolis-Hastings mixing weights of one node, w_ij = 1 / (1 + max(d_i, d_j)), in sorted peer order.

    `degree` is the node's own degree, `neighbor_degrees` its neighbours'. The node keeps one minus the
    sum. Both ends of an edge compute the same weight.

    Source: L. Xiao, S. Boyd, S. Lall, "A scheme for robust distributed sensor fusion based on average
    consensus", IPSN 2005.
    """
    return {peer: 1.0 / (1 + max(degree, neighbor_degrees[peer])) for peer in sorted(neighbor_degrees)}


def _complete(members: tuple[PeerId, ...]) -> Iterator[tuple[PeerId, PeerId]]:
    for position, low in enumerate(members):
        for high in members[position + 1 :]:
            yield low, high


def _ring(members: tuple[PeerId, ...]) -> Iterator[tuple[PeerId, PeerId]]:
    yield from itertools.pairwise(members)
    if len(members) > 2:
        yield members[0], members[-1]


_PLAIN: Mapping[str, Callable[[tuple[PeerId, ...]], Iterator[tuple[PeerId, PeerId]]]] = {
    "complete": _complete,
    "ring": _ring,
}


def _random_regular(name: str, argument: str, members: tuple[PeerId, ...], seed: int) -> Graph:
    """Draw pairings until one is simple and connected.

    Source: A. Steger, N. Wormald, "Generating random regular graphs quickly", Combinatorics,
    Probability and Computing 8 (1999): points are paired one by one and unsuitable pairs passed over,
    which stays fast for K where the plain pairing model hardly ever gives a simple graph.
    """
    count = len(members)
    if not argument.isascii() or not argument.isdigit() or len(argument) > 4 or int(argument) < 1:
        raise InvalidParameter(
            f"{name!r} does not say how many neighbours", hint="as in random-regular:4", field="topology"
        )
    degree = int(argument)
    if degree >= count - 1:
        return Graph(members, frozenset(_complete(members)))
    if degree * count % 2:
        raise InvalidParameter(
            f"no graph gives {degree} neighbours to each of {count} members: {degree} x {count} is odd",
            hint=f"use random-regular:{degree + 1} or another number of members",
            field="topology",
        )
    if degree == 1:
        raise InvalidParameter(
            f"with one neighbour each, {count} members are not connected",
            hint="use random-regular:2 or more",
            field="topology",
        )
    if degree * count > _MAX_POINTS:
        raise InvalidParameter(
            f"{name} of {count} members has {degree * count // 2} edges, too many to draw at random",
            hint=f"use up to random-regular:{_MAX_POINTS // count}, or complete",
            field="topology",
        )
    draw = _integers(f"{name}\n{count}\n{seed}")
    tries = _MAX_PAIRED // (degree * count)
    for _ in range(tries):
        pairs = _pairing(count, degree, draw)
        if pairs is not None:
            graph = Graph(members, frozenset((members[low], members[high]) for low, high in pairs))
            if graph.is_connected():
                return graph
    raise InvalidParameter(
        f"no connected graph {name} of {count} members in {tries} tries",
        hint="use another seed or more neighbours",
        field="topology",
    )


def _pairing(count: int, degree: int, draw: Callable[[int], int]) -> set[tuple[int, int]] | None:
    """One pairing of `degree` points a member into a simple graph; None when it got stuck."""
    pairs: set[tuple[int, int]] = set()
    points = [member for member in range(count) for _ in range(degree)]
    while points:
        left_over: list[int] = []
        _shuffle(points, draw)
        for one, other in zip(points[::2], points[1::2], strict=True):
            pair = (one, other) if one < other else (other, one)
            if one == other or pair in pairs:
                left_over += pair
            else:
                pairs.add(pair)
        if left_over and not _some_pair_fits(left_over, pairs):
            return None
        points = left_over
    return pairs


def _some_pair_fits(points: list[int], pairs: set[tuple[int, int]]) -> bool:
    distinct = sorted(set(points))
    return any(
        (low, high) not in pairs for position, low in enumerate(distinct) for high in distinct[position + 1 :]
    )


def _shuffle(values: list[int], draw: Callable[[int], int]) -> None:
    """Fisher-Yates."""
    for last in range(len(values) - 1, 0, -1):
        chosen = draw(last + 1)
        values[last], values[chosen] = values[chosen], values[last]


def _integers(label: str) -> Callable[[int], int]:
    """A function `draw(below)` that gives uniform integers from the SHA-256 stream of `label`."""

    def words() -> Iterator[int]:
        counter = 0
        while True:
            block = hashlib.sha256(f"fedd/topology/1\n{label}\n{counter}".encode()).digest()
            yield from (int.from_bytes(block[at : at + 8]) for at in range(0, 32, 8))
            counter += 1

    stream = words()

    def draw(below: int) -> int:
        fair = (1 << 64) - (1 << 64) % below  # beyond it the remainder would favour small numbers
        return next(word for word in stream if word < fair) % below

    return draw
