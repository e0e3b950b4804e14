from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import InvalidParameter
from fedd.core import random_graphs
from fedd.core.graph import Graph
from fedd.core.topology import build, default_topology, metropolis_weights

MEMBERS = [f"p{i:02d}" for i in range(40)]

PINNED = [
    [0, 1],
    [0, 2],
    [0, 4],
    [0, 7],
    [1, 4],
    [1, 5],
    [1, 6],
    [2, 4],
    [2, 5],
    [2, 7],
    [3, 4],
    [3, 5],
    [3, 6],
    [3, 7],
    [5, 6],
    [6, 7],
]
PINNED_HASH = "d0d16ae4ccc7f902bcbe902056f759805bdaec57474402fa6441c05d93b04e4d"


def test_complete() -> None:
    graph = build("complete", ["c", "a", "b"], 0)
    assert graph.members == ("a", "b", "c")
    assert graph.edges == {("a", "b"), ("a", "c"), ("b", "c")}
    assert graph.neighbors("b") == ("a", "c")
    assert graph.degree("b") == 2
    assert graph.edge_indices() == [[0, 1], [0, 2], [1, 2]]
    assert graph.diameter() == 1


@pytest.mark.parametrize(
    ("count", "edges", "diameter"), [(1, 0, 0), (2, 1, 1), (3, 3, 1), (5, 5, 2), (8, 8, 4)]
)
def test_ring(count: int, edges: int, diameter: int) -> None:
    graph = build("ring", MEMBERS[:count], 7)
    assert len(graph.edges) == edges
    assert graph.diameter() == diameter
    assert graph.is_connected()


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 30), degree=st.integers(1, 12), seed=st.integers(0, 2**63))
def test_random_regular_is_regular_and_connected(count: int, degree: int, seed: int) -> None:
    name = f"random-regular:{degree}"
    if degree < count - 1 and (degree == 1 or degree * count % 2):
        with pytest.raises(InvalidParameter) as caught:
            build(name, MEMBERS[:count], seed)
        assert caught.value.field == "topology"
        return
    graph = build(name, MEMBERS[:count], seed)
    assert graph.is_connected()
    assert {graph.degree(member) for member in graph.members} == {min(degree, count - 1)}
    assert graph == build(name, reversed(MEMBERS[:count]), seed)


def test_the_drawn_graph_never_changes_between_versions() -> None:
    graph = build("random-regular:4", MEMBERS[:8], 42)
    assert graph.edge_indices() == PINNED
    assert graph.adjacency_hash().hex() == PINNED_HASH


def test_the_seed_decides() -> None:
    drawn = {build("random-regular:3", MEMBERS[:12], seed).adjacency_hash() for seed in range(8)}
    assert len(drawn) == 8


def test_plain_and_steger_wormald_agree_on_every_labelled_ring() -> None:
    """All 12 labelled rings of 5 nodes come up: no bias that hides a graph."""
    assert len({build("random-regular:2", MEMBERS[:5], seed).edges for seed in range(200)}) == 12


@pytest.mark.parametrize(
    "name",
    [
        *("tours", "", "complete:2", "ring@", "ring@heavy", "@lazy"),
        *(f"random-regular{text}" for text in ("", ":", ":0", ":-2", ":x", ":99999", ":\u00b2")),
        *(
            f"erdos-renyi{text}"
            for text in (
                "",
                ":",
                ":1.5",
                ":-0.1",
                ":nan",
                ":0.5000000001",
                ":x",
                ":0.",
                ":.",
                ":1e-3",
                ":00.5",
            )
        ),
        *(f"watts-strogatz{text}" for text in ("", ":2", ":3:0.1", ":0:0.1", ":x:0.1", ":4:2")),
    ],
)
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        build(name, MEMBERS[:6], 0)
    assert caught.value.field == "topology"
    assert caught.value.hint


def edges_of(name: str, count: int, seed: int = 0) -> list[list[int]]:
    return build(name, MEMBERS[:count], seed).edge_indices()


def test_star_and_line() -> None:
    assert edges_of("star", 4) == [[0, 1], [0, 2], [0, 3]]
    assert edges_of("line", 4) == [[0, 1], [1, 2], [2, 3]]


@pytest.mark.parametrize(
    ("name", "count", "edges", "degrees", "diameter"),
    [
        ("grid", 12, 17, {2, 3, 4}, 5),
        ("grid", 4, 4, {2}, 2),
        ("grid", 3, 2, {1, 2}, 2),
        ("torus", 12, 24, {4}, 3),
        ("torus", 6, 9, {3}, 2),
        ("torus", 2, 1, {1}, 1),
        ("torus", 16, 32, {4}, 4),
        ("hypercube", 1, 0, {0}, 0),
        ("hypercube", 8, 12, {3}, 3),
        ("hypercube", 16, 32, {4}, 4),
        ("exponential", 2, 1, {1}, 1),
        ("exponential", 8, 20, {5}, 2),
        ("exponential", 16, 56, {7}, 2),
        ("exponential", 6, 12, {4}, 2),
    ],
)
def test_regular_shapes(name: str, count: int, edges: int, degrees: set[int], diameter: int) -> None:
    graph = build(name, MEMBERS[:count], 0)
    assert len(graph.edges) == edges
    assert {graph.degree(member) for member in graph.members} == degrees
    assert graph.diameter() == diameter


def test_an_exponential_graph_links_powers_of_two() -> None:
    near_0 = build("exponential", MEMBERS[:16], 0).neighbors(MEMBERS[0])
    assert near_0 == tuple(MEMBERS[i] for i in (1, 2, 4, 8, 12, 14, 15))


@pytest.mark.parametrize(
    ("name", "count", "reason"),
    [("grid", 7, "prime"), ("torus", 5, "prime"), ("hypercube", 6, "power of two")],
)
def test_shapes_that_a_number_of_members_does_not_have(name: str, count: int, reason: str) -> None:
    with pytest.raises(InvalidParameter, match=reason) as caught:
        build(name, MEMBERS[:count], 0)
    assert caught.value.field == "topology"


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 24), seed=st.integers(0, 2**63))
def test_drawn_graphs_are_connected_and_repeatable(count: int, seed: int) -> None:
    for name in ("erdos-renyi:0.7", "watts-strogatz:4:0.2"):
        try:
            graph = build(name, MEMBERS[:count], seed)
        except InvalidParameter:
            assert count < 6  # few members are often not connected
            continue
        assert graph.is_connected()
        assert graph == build(name, reversed(MEMBERS[:count]), seed)


def test_the_probability_decides_how_many_edges() -> None:
    assert len(edges_of("erdos-renyi:1", 10)) == len(edges_of("erdos-renyi:1.000000000", 10)) == 45
    assert len(edges_of("erdos-renyi:.999999999", 10)) == 45
    with pytest.raises(InvalidParameter, match="no connected graph erdos-renyi:0 of 10 members in 16 tries"):
        edges_of("erdos-renyi:0", 10)
    mean = sum(len(edges_of("erdos-renyi:0.5", 20, seed)) for seed in range(40)) / 40
    assert 90 < mean < 100  # 95 expected, standard deviation of the mean 1.1


def test_a_small_world_keeps_its_edges_and_moves_some() -> None:
    lattice = edges_of("watts-strogatz:4:0", 20)
    assert {tuple(edge) for edge in lattice} == {
        (min(i, j), max(i, j)) for i in range(20) for j in ((i + 1) % 20, (i + 2) % 20)
    }
    moved = [sum(e not in lattice for e in edges_of("watts-strogatz:4:0.25", 20, s)) for s in range(40)]
    assert all(len(edges_of("watts-strogatz:4:1", 20, seed)) == 40 for seed in range(5))
    assert 8 < sum(moved) / 40 < 12  # 10 of 40 edges
    assert edges_of("watts-strogatz:6:0.1", 6) == edges_of("complete", 6)


def test_an_edge_with_nowhere_to_go_stays() -> None:
    everybody = {(low, high) for low in range(5) for high in range(low + 1, 5)}
    assert random_graphs._rewired(5, 4, 10**9, lambda below: 0) == everybody


@pytest.mark.parametrize("name", ["erdos-renyi:0.5", "watts-strogatz:4:0.5"])
def test_pairs_are_drawn_for_few_members_only(name: str) -> None:
    with pytest.raises(InvalidParameter, match="too many pairs"):
        build(name, [f"m{index:04d}" for index in range(257)], 0)


def test_a_small_world_may_never_be_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_graphs, "_rewired", lambda count, degree, chance, draw: set())
    with pytest.raises(InvalidParameter, match="no connected graph") as caught:
        build("watts-strogatz:2:1", MEMBERS[:9], 0)
    assert "smaller P" in caught.value.hint


def test_member_bounds() -> None:
    with pytest.raises(InvalidParameter, match="between 1 and 4096 members, not 0"):
        build("ring", [], 0)
    with pytest.raises(InvalidParameter, match="not 4097"):
        build("ring", map(str, range(4097)), 0)


def test_gives_up_after_many_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_graphs, "_pairing", lambda count, degree, draw: None)
    with pytest.raises(InvalidParameter, match="no connected graph"):
        build("random-regular:2", MEMBERS[:5], 0)


def test_a_graph_that_costs_seconds_is_refused() -> None:
    many = [f"m{index:04d}" for index in range(640)]
    with pytest.raises(InvalidParameter, match="too many to draw") as caught:
        build("random-regular:320", many, 0)
    assert "random-regular:31" in caught.value.hint
    with pytest.raises(InvalidParameter, match="no connected graph"):
        build("random-regular:138", many[:140], 0)  # nearly complete: pairings get stuck


def test_default_topology() -> None:
    assert [default_topology(n) for n in (1, 5, 6, 30)] == ["complete", "complete"] + ["random-regular:4"] * 2


@pytest.mark.parametrize(
    ("members", "edges"),
    [(("b", "a"), []), (("a", "a"), []), (("a", "b"), [("b", "a")]), (("a", "b"), [("a", "a")]),
     (("a", "b"), [("a", "c")]), (("b",), [("a", "b")])],
)  # fmt: skip
def test_a_graph_refuses_what_is_none(members: tuple[str, ...], edges: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidParameter):
        Graph(members, frozenset(edges))


def test_reachable_without_members_and_edges() -> None:
    ring = build("ring", "abcdef", 0)
    assert ring.reachable("a") == set("abcdef")
    assert ring.reachable("a", without="c") == set("abdef")
    assert ring.reachable("a", without="ce") == set("abf")
    assert ring.reachable("a", without="c", cut=[("e", "f")]) == set("abf")
    assert ring.neighbors("nobody") == ()


def test_a_disconnected_graph_has_no_diameter() -> None:
    graph = Graph(("a", "b"), frozenset())
    assert not graph.is_connected()
    assert not Graph((), frozenset()).is_connected()
    with pytest.raises(InvalidParameter, match="not connected"):
        graph.diameter()


def test_the_hash_tells_graphs_apart() -> None:
    graphs = [build("ring", "abcd", 0), build("complete", "abcd", 0), build("ring", "abcde", 0)]
    assert len({graph.adjacency_hash() for graph in graphs}) == 3
    assert all(len(graph.adjacency_hash()) == 32 for graph in graphs)


@settings(max_examples=50, deadline=None)
@given(count=st.integers(2, 15), seed=st.integers(0, 99))
def test_metropolis_weights_are_symmetric_and_leave_something_for_the_node(count: int, seed: int) -> None:
    graph = build("random-regular:2", MEMBERS[:count], seed)
    edges = graph.edges | {(MEMBERS[0], other) for other in MEMBERS[1:count:2]}
    uneven = Graph(graph.members, frozenset(edges))
    weights = {
        member: metropolis_weights(
            uneven.degree(member), {near: uneven.degree(near) for near in uneven.neighbors(member)}
        )
        for member in uneven.members
    }
    for member, mine in weights.items():
        assert list(mine) == sorted(mine)
        assert 0 < 1 - sum(mine.values()) < 1
        assert all(weights[near][member] == weight for near, weight in mine.items())
