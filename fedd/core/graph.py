"""The graph of a run: members, edges, and what follows from them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any, TypeAlias

from fedd.api.errors import InvalidParameter
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass

Arc: TypeAlias = tuple[PeerId, PeerId]
"""(from, to)"""

RULES = ("metropolis", "lazy", "uniform", "explicit")
"""How mixing weights follow from a graph; see `fedd.core.mixing`."""

_Near: TypeAlias = Mapping[PeerId, tuple[PeerId, ...]]


@dataclass(frozen=True)
class Graph:
    """A simple graph, undirected unless it has arcs.

    `members` is sorted; every edge is a pair (lower, higher). `phases` holds the arcs of a directed graph:
    those of round k are `phases[k % len(phases)]`, and each lies on an edge; empty, every edge goes both ways
    in every round. Links, rounds and components know edges alone. `rule` is one of `RULES`; the weights of
    "explicit" are `weights`, sorted (from, to, weight), one for every arc or both ways of every edge.
    """

    members: tuple[PeerId, ...]
    edges: frozenset[tuple[PeerId, PeerId]]
    phases: tuple[frozenset[Arc], ...] = ()
    rule: str = "metropolis"
    weights: tuple[tuple[PeerId, PeerId, float], ...] = ()
    _adjacency: _Near = field(init=False, repr=False, compare=False)
    _out: tuple[_Near, ...] = field(init=False, repr=False, compare=False)
    _in: tuple[_Near, ...] = field(init=False, repr=False, compare=False)
    _weight: Mapping[Arc, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if list(self.members) != sorted(set(self.members)):
            raise InvalidParameter("the members of a graph must be sorted and distinct", field="members")
        self._link()
        self._point()
        self._weigh()

    def _link(self) -> None:
        adjacency: dict[PeerId, list[PeerId]] = {member: [] for member in self.members}
        for low, high in sorted(self.edges):
            if low not in adjacency or high not in adjacency or low >= high:
                raise InvalidParameter(f"{low} - {high} is not an edge between two members", field="edges")
            adjacency[low].append(high)
            adjacency[high].append(low)
        object.__setattr__(self, "_adjacency", _frozen(adjacency))

    def _point(self) -> None:
        out: list[_Near] = []
        into: list[_Near] = []
        for arcs in self.phases:
            forward: dict[PeerId, list[PeerId]] = {member: [] for member in self.members}
            backward: dict[PeerId, list[PeerId]] = {member: [] for member in self.members}
            for source, target in arcs:
                if (min(source, target), max(source, target)) not in self.edges:
                    raise InvalidParameter(f"{source} -> {target} lies on no edge", field="edges")
                forward[source].append(target)
                backward[target].append(source)
            out.append(_frozen(forward))
            into.append(_frozen(backward))
        object.__setattr__(self, "_out", tuple(out))
        object.__setattr__(self, "_in", tuple(into))

    def _weigh(self) -> None:
        if self.rule not in RULES or bool(self.weights) != (self.rule == "explicit"):
            raise InvalidParameter(
                f"{len(self.weights)} weights by the rule {self.rule!r:.40}", field="topology"
            )
        weight = {(source, target): value for source, target, value in self.weights}
        if self.weights and (len(self.phases) > 1 or weight.keys() != self.arcs()):
            raise InvalidParameter("explicit weights are one for every arc, in every round", field="topology")
        object.__setattr__(self, "_weight", weight)

    @property
    def directed(self) -> bool:
        """Whether the graph has arcs."""
        return bool(self.phases)

    @property
    def period(self) -> int:
        """After how many rounds the arcs repeat; 1 when they are always the same."""
        return len(self.phases) or 1

    def arcs(self, round: int = 0) -> frozenset[Arc]:
        """The arcs of a round; both ways of every edge when the graph is undirected."""
        if self.phases:
            return self.phases[round % len(self.phases)]
        return self.edges | {(high, low) for low, high in self.edges}

    def out_neighbors(self, peer: PeerId, round: int = 0) -> tuple[PeerId, ...]:
        """To whom `peer` sends in a round, sorted; empty for one that is no member."""
        return self._out[round % len(self._out)].get(peer, ()) if self._out else self.neighbors(peer)

    def in_neighbors(self, peer: PeerId, round: int = 0) -> tuple[PeerId, ...]:
        """From whom `peer` hears in a round, sorted; empty for one that is no member."""
        return self._in[round % len(self._in)].get(peer, ()) if self._in else self.neighbors(peer)

    def weight(self, source: PeerId, target: PeerId) -> float:
        """The explicit weight of an arc: with it `target` mixes what `source` sends; 0 for no such arc."""
        return self._weight.get((source, target), 0.0)

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

    def is_strongly_connected(self) -> bool:
        """Whether a message goes from every member to every other along the arcs, given enough rounds."""
        if not self.phases:
            return self.is_connected()
        rounds = range(self.period)
        for near in (self.out_neighbors, self.in_neighbors):
            found = set(self.members[:1])
            frontier = list(found)
            while frontier:
                here = frontier.pop()
                new = {other for round in rounds for other in near(here, round)} - found
                found |= new
                frontier += new
            if len(found) != len(self.members) or not found:
                return False
        return True

    def document(self) -> dict[str, Any]:
        """Edges, and arcs, rule and weights where there are any, as indices into `members`; see `read`."""
        index = {member: position for position, member in enumerate(self.members)}
        found: dict[str, Any] = {"edges": self.edge_indices()}
        if self.phases:
            found["arcs"] = [sorted([index[a], index[b]] for a, b in arcs) for arcs in self.phases]
        if self.rule != "metropolis":
            found["rule"] = self.rule
        if self.weights:
            found["weights"] = [[index[a], index[b], weight] for a, b, weight in self.weights]
        return found

    @classmethod
    def read(cls, members: Sequence[PeerId], document: Mapping[str, Any]) -> Graph:
        """The graph over sorted `members` that `document` described; other keys are passed over."""
        return cls(
            tuple(members),
            frozenset((members[min(pair)], members[max(pair)]) for pair in document["edges"]),
            tuple(frozenset((members[a], members[b]) for a, b in arcs) for arcs in document.get("arcs", ())),
            document.get("rule", "metropolis"),
            tuple((members[a], members[b], weight) for a, b, weight in document.get("weights", ())),
        )

    def edge_indices(self) -> list[list[int]]:
        """The edges as sorted pairs of indices into `members`."""
        index = {member: position for position, member in enumerate(self.members)}
        return sorted([index[low], index[high]] for low, high in self.edges)

    def adjacency_hash(self) -> bytes:
        """32 bytes (SHA-256) that two nodes compare to know that they hold the same graph."""
        digest = hashlib.sha256(b"fedd/graph/1\n")
        for member in self.members:
            digest.update(f"{member}:{','.join(self.neighbors(member))}\n".encode())
        for number, arcs in enumerate(self.phases):
            for source, target in sorted(arcs):
                digest.update(f"{number}:{source}>{target}\n".encode())
        if self.rule != "metropolis":
            digest.update(f"{self.rule}\n".encode())
        for source, target, weight in self.weights:
            digest.update(f"{source}>{target}=".encode() + struct.pack("<d", weight))
        return digest.digest()


def _frozen(near: Mapping[PeerId, Iterable[PeerId]]) -> _Near:
    return {member: tuple(sorted(others)) for member, others in near.items()}
