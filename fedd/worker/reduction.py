"""Combining everybody's message, each exactly once: up a tree, down to all, and what a death tore out again.

All survivors of a component go through the same three parts, in exchanges with all neighbours:

1. Up: along a breadth-first tree each member sends its parent the combination of its own message and of its
   children's. Every aggregate goes one way only, so that those in the root's are disjoint.
2. Down: along the tree the root's aggregate comes back. Then whoever holds it gives it to each neighbour that
   says it lacks it: as in FloodSet, after one exchange less than there are members all survivors hold it or,
   if the root died too early, none does.
3. Only if somebody's message is not in it: each of these floods the aggregate that it had sent up. They
   are nested or disjoint; the outermost ones are added.

The tree spans those who were in the last agreement of all, so that a death costs the third part once.

An aggregate that is none is refused where it comes first, and its sender is cut off: whoever hands one on
answers for it. Those behind it in the tree are counted in the third part.

Source of the parts: tree aggregation (N. Lynch, "Distributed Algorithms", 4.2 and 15.3), FloodSet (6.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fedd.api.errors import InvalidMessage
from fedd.api.types import Message, PeerId
from fedd.core import codec
from fedd.core.graph import Graph
from fedd.worker import arrays
from fedd.worker.combining import Combiner
from fedd.worker.flooding import flood_items
from fedd.worker.port import Exchanges, Payload
from fedd.worker.reading import read_all

_HAVE = codec.encode(None)
"""To a neighbour that holds the result: I hold it too. Who lacks it sends nothing."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Some members' messages combined: their bits by index in the run's members, and the encoded value."""

    origins: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Tree:
    """One node's place in the tree of its component.

    `height` is the longest way to a root in any component, `component` are all who are in this one.
    """

    parent: PeerId | None
    children: tuple[PeerId, ...]
    depth: int
    height: int
    component: frozenset[PeerId]
    branches: Mapping[PeerId, frozenset[PeerId]]
    """For each child the members whose messages come through it, itself included."""


def tree_of(graph: Graph, members: Iterable[PeerId], me: PeerId) -> Tree:
    """The breadth-first tree over `members` and the graph's edges between them, from the lowest id on."""
    left = sorted(members)
    within = frozenset(left)
    parents: dict[PeerId, PeerId | None] = {}
    depths: dict[PeerId, int] = {}
    component: frozenset[PeerId] = frozenset()
    for root in left:
        if root in depths:
            continue
        parents[root], depths[root] = None, 0
        queue = [root]
        for here in queue:
            for near in graph.neighbors(here):
                if near in within and near not in depths:
                    parents[near], depths[near] = here, depths[here] + 1
                    queue.append(near)
        if me in queue:
            component = frozenset(queue)
    branches: dict[PeerId, set[PeerId]] = {peer: set() for peer in left if parents[peer] == me}
    for peer in component - {me}:
        above: PeerId | None = peer
        while above is not None and parents[above] != me:
            above = parents[above]
        if above is not None:
            branches[above].add(peer)
    return Tree(
        parents[me],
        tuple(branches),
        depths[me],
        max(depths.values()),
        component,
        {child: frozenset(branch) for child, branch in branches.items()},
    )


class Reduction:
    """One `reduce` on one node. `base`: those who were in the last agreement of all, else all members."""

    def __init__(
        self,
        exchanges: Exchanges,
        graph: Graph,
        base: tuple[PeerId, ...],
        combiner: Combiner,
        tag: str,
        read: Callable[[PeerId, Payload], Any],
    ) -> None:
        self._exchanges = exchanges
        self._combiner = combiner
        self._read = read
        self._tag = tag
        self._members = exchanges.members
        self._base = base
        self._tree = tree_of(graph, base, exchanges.me)

    async def run(self, message: Message) -> Aggregate:
        """All three parts. The same value and origins on all survivors of a component."""
        mine = await self._up(Aggregate(self._bit(self._exchanges.me), arrays.encode(message)))
        result = await self._down(mine if self._tree.parent is None else None)
        if result is not None and result.origins == self._bits(self._tree.component):
            return result
        return await self._again(result, mine)

    async def _up(self, mine: Aggregate) -> Aggregate:
        """What this node has sent to its parent, the root: what it has gathered."""
        exchanges, tree = self._exchanges, self._tree
        arrived: dict[PeerId, Aggregate] = {}
        for depth in range(tree.height, 0, -1):
            payloads: dict[PeerId, Payload] = dict.fromkeys(exchanges.present, b"")
            if depth == tree.depth and tree.parent is not None:
                mine = self._combined(mine, arrived)
                if tree.parent in payloads:
                    payloads[tree.parent] = self._encode(mine)
            answers = await exchanges.swap(payloads, f"reduce:{self._tag}")
            given = {peer: answers[peer] for peer in tree.children if len(answers.get(peer, b""))}
            arrived.update(read_all(exchanges, given, self._from_child))
        return self._combined(mine, arrived) if tree.parent is None else mine

    def _combined(self, mine: Aggregate, arrived: dict[PeerId, Aggregate]) -> Aggregate:
        """Own message and children's aggregates, in sorted order of the peers."""
        if not arrived:
            return mine
        me = self._exchanges.me
        parts = sorted([(me, mine), *arrived.items()])
        return self._merged([(peer, aggregate) for peer, aggregate in parts])

    def _merged(self, parts: list[tuple[PeerId, Aggregate]]) -> Aggregate:
        """The parts, which are disjoint, combined one after the other, without those that do not fit."""
        (first, start), *others = parts
        origins, value = start.origins, self._read(first, start.value)
        for peer, aggregate in others:
            fits, value = self._combiner.add(value, peer, self._read(peer, aggregate.value))
            origins |= aggregate.origins if fits else 0
        return Aggregate(origins, arrays.encode(value))

    async def _down(self, held: Aggregate | None) -> Aggregate | None:
        """The root's aggregate, or None: the same on all survivors.

        First to the children only. Then everybody says whether it holds it, and FloodSet brings it to those
        who do not, which usually is nobody.
        """
        exchanges, height = self._exchanges, self._tree.height
        holders: set[PeerId] = set()
        given = False
        for number in range(height + len(self._base) if height else 0):
            payloads: dict[PeerId, Payload] = dict.fromkeys(exchanges.present, b"")
            if held is not None:
                item = self._encode(held)
                lack: Iterable[PeerId] = ()
                if number < height and not given:
                    lack, given = self._tree.children, True
                elif number > height:
                    lack = payloads.keys() - holders
                payloads = {peer: item if peer in lack else _HAVE for peer in payloads}
            answers = await exchanges.swap(payloads, f"reduce:{self._tag}")
            given_here = {peer: answer for peer, answer in answers.items() if len(answer)}
            for peer, aggregate in read_all(exchanges, given_here, self._from_above).items():
                holders.add(peer)
                held = held or aggregate
        return held

    async def _again(self, result: Aggregate | None, mine: Aggregate) -> Aggregate:
        """Add the aggregates of those who are not in the result."""
        exchanges = self._exchanges
        counted = 0 if result is None else result.origins
        me = self._members.index(exchanges.me)
        torn = {} if counted >> me & 1 else {me: self._encode(mine)}
        items = await flood_items(
            exchanges, torn, len(self._base) - 1, f"reduce:{self._tag}", self._from_origin
        )
        found = list(items.items())
        found.sort(key=lambda item: (-item[1].origins.bit_count(), item[0]))
        chosen: list[tuple[int, Aggregate]] = []
        for origin, aggregate in found:
            if not counted & aggregate.origins:
                counted |= aggregate.origins
                chosen.append((origin, aggregate))
        parts = [(self._members[origin], aggregate) for origin, aggregate in sorted(chosen)]
        if result is not None:
            parts.insert(0, (self._tree_root(), result))
        return self._merged(parts)

    def _tree_root(self) -> PeerId:
        return min(self._tree.component)

    def _bit(self, peer: PeerId) -> int:
        return 1 << self._members.index(peer)

    def _bits(self, peers: Iterable[PeerId]) -> int:
        return sum(map(self._bit, peers))

    def _encode(self, aggregate: Aggregate) -> bytes:
        mask = aggregate.origins.to_bytes((len(self._members) + 7) // 8, "little")
        return codec.encode([mask, aggregate.value])

    def _from_child(self, peer: PeerId, payload: Payload) -> Aggregate:
        """What a child gathered: of its branch only, so that no two overlap."""
        return self._decode(peer, payload, self._tree.branches[peer])

    def _from_above(self, peer: PeerId, payload: Payload) -> Aggregate | None:
        """The root's aggregate, None when a neighbour says only that it holds that too."""
        return None if payload == _HAVE else self._decode(peer, payload, self._tree.component)

    def _from_origin(self, origin: int, item: bytes) -> Aggregate:
        """What a member had sent up in vain: its own message is in it."""
        aggregate = self._decode(self._members[origin], item, self._base)
        if not aggregate.origins >> origin & 1:
            raise InvalidMessage("it sent an aggregate without its own message")
        return aggregate

    def _decode(self, peer: PeerId, payload: Payload, within: Iterable[PeerId]) -> Aggregate:
        """An aggregate of messages of some of `within`. Raises whatever `read` does for its value."""
        match self._exchanges.decode(payload):
            case [bytes(mask), bytes(value)] if (origins := int.from_bytes(mask, "little")) > 0:
                if origins & ~self._bits(within):
                    raise InvalidMessage("it sent an aggregate of messages that it cannot have")
                self._read(peer, value)
                return Aggregate(origins, value)
        raise InvalidMessage("it sent something else than reduced messages")
