"""The tree of the reachable against a search from scratch, whatever edges come and go."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from fedd.core.reachability import TwoSidedEdges
from fedd.core.records import Record


class World:
    """Records by owner, and what counted at the last update of those that are others since."""

    def __init__(self, root: str) -> None:
        self.records: dict[str, Record] = {}
        self.before: dict[str, Record | None] = {}
        self.edges = TwoSidedEdges(root, self.records)

    def counted(self, peer: str) -> None:
        self.before.setdefault(peer, None if peer in self.edges.muted else self.records.get(peer))

    def set(self, peer: str, neighbours: Iterable[str]) -> None:
        self.counted(peer)
        self.edges.muted.discard(peer)
        self.records[peer] = Record(peer, 1, 1, neighbours=frozenset(neighbours))

    def remove(self, peer: str, *, mute: bool) -> None:
        """Take the record away, or let it count for nothing."""
        self.counted(peer)
        if mute:
            self.edges.muted.add(peer)
        else:
            self.edges.muted.discard(peer)
            del self.records[peer]

    def update(self) -> tuple[list[str], list[str]]:
        before, self.before = self.before, {}
        return self.edges.update(before)[1:]


def connected(listed: dict[str, frozenset[str]], root: str) -> set[str]:
    """Everybody connected with `root` over edges that both list, by plain search."""
    seen = {root}
    todo = [root]
    for peer in todo:
        for other in listed.get(peer, frozenset()):
            if other != peer and peer in listed.get(other, frozenset()) and other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


@pytest.mark.parametrize("seed", range(40))
def test_the_reachable_are_those_that_a_search_finds(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"p{index}" for index in range(rng.choice([3, 6, 12, 30, 100]))]
    world = World(names[0])
    edges = world.edges
    listed: dict[str, frozenset[str]] = {}
    wanted = {frozenset(rng.sample(names, 2)) for _ in range(len(names) * 2)}
    was = set(edges.reachable)
    for _ in range(120 if len(names) < 100 else 30):
        for _ in range(rng.choice([1, 1, 2, 8])):
            # a peer is cut off, an edge comes, or one goes; both ends tell it, or as yet one of them
            chance = rng.random()
            if chance < 0.1:
                gone = rng.choice(names)
                wanted = {pair for pair in wanted if gone not in pair}
            elif chance < 0.6:
                wanted.add(frozenset(rng.sample(names, 2)))
            elif wanted:
                wanted.discard(rng.choice(sorted(wanted, key=sorted)))
        for peer in rng.sample(names, rng.randint(1, len(names))):
            if rng.random() < 0.05 and peer in listed and peer != names[0]:
                world.remove(peer, mute=rng.random() < 0.5)
                del listed[peer]
            else:
                listed[peer] = frozenset(next(iter(pair - {peer})) for pair in wanted if peer in pair)
                world.set(peer, listed[peer])
        gained, lost = world.update()
        assert set(edges.reachable) == connected(listed, names[0])
        assert set(gained) == set(edges.reachable) - was
        assert set(lost) == was - set(edges.reachable)
        was = set(edges.reachable)
        for peer in names:
            assert edges.adjacent(peer) == {
                other
                for other in listed.get(peer, frozenset())
                if other != peer and peer in listed.get(other, frozenset())
            }


def test_a_part_that_hung_by_one_edge_is_hung_from_another() -> None:
    world = World("r")
    for peer, others in {"r": "a", "a": "rb", "b": "ac", "c": "b"}.items():
        world.set(peer, others)
    assert world.update() == (["a", "b", "c"], [])
    # the far end of the part holds on to the root, its middle no longer to its beginning
    world.set("c", "br")
    world.set("r", "ac")
    world.set("a", "r")
    assert world.update() == ([], [])
    assert set(world.edges.reachable) == set("rabc")


def test_nothing_changed_costs_nothing_and_tells_nothing() -> None:
    world = World("r")
    assert world.update() == ([], [])
    world.set("a", "ra")
    assert world.update() == ([], [])
    assert world.edges.adjacent("a") == set()
