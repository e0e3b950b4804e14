"""Who is out when edges are cut: those to whom no path is left, and in directed graphs whom nobody hears."""

from __future__ import annotations

from fedd.core.cut_edges import lost_by_cuts
from fedd.core.graph import Graph
from fedd.core.topology import build

NAMES = ["a", "b", "c", "d", "e"]


def test_one_end_of_an_edge_puts_nobody_out() -> None:
    ring = build("ring", NAMES, 0)
    near, far = ring.neighbors("a")
    assert lost_by_cuts(ring, "a", (), []) == frozenset()
    assert lost_by_cuts(ring, "a", (), [("a", near)]) == frozenset()
    assert lost_by_cuts(ring, near, (), [(near, "a"), (far, "a")]) == {"a"}
    assert lost_by_cuts(ring, "a", (), [(near, "a"), ("a", far)]) == {*NAMES} - {"a"}


def test_the_gone_carry_no_path_and_are_not_told_again() -> None:
    line = Graph(tuple(NAMES), frozenset({("a", "b"), ("b", "c"), ("c", "d"), ("d", "e")}))
    assert lost_by_cuts(line, "a", {"b"}, []) == {"c", "d", "e"}
    assert lost_by_cuts(line, "a", {"e"}, [("d", "c")]) == {"d"}


def test_whom_nobody_hears_is_out_although_it_hears_others() -> None:
    graph = build("directed-exponential", NAMES, 0)
    hearers = graph.out_neighbors("c")
    assert {*hearers} < {*graph.neighbors("c")}
    cuts = [(peer, "c") for peer in hearers]
    assert lost_by_cuts(graph, "a", (), cuts[1:]) == frozenset()
    assert lost_by_cuts(graph, "a", (), cuts) == {"c"}
    assert lost_by_cuts(graph, "a", {hearers[0]}, cuts[1:]) == {"c"}
    assert lost_by_cuts(graph, "a", {"c"}, cuts) == frozenset()
    assert "c" not in lost_by_cuts(graph, "c", (), cuts)
    assert lost_by_cuts(graph, "a", {*hearers}, [("a", "b")]) == frozenset()
