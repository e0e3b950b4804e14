"""Who gives a small broadcast to whom: everybody once or twice, and nobody is left out."""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest
from core.broadcast_world import PEERS, World

from fedd.core.broadcast_givers import GIVERS, MAX_LOOKS, MAX_REMEMBERED, Givers
from fedd.core.broadcast_messages import Bcast

Graph = dict[str, set[str]]


def random_graph(size: int, degree: int, seed: int) -> Graph:
    """A ring, so that it is connected, and links at random."""
    names = [f"p{number:03d}" for number in range(size)]
    rng = random.Random(seed)
    graph: Graph = {name: set() for name in names}
    for one, other in zip(names, names[1:] + names[:1], strict=True):
        graph[one].add(other)
        graph[other].add(one)
    for _ in range(size * (degree - 2) // 2):
        one, other = rng.sample(names, 2)
        graph[one].add(other)
        graph[other].add(one)
    return graph


def flood(graph: Graph, origin: str, deaf: frozenset[str] = frozenset()) -> Counter[str]:
    """How many copies come to each; `deaf` ones take what comes and pass nothing on."""
    copies: Counter[str] = Counter()
    todo: deque[tuple[str, str | None]] = deque([(origin, None)])
    while todo:
        node, source = todo.popleft()
        if node in deaf:
            continue
        for peer in Givers(node, graph.__getitem__).mine(sorted(graph[node]), origin, source):
            assert peer not in (origin, source)
            copies[peer] += 1
            if copies[peer] == 1:
                todo.append((peer, node))
    return copies


@pytest.mark.parametrize("size", [2, 3, 10, 30, 50, 120])
@pytest.mark.parametrize("seed", range(5))
def test_everybody_has_it_once_or_a_little_more(size: int, seed: int) -> None:
    graph = random_graph(size, 7, seed)
    origin = random.Random(seed).choice(sorted(graph))
    copies = flood(graph, origin)
    assert copies.keys() == graph.keys() - {origin}
    if size <= MAX_LOOKS:
        assert all(copies[peer] == 1 for peer in graph[origin])
        assert max(copies.values()) <= GIVERS


@pytest.mark.parametrize("seed", range(20))
def test_where_one_gives_nothing_the_second_does(seed: int) -> None:
    """But for whom the origin reaches by that one alone."""
    graph = random_graph(30, 8, seed)
    names = sorted(graph)
    origin, mute = random.Random(seed).sample(names, 2)
    reached = flood(graph, origin, frozenset({mute}))
    without = {peer: others - {mute} for peer, others in graph.items() if peer != mute}
    # Nobody is far behind it: those who are not served by two have one beside them.
    assert len(reached.keys() | {origin, mute}) >= len(without) - 1


def test_who_has_one_giver_has_a_second_beside() -> None:
    #      b - d
    #  a <     |     d and e are two steps away, each behind one only
    #      c - e
    graph: Graph = {"a": {"b", "c"}, "b": {"a", "d"}, "c": {"a", "e"}, "d": {"b", "e"}, "e": {"c", "d"}}
    assert Givers("b", graph.__getitem__).mine(["a", "d"], "a", "a") == ["d"]
    assert Givers("d", graph.__getitem__).mine(["b", "e"], "a", "b") == ["e"]
    assert Givers("e", graph.__getitem__).mine(["c", "d"], "a", "c") == ["d"]
    # From where it came, however it came, it is not given back, nor to whom the origin gives it.
    assert Givers("d", graph.__getitem__).mine(["b", "e"], "a", "e") == []


def test_of_many_beside_one_gives() -> None:
    graph: Graph = {"a": {"b", "h"}, "b": {"a", "z"}, "h": {"a", *"cdefg"}, "z": {"b", *"cdefg"}}
    graph |= {each: {"h", "z"} for each in "cdefg"}
    givers = [each for each in "cdefg" if "z" in Givers(each, graph.__getitem__).mine(["h", "z"], "a", "h")]
    assert len(givers) == GIVERS - 1


def test_beyond_what_is_looked_at_those_served_by_the_same_neighbour_count() -> None:
    origin, far, crowd = "a", "z", [f"c{number:02d}" for number in range(MAX_LOOKS)]
    graph: Graph = {origin: set(crowd), "x": {crowd[0], "y", far}, "y": {crowd[0], "x", far}}
    graph |= {each: {origin} for each in crowd}
    graph[crowd[0]] |= {"x", "y", "w"}
    graph |= {"w": {crowd[0], far}, far: {"w", "x", "y"}}
    givers = [
        each for each in "wxy" if far in Givers(each, graph.__getitem__).mine(graph[each], origin, crowd[0])
    ]
    assert len(givers) == GIVERS
    assert Givers("x", graph.__getitem__).mine(["y"], origin, crowd[0]) == []


def test_without_records_all_pass_it_on() -> None:
    assert Givers("b", lambda peer: set()).mine(["a", "c", "d"], "a", "a") == ["c", "d"]
    assert Givers("a", lambda peer: set()).mine(["b", "c"], "a", None) == ["b", "c"]


class Recorded:
    """A graph by the records of its members: how often it was asked, and its version."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.version: object = 1
        self.asked = 0

    def neighbours_of(self, peer: str) -> set[str]:
        self.asked += 1
        return self.graph.get(peer, set())

    def is_asked(self, givers: Givers, links: list[str], origin: str, source: str) -> bool:
        """Whether it takes a look at the graph to find who gives; the answer is right in any case."""
        found = Givers("me", self.neighbours_of).mine(links, origin, source)
        before = self.asked
        assert givers.mine(links, origin, source) == found
        return self.asked > before


def test_what_was_found_is_remembered_as_long_as_the_links_are_the_same() -> None:
    graph: Graph = {"me": {"b", "c", "d"}, "a": {"b"}, "b": {"a", "me"}, "c": {"me"}, "d": {"me"}}
    records = Recorded(graph)
    givers = Givers("me", records.neighbours_of, lambda: records.version)
    for question in ((["b", "c"], "a", "b"), (["b", "c", "d"], "a", "b"), (["b", "c"], "b", "b")):
        assert [records.is_asked(givers, *question) for _ in range(3)] == [True, False, False]
    assert records.is_asked(givers, ["b", "c"], "a", "d")
    assert not records.is_asked(givers, ["b", "c"], "a", "b")
    graph["a"].add("c")
    graph["c"].add("a")
    records.version = 2
    assert records.is_asked(givers, ["b", "c"], "a", "b")
    assert not records.is_asked(givers, ["b", "c"], "a", "b")
    # who cannot tell whether they are the same remembers nothing
    forgetful = Givers("me", records.neighbours_of)
    assert all(records.is_asked(forgetful, ["b", "c"], "a", "b") for _ in range(3))


def test_so_much_is_remembered_and_no_more() -> None:
    records = Recorded({})
    givers = Givers("me", records.neighbours_of, lambda: 1)
    question = ["b"], "a", "c"
    assert records.is_asked(givers, *question)
    for number in range(MAX_REMEMBERED - 2):
        assert records.is_asked(givers, ["b"], f"o{number}", "c")
    assert not records.is_asked(givers, *question)
    assert records.is_asked(givers, ["b"], "c", "c")
    assert records.is_asked(givers, *question)
    assert not records.is_asked(givers, *question)


@pytest.mark.parametrize("seed", range(3))
def test_thirty_have_it_with_fewer_than_two_copies_each(seed: int) -> None:
    world = World(30, seed)
    rng = random.Random(seed)
    for one in range(30):
        for other in rng.sample([other for other in range(30) if other != one], 3):
            world.link(one, other)
    world.run(1)
    counts = [len(node.sent) for node in world.nodes.values()]
    world[0].publish(b"?")
    world.run(0.2)
    sent = [item for node, n in zip(world.nodes.values(), counts, strict=True) for item in node.sent[n:]]
    assert all(node.payloads(PEERS[0]) == [b"?"] for node in world.nodes.values())
    assert sum(isinstance(message, Bcast) for _, message in sent) <= 2 * 29
