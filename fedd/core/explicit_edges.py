"""A graph that somebody wrote down: edges, directed or not, with weights or without.

One row a line, `node, neighbor` or `node, neighbor, weight`: the node listens to the neighbour and mixes
its value with that weight; what is missing to one is the node's own. Empty lines and what follows a `#`
do not count. Both sides of an edge have to say so, unless the first row is the word `undirected` (each row
stands for both sides) or `directed` (each row is an arc from the neighbour to the node).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from fedd.api.errors import InvalidParameter
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.graph import Arc, Graph

EXPLICIT = "edges:"
"""How a topology begins whose edges are written out."""

MAX_TEXT_CHARS = 64 * 1024
"""About 550 rows of peer ids. It travels twice in a manifest, which may have 256 KiB."""

_SLACK = 1e-9
"""Weights are written with few digits: rows and columns may miss their sums by this."""

_MODES = ("neighbors", "undirected", "directed")


@dataclass(frozen=True)
class Row:
    """One row of the text, at its line (from 1). `weight` is None when the row has none."""

    line: int
    node: str
    neighbor: str
    weight: float | None

    @property
    def shown(self) -> str:
        """The row as error messages show it."""
        weight = "" if self.weight is None else f",{self.weight:g}"
        return f"row {self.line} ({self.node[:20]},{self.neighbor[:20]}{weight})"


def explicit_graph(text: str, members: tuple[PeerId, ...]) -> Graph:
    """The graph over sorted `members` that `text` describes, its nodes named by peer id.

    Raises InvalidParameter (field "topology"), naming the row: malformed, a weight that is not positive,
    a self-loop, a row twice, a stranger, an edge that one side alone lists, a member's weights above one, a
    column that does not sum to one (undirected: the mean would not be kept), members out of reach.
    """
    mode, rows = parse_edges(text)
    weighted = bool(rows) and rows[0].weight is not None
    weights: dict[Arc, float] = {}
    seen: dict[Arc, Row] = {}
    for row in rows:
        _check_row(row, rows[0], members)
        sides = [(row.neighbor, row.node)]
        if mode == "undirected":
            sides.append((row.node, row.neighbor))
        for arc in sides:
            if arc in seen:
                raise _refused(f"{row.shown} says again what {seen[arc].shown} said")
            seen[arc] = row
            if row.weight is not None:
                weights[arc] = row.weight
    if mode == "neighbors":
        _check_both_sides(seen)
    if weighted:
        _check_sums(members, weights, keep_mean=mode != "directed")
    graph = Graph(
        members,
        frozenset((min(arc), max(arc)) for arc in seen),
        (frozenset(seen),) if mode == "directed" else (),
        "explicit" if weighted else "metropolis",
        tuple((source, target, weights[source, target]) for source, target in sorted(weights)),
    )
    _check_reach(graph)
    return graph


def parse_edges(text: str) -> tuple[str, list[Row]]:
    """(mode, rows); the mode is neighbors, undirected or directed. Raises InvalidParameter with the row."""
    if len(text) > MAX_TEXT_CHARS:
        raise _refused(f"the edges have {len(text)} characters, {MAX_TEXT_CHARS} at most")
    mode = "neighbors"
    rows: list[Row] = []
    for line, words in _lines(text):
        if not rows and len(words) == 1 and words[0] in _MODES:
            mode = words[0]
            continue
        rows.append(_row(line, words))
    return mode, rows


def rename_edges(text: str, find: Callable[[str], PeerId]) -> str:
    """The same text with every node replaced by `find(node)`; lines keep their numbers.

    Raises InvalidParameter for a malformed row, and what `find` raises.
    """
    lines = [""] * (text.count("\n") + 1)
    for line, words in _lines(text):
        if len(words) == 1 and words[0] in _MODES:
            lines[line - 1] = words[0]
        else:
            row = _row(line, words)
            lines[line - 1] = ",".join([find(row.node), find(row.neighbor), *words[2:]])
    return "\n".join(lines)


def edge_nodes(text: str) -> list[str]:
    """Everybody who is named, sorted. Raises InvalidParameter for a malformed row."""
    _, rows = parse_edges(text)
    return sorted({name for row in rows for name in (row.node, row.neighbor)})


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    for line, written in enumerate(text.split("\n"), start=1):
        content = written.partition("#")[0].strip()
        if content:
            yield line, [word.strip() for word in content.split(",")]


def _row(line: int, words: list[str]) -> Row:
    if len(words) not in (2, 3) or not all(words):
        raise _refused(
            f"row {line} ({','.join(words):.60}) is not 'node, neighbor' or 'node, neighbor, weight'"
        )
    weight: float | None = None
    if len(words) == 3:
        try:
            weight = float(words[2])
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight > 0):
            raise _refused(f"row {line}: the weight {words[2]:.20} is no positive number")
    return Row(line, words[0], words[1], weight)


def _check_row(row: Row, first: Row, members: tuple[PeerId, ...]) -> None:
    if row.node == row.neighbor:
        raise _refused(
            f"{row.shown} is a self-loop",
            hint="leave it out: what is missing to one is the node's own weight",
        )
    for node in (row.node, row.neighbor):
        if node not in members:
            raise _refused(f"{row.shown} names {node[:60]}, who does not take part")
    if (row.weight is None) != (first.weight is None):
        raise _refused(f"{row.shown} and {first.shown}: either all rows have a weight or none")


def _check_both_sides(seen: Mapping[Arc, Row]) -> None:
    for (source, target), row in seen.items():
        if (target, source) not in seen:
            raise _refused(
                f"{row.shown} is one-sided: no row says that {source[:20]} listens to {target[:20]}",
                hint="add it, or begin the file with the word undirected or directed",
            )


def _check_sums(members: tuple[PeerId, ...], weights: Mapping[Arc, float], *, keep_mean: bool) -> None:
    rows = dict.fromkeys(members, 0.0)
    columns = dict.fromkeys(members, 0.0)
    for (source, target), weight in weights.items():
        rows[target] += weight
        columns[source] += weight
    for member in members:
        if rows[member] > 1 + _SLACK:
            raise _refused(
                f"the row of {member[:20]} is not stochastic: its neighbours' weights sum to "
                f"{rows[member]:.9g}",
                hint="they may sum to 1 at most; the rest is its own weight",
            )
        if keep_mean and abs(rows[member] - columns[member]) > _SLACK:
            raise _refused(
                f"the matrix is not doubly stochastic: the weights of {member[:20]} sum to "
                f"{rows[member]:.9g} in its row and to {columns[member]:.9g} in its column",
                hint="give both sides of an edge the same weight",
            )


def _check_reach(graph: Graph) -> None:
    if graph.is_strongly_connected():
        return
    reached = graph.reachable(graph.members[0]) if graph.members else frozenset()
    lost = [member for member in graph.members if member not in reached]
    if lost:
        raise _refused(
            f"the graph is disconnected: nothing leads from {graph.members[0][:20]} to {lost[0][:20]}"
        )
    raise _refused(
        "the directed graph is not strongly connected: some member cannot reach another along the arcs"
    )


def _refused(detail: str, hint: str = "") -> InvalidParameter:
    return InvalidParameter(detail, hint=hint, field="topology")
