"""Edges that somebody wrote down: taken as they are meant, or refused with the row."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import InvalidParameter, NotFound
from fedd.core.explicit_edges import MAX_TEXT_CHARS, edge_nodes, parse_edges, rename_edges
from fedd.core.graph import Graph
from fedd.core.mixing import mixing_matrix
from fedd.core.topology import build


def graph(text: str, members: str = "abc") -> Graph:
    return build(f"edges:{text}", list(members), 0)


def test_neighbors_and_weights_of_every_node() -> None:
    """As a configuration that lists each node's neighbours with their weights; the rest is its own."""
    found = graph("a,b,0.3\nb,a,0.3\nb,c,0.2\nc,b,0.2")
    assert found.edges == {("a", "b"), ("b", "c")}
    assert found.rule == "explicit"
    assert not found.directed
    assert mixing_matrix(found) == [
        pytest.approx([0.7, 0.3, 0.0]),
        pytest.approx([0.3, 0.5, 0.2]),
        pytest.approx([0.0, 0.2, 0.8]),
    ]


def test_without_weights_they_are_metropolis() -> None:
    found = graph("undirected\na,b\nb,c")
    assert found == build("line", ["a", "b", "c"], 0)
    assert found.rule == "metropolis"


def test_arcs_go_from_the_neighbor_to_the_node() -> None:
    found = graph("directed\nb,a\nc,b\na,c")
    assert found.arcs() == {("a", "b"), ("b", "c"), ("c", "a")}
    assert found == build("directed-ring", ["a", "b", "c"], 0)
    weighted = graph("directed\nb,a,.5\nc,b,.4\na,c,.25")
    assert weighted.weight("a", "b") == 0.5
    assert mixing_matrix(weighted)[1] == [0.5, 0.5, 0.0]


def test_comments_and_empty_lines_keep_the_numbers_of_the_lines() -> None:
    with pytest.raises(InvalidParameter, match=r"row 5 \(b,d\) names d"):
        graph("# my plant\n\n undirected # both ways\na , b\nb,d")


def test_one_node_needs_no_edge() -> None:
    assert graph("", "a") == build("ring", ["a"], 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a", r"row 1 \(a\) is not"),
        ("a,b\ndirected", r"row 2 \(directed\) is not"),
        ("a,b,c,d", "row 1"),
        ("a,", "row 1"),
        ("a,b,heavy", "row 1: the weight heavy"),
        ("a,b,0", "row 1: the weight 0"),
        ("a,b,-0.1", "row 1: the weight -0.1"),
        ("a,b,nan", "row 1: the weight nan"),
        ("undirected\na,b\nb,b", r"row 3 \(b,b\) is a self-loop"),
        ("undirected\na,b\nb,a", r"row 3 \(b,a\) says again what row 2 \(a,b\) said"),
        ("a,b\na,b", "row 2"),
        ("undirected\na,b,0.5\nb,c", r"row 3 \(b,c\) and row 2 \(a,b,0.5\): either all"),
        ("a,b\nb,a\nb,c", r"row 3 \(b,c\) is one-sided: no row says that c listens to b"),
        ("undirected\na,b,0.6\na,c,0.6", "row of a is not stochastic: .* sum to 1.2"),
        ("a,b,.3\nb,a,.2\nb,c,.2\nc,b,.2", "not doubly stochastic: the weights of a sum to 0.3 in its row"),
        ("undirected\na,b", "disconnected: nothing leads from a to c"),
        ("", "disconnected: nothing leads from a to b"),
        ("directed\nb,a\nc,b\na,b", "not strongly connected"),
    ],
)
def test_what_is_no_graph_is_refused_with_the_row(text: str, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said) as caught:
        graph(text)
    assert caught.value.field == "topology"


def test_too_much_text_is_refused() -> None:
    with pytest.raises(InvalidParameter, match=str(MAX_TEXT_CHARS)):
        graph("# " + "x" * MAX_TEXT_CHARS)


def test_names_become_peer_ids_and_rows_stay_where_they_are() -> None:
    ids = {"pump": "12D3a", "valve": "12D3b"}
    text = "# plant\nundirected\n\npump, valve, 0.25 # the main line"
    renamed = rename_edges(text, ids.__getitem__)
    assert renamed == "\nundirected\n\n12D3a,12D3b,0.25"
    assert edge_nodes(renamed) == ["12D3a", "12D3b"]

    def unknown(name: str) -> str:
        raise NotFound(f"nobody here is called {name}")

    with pytest.raises(NotFound, match="pump"):
        rename_edges(text, unknown)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="abc,.0159-\n #directun", max_size=60))
def test_any_text_is_a_graph_or_refused(text: str) -> None:
    try:
        found = graph(text)
    except InvalidParameter:
        return
    assert found.is_strongly_connected()
    assert len(parse_edges(text)[1]) >= 2
