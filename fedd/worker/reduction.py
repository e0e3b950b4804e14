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

Source of the parts: tree aggregation (N. Lynch, "Distributed Algorithms", 4.2 and 15.3), FloodSet (6.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fedd.api.errors import InvalidMessage
from fedd.api.types import Message, PeerId
from fedd.core import codec
from fedd.core.graph import Graph
from fedd.worker import arrays
from fedd.worker.flooding import flood_items
from fedd.worker.port import Exchanges, Payload

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
    children = tuple(peer for peer in left if parents[peer] == me)
    return Tree(parents[me], children, depths[me], max(depths.values()), component)


class Reduction:
    """One `reduce` on one node. `base`: those who were in the last agreement of all, else all members."""

    def __init__(
        self,
        exchanges: Exchanges,
        graph: Graph,
        base: tuple[PeerId, ...],
        combine: Callable[[Any, Any], Message],
        tag: str,
    ) -> None:
        self._exchanges = exchanges
        self._combine = combine
        self._tag = tag
        self._members = exchanges.members
        self._base = base
        self._tree = tree_of(graph, base, exchanges.me)

    async def run(self, message: Message) -> Aggregate:
        """All three parts. The same value and origins on all survivors of a component."""
        mine = await self._up(Aggregate(self._bit(self._exchanges.me), arrays.encode(message)))
        result = await self._down(mine if self._tree.parent is None else None)
        everybody = sum(map(self._bit, self._tree.component))
        if result is not None and result.origins == everybody:
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
            for peer in tree.children:
                if len(answers.get(peer, b"")):
                    arrived[peer] = self._decode(peer, answers[peer])
        return self._combined(mine, arrived) if tree.parent is None else mine

    def _combined(self, mine: Aggregate, arrived: dict[PeerId, Aggregate]) -> Aggregate:
        """Own message and children's aggregates, in sorted order of the peers."""
        if not arrived:
            return mine
        me = self._exchanges.me
        parts = sorted([(me, mine), *arrived.items()])
        return self._merged([(peer, aggregate) for peer, aggregate in parts])

    def _merged(self, parts: list[tuple[PeerId, Aggregate]]) -> Aggregate:
        """The parts combined one after the other. Raises InvalidMessage when they overlap."""
        (first, start), *others = parts
        origins, value = start.origins, self._exchanges.decode(first, start.value)
        for peer, aggregate in others:
            if origins & aggregate.origins:
                raise InvalidMessage(f"{peer} sent messages that are counted already")
            origins |= aggregate.origins
            value = self._combine(value, self._exchanges.decode(peer, aggregate.value))
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
            for peer, answer in answers.items():
                if len(answer):
                    holders.add(peer)
                    if held is None and answer != _HAVE:
                        held = self._decode(peer, answer)
        return held

    async def _again(self, result: Aggregate | None, mine: Aggregate) -> Aggregate:
        """Add the aggregates of those who are not in the result."""
        exchanges = self._exchanges
        counted = 0 if result is None else result.origins
        me = self._members.index(exchanges.me)
        torn = {} if counted >> me & 1 else {me: self._encode(mine)}
        items = await flood_items(exchanges, torn, len(self._base) - 1, f"reduce:{self._tag}")
        found = [(origin, self._decode(self._members[origin], payload)) for origin, payload in items.items()]
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

    def _encode(self, aggregate: Aggregate) -> bytes:
        mask = aggregate.origins.to_bytes((len(self._members) + 7) // 8, "little")
        return codec.encode([mask, aggregate.value])

    def _decode(self, peer: PeerId, payload: Payload) -> Aggregate:
        match self._exchanges.decode(peer, payload):
            case [bytes(mask), bytes(value)] if 0 < int.from_bytes(mask, "little") < 1 << len(self._members):
                return Aggregate(int.from_bytes(mask, "little"), value)
        raise InvalidMessage(f"{peer} sent something else than reduced messages")
