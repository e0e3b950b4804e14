"""Arcs, phases, weights: what a graph says about them, and how it travels."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import InvalidParameter
from fedd.core.graph import Graph
from fedd.core.mixing import mixing_matrix, neighbor_weights
from fedd.core.topology import build

MEMBERS = [f"p{i:02d}" for i in range(64)]


def test_a_directed_ring_goes_one_way_over_the_edges_of_a_ring() -> None:
    graph = build("directed-ring", MEMBERS[:5], 0)
    assert graph.edges == build("ring", MEMBERS[:5], 0).edges
    assert graph.directed
    assert graph.period == 1
    assert graph.out_neighbors("p00") == ("p01",)
    assert graph.in_neighbors("p00") == ("p04",)
    assert graph.neighbors("p00") == ("p01", "p04")
    assert graph.arcs(7) == graph.arcs(0) == {(f"p0{i}", f"p0{(i + 1) % 5}") for i in range(5)}
    assert graph.is_strongly_connected()
    assert graph.out_neighbors("nobody") == graph.in_neighbors("nobody") == ()


def test_an_undirected_graph_hears_whom_it_speaks_to() -> None:
    graph = build("line", MEMBERS[:3], 0)
    assert not graph.directed
    assert graph.out_neighbors("p01", 4) == graph.in_neighbors("p01", 4) == ("p00", "p02")
    assert graph.arcs() == {("p00", "p01"), ("p01", "p00"), ("p01", "p02"), ("p02", "p01")}
    assert graph.is_strongly_connected()


def test_directed_exponential_sends_to_powers_of_two() -> None:
    graph = build("directed-exponential", MEMBERS[:12], 0)
    assert graph.out_neighbors("p10") == ("p00", "p02", "p06", "p11")  # 10 + 2, 4, 8, 1 round the circle
    assert graph.edges == build("exponential", MEMBERS[:12], 0).edges


def test_one_peer_exponential_takes_the_powers_in_turn() -> None:
    graph = build("one-peer-exponential", MEMBERS[:8], 0)
    assert graph.period == 3
    assert ("p00", "p02") in graph.arcs(1) == graph.arcs(4) != graph.arcs(0)
    assert [graph.out_neighbors("p01", round) for round in range(4)] == [
        ("p02",),
        ("p03",),
        ("p05",),
        ("p02",),
    ]
    assert [graph.in_neighbors("p01", round) for round in range(3)] == [("p00",), ("p07",), ("p05",)]
    assert build("one-peer-exponential", MEMBERS[:1], 0).period == 1


def test_the_hash_tells_directions_rules_and_weights_apart() -> None:
    names = [
        "ring",
        "directed-ring",
        "ring@lazy",
        "ring@uniform",
        "edges:undirected\np00,p01\np01,p02\np00,p02",
    ]
    weighted = [f"edges:undirected\np00,p01,{w}\np01,p02,0.2\np00,p02,0.2" for w in ("0.2", "0.25")]
    graphs = [build(name, MEMBERS[:3], 0) for name in (*names, *weighted)]
    # Three nodes in a ring written down or by name are one graph; all others differ.
    assert graphs[0] == graphs[4]
    assert len({graph.adjacency_hash() for graph in graphs}) == len(graphs) - 1


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(
        [
            "ring@lazy",
            "star",
            "directed-ring",
            "directed-exponential",
            "one-peer-exponential",
            "complete@uniform",
        ]
    ),
    count=st.integers(1, 20),
)
def test_a_graph_travels_as_indices(name: str, count: int) -> None:
    graph = build(name, MEMBERS[:count], 3)
    document = graph.document()
    assert Graph.read(MEMBERS[:count], {"members": MEMBERS, **document}) == graph
    assert ("arcs" in document) == graph.directed


def test_weights_travel_too() -> None:
    graph = build("edges:directed\np00,p01,0.5\np01,p00,0.25", MEMBERS[:2], 0)
    assert graph.document()["weights"] == [[0, 1, 0.25], [1, 0, 0.5]]
    assert Graph.read(MEMBERS[:2], graph.document()) == graph
    assert graph.weight("p01", "p00") == 0.5
    assert graph.weight("p00", "p00") == 0.0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"phases": (frozenset({("a", "c")}),)}, "a -> c lies on no edge"),
        ({"rule": "heavy"}, "heavy"),
        ({"rule": "explicit"}, "0 weights"),
        ({"weights": (("a", "b", 0.5),)}, "1 weights by the rule 'metropolis'"),
        ({"rule": "explicit", "weights": (("a", "b", 0.5),)}, "one for every arc"),
        (
            {
                "rule": "explicit",
                "phases": (frozenset({("a", "b")}), frozenset({("b", "a")})),
                "weights": (("a", "b", 0.5),),
            },
            "in every round",
        ),
    ],
)
def test_a_graph_that_makes_no_sense_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        Graph(("a", "b", "c"), frozenset({("a", "b"), ("b", "c")}), **fields)


def test_strongly_connected_needs_a_way_back() -> None:
    edges = frozenset({("a", "b"), ("b", "c")})
    there = Graph(("a", "b", "c"), edges, (frozenset({("a", "b"), ("b", "c")}),))
    assert there.is_connected()
    assert not there.is_strongly_connected()
    back = Graph(("a", "b", "c"), edges, (frozenset({("c", "b"), ("b", "a")}),))
    assert not back.is_strongly_connected()
    assert not Graph((), frozenset(), (frozenset(),)).is_strongly_connected()
    in_turn = Graph(("a", "b", "c"), edges, (*there.phases, *back.phases))
    assert in_turn.is_strongly_connected()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["ring", "star", "erdos-renyi:0.6", "grid", "watts-strogatz:4:0.3"]),
    rule=st.sampled_from(["", "@lazy", "@uniform"]),
    count=st.sampled_from([4, 6, 9, 12]),
    seed=st.integers(0, 1000),
)
def test_the_matrix_of_an_undirected_graph_is_symmetric_and_stochastic(
    name: str, rule: str, count: int, seed: int
) -> None:
    matrix = mixing_matrix(build(name + rule, MEMBERS[:count], seed))
    for i, row in enumerate(matrix):
        assert sum(row) == pytest.approx(1, abs=1e-15)
        assert all(weight >= -1e-15 for weight in row)
        assert row[i] >= (0.5 if rule == "@lazy" else 0.0) - 1e-15
        assert all(row[j] == matrix[j][i] for j in range(count) if j != i)


@pytest.mark.parametrize("count", [2, 8, 13])
@pytest.mark.parametrize("name", ["directed-ring", "directed-exponential", "one-peer-exponential"])
def test_the_named_directed_graphs_keep_the_mean(name: str, count: int) -> None:
    graph = build(name, MEMBERS[:count], 0)
    for round in range(graph.period):
        matrix = mixing_matrix(graph, round)
        assert [sum(column) for column in zip(*matrix, strict=True)] == pytest.approx([1.0] * count)


def test_weights_after_a_loss() -> None:
    line = build("line", MEMBERS[:4], 0)
    assert neighbor_weights(line, "p01") == {"p00": 1 / 3, "p02": 1 / 3}
    assert neighbor_weights(line, "p01", gone=("p03",)) == {"p00": 1 / 3, "p02": 1 / 3}
    assert neighbor_weights(line, "p01", present=("p00",), gone=("p02",)) == {"p00": 1 / 2}
    uniform = build("star@uniform", MEMBERS[:4], 0)
    assert neighbor_weights(uniform, "p01", gone=("p02",)) == {"p00": 1 / 4}
    written = build("edges:undirected\np00,p01,0.3\np01,p02,0.4", MEMBERS[:3], 0)
    assert neighbor_weights(written, "p01", gone=("p02",)) == {"p00": 0.3}
    one_way = build("directed-exponential@lazy", MEMBERS[:4], 0)
    assert neighbor_weights(one_way, "p00") == {"p02": 1 / 6, "p03": 1 / 6}
