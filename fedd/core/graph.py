"""The graph of a run: members, edges, and what follows from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from fedd.api.errors import InvalidParameter
from fedd.api.types import PeerId


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
