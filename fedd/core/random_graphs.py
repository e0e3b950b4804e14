"""Random graphs, drawn by integers from a SHA-256 stream: the same edges on every machine for one seed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator

from fedd.api.errors import InvalidParameter
from fedd.api.types import PeerId
from fedd.core.graph import Graph

_MAX_POINTS = 20_000
"""Members times neighbours of a random graph. Every member derives it before the run: 0.1 s a pairing, on the
loop that also answers heartbeats, whoever sent the manifest."""

_MAX_PAIRED = 1 << 19
"""Points of all pairings together before giving up: 3 s at the worst. At K = 2, the least likely to connect,
about sqrt(n) pairings are needed, which 1000 members have four times over."""


_MAX_PAIRS = 1 << 16
"""Members squared of a graph whose pairs are drawn one by one: 256 members, about 30 ms a try on the daemon's
loop, and half a second for all tries."""

_SCALE = 10**9
"""Probabilities are whole billionths: no floating point decides an edge."""

_TRIES = 16
"""Of a graph whose edges are independent, before giving up: one that is connected with probability 0.6 fails
in all of them once in two million."""


def complete_graph(members: tuple[PeerId, ...]) -> Graph:
    """Everybody with everybody."""
    return Graph(members, frozenset(itertools.combinations(members, 2)))


def random_regular(name: str, argument: str, members: tuple[PeerId, ...], seed: int) -> Graph:
    """Draw pairings until one is simple and connected.

    Source: A. Steger, N. Wormald, "Generating random regular graphs quickly", Combinatorics,
    Probability and Computing 8 (1999): points are paired one by one and unsuitable pairs passed over,
    which stays fast for K where the plain pairing model hardly ever gives a simple graph.
    """
    count = len(members)
    if not argument.isascii() or not argument.isdigit() or len(argument) > 4 or int(argument) < 1:
        raise InvalidParameter(
            f"{name!r} does not say how many neighbours", hint="as in random-regular:4", field="topology"
        )
    degree = int(argument)
    if degree >= count - 1:
        return complete_graph(members)
    if degree * count % 2:
        raise InvalidParameter(
            f"no graph gives {degree} neighbours to each of {count} members: {degree} x {count} is odd",
            hint=f"use random-regular:{degree + 1} or another number of members",
            field="topology",
        )
    if degree == 1:
        raise InvalidParameter(
            f"with one neighbour each, {count} members are not connected",
            hint="use random-regular:2 or more",
            field="topology",
        )
    if degree * count > _MAX_POINTS:
        raise InvalidParameter(
            f"{name} of {count} members has {degree * count // 2} edges, too many to draw at random",
            hint=f"use up to random-regular:{_MAX_POINTS // count}, or complete",
            field="topology",
        )
    draw = _integers(f"{name}\n{count}\n{seed}")
    tries = _MAX_PAIRED // (degree * count)
    for _ in range(tries):
        pairs = _pairing(count, degree, draw)
        if pairs is not None:
            graph = Graph(members, frozenset((members[low], members[high]) for low, high in pairs))
            if graph.is_connected():
                return graph
    raise _never_connected(name, count, tries, "more neighbours")


def erdos_renyi(name: str, argument: str, members: tuple[PeerId, ...], seed: int) -> Graph:
    """Every pair is an edge with probability P, drawn until the graph is connected.

    Source: E. N. Gilbert, "Random graphs", Annals of Mathematical Statistics 30 (1959).
    """
    count = len(members)
    chance = _billionths(name, argument)
    _check_pairs(name, count)
    draw = _integers(f"{name}\n{count}\n{seed}")
    for _ in range(_TRIES):
        edges = [pair for pair in itertools.combinations(members, 2) if draw(_SCALE) < chance]
        graph = Graph(members, frozenset(edges))
        if graph.is_connected():
            return graph
    raise _never_connected(name, count, _TRIES, "a larger P")


def watts_strogatz(name: str, argument: str, members: tuple[PeerId, ...], seed: int) -> Graph:
    """A ring on which each has K neighbours, K / 2 on each side; then each edge moves with probability P.

    Edges move one lap after the other, the nearest first; one end stays, the other goes to a member that is
    no neighbour yet. Drawn until the graph is connected.

    Source: D. Watts, S. Strogatz, "Collective dynamics of small-world networks", Nature 393 (1998).
    """
    count = len(members)
    first, _, second = argument.partition(":")
    if not first.isascii() or not first.isdigit() or len(first) > 4 or int(first) < 2 or int(first) % 2:
        raise InvalidParameter(
            f"{name!r} does not say how many neighbours, an even number",
            hint="as in watts-strogatz:4:0.2",
            field="topology",
        )
    degree, chance = int(first), _billionths(name, second)
    if degree >= count - 1:
        return complete_graph(members)
    _check_pairs(name, count)
    draw = _integers(f"{name}\n{count}\n{seed}")
    for _ in range(_TRIES):
        edges = _rewired(count, degree, chance, draw)
        graph = Graph(members, frozenset((members[low], members[high]) for low, high in edges))
        if graph.is_connected():
            return graph
    raise _never_connected(name, count, _TRIES, "a smaller P")


def _rewired(count: int, degree: int, chance: int, draw: Callable[[int], int]) -> set[tuple[int, int]]:
    edges = {
        _ordered(here, (here + lap) % count) for lap in range(1, degree // 2 + 1) for here in range(count)
    }
    for lap in range(1, degree // 2 + 1):
        for here in range(count):
            if draw(_SCALE) >= chance:
                continue
            free = [other for other in range(count) if other != here and _ordered(here, other) not in edges]
            if free:
                edges.discard(_ordered(here, (here + lap) % count))
                edges.add(_ordered(here, free[draw(len(free))]))
    return edges


def _ordered(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)


def _billionths(name: str, text: str) -> int:
    """A probability written as a decimal number with at most nine places, in billionths."""
    whole, point, places = text.partition(".")
    digits = whole + places
    if not (digits.isascii() and digits.isdigit() and len(whole) <= 1 and len(places) <= 9):
        whole, places = "2", ""
    chance = int(whole or "0") * _SCALE + int(places.ljust(9, "0"))
    if chance > _SCALE or (point and not places):
        raise InvalidParameter(
            f"{name!r} does not say with which probability, from 0 to 1", hint="as in 0.3", field="topology"
        )
    return chance


def _check_pairs(name: str, count: int) -> None:
    if count * count > _MAX_PAIRS:
        raise InvalidParameter(
            f"{name} of {count} members has too many pairs to draw",
            hint="use random-regular:K",
            field="topology",
        )


def _never_connected(name: str, count: int, tries: int, remedy: str) -> InvalidParameter:
    return InvalidParameter(
        f"no connected graph {name} of {count} members in {tries} tries",
        hint=f"use another seed or {remedy}",
        field="topology",
    )


def _pairing(count: int, degree: int, draw: Callable[[int], int]) -> set[tuple[int, int]] | None:
    """One pairing of `degree` points a member into a simple graph; None when it got stuck."""
    pairs: set[tuple[int, int]] = set()
    points = [member for member in range(count) for _ in range(degree)]
    while points:
        left_over: list[int] = []
        _shuffle(points, draw)
        for one, other in zip(points[::2], points[1::2], strict=True):
            pair = (one, other) if one < other else (other, one)
            if one == other or pair in pairs:
                left_over += pair
            else:
                pairs.add(pair)
        if left_over and not _some_pair_fits(left_over, pairs):
            return None
        points = left_over
    return pairs


def _some_pair_fits(points: list[int], pairs: set[tuple[int, int]]) -> bool:
    distinct = sorted(set(points))
    return any(
        (low, high) not in pairs for position, low in enumerate(distinct) for high in distinct[position + 1 :]
    )


def _shuffle(values: list[int], draw: Callable[[int], int]) -> None:
    """Fisher-Yates."""
    for last in range(len(values) - 1, 0, -1):
        chosen = draw(last + 1)
        values[last], values[chosen] = values[chosen], values[last]


def _integers(label: str) -> Callable[[int], int]:
    """A function `draw(below)` that gives uniform integers from the SHA-256 stream of `label`."""

    def words() -> Iterator[int]:
        counter = 0
        while True:
            block = hashlib.sha256(f"fedd/topology/1\n{label}\n{counter}".encode()).digest()
            yield from (int.from_bytes(block[at : at + 8]) for at in range(0, 32, 8))
            counter += 1

    stream = words()

    def draw(below: int) -> int:
        fair = (1 << 64) - (1 << 64) % below  # beyond it the remainder would favour small numbers
        return next(word for word in stream if word < fair) % below

    return draw
