"""Reduce: every message exactly once, the same on all survivors, whoever dies in whichever exchange."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worker.test_context import Script, context, everywhere, good

from fedd.api import Message, RunContext
from fedd.core import codec
from fedd.core.graph import Graph
from fedd.core.topology import build
from fedd.testing import Federation, Kill, NodeResult
from fedd.worker.port import Round
from fedd.worker.reduction import tree_of


def total(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return dict(Counter(one) + Counter(other))


def check(federation: Federation, results: list[NodeResult], reductions: int) -> None:
    """All survivors of a component hold the same, each contributor once, themselves among them."""
    survivors = {result.peer_id: result for result in results if not result.killed}
    dead = [result.peer_id for result in results if result.killed]
    good(results)
    for peer, result in survivors.items():
        value: Any = result.value
        assert len(value) == reductions
        for counts, contributors in value:
            assert counts == dict.fromkeys(contributors, 1)
            assert {*contributors} >= federation.graph.reachable(peer, without=dead)
        for other in federation.graph.reachable(peer, without=dead):
            assert survivors[other].value == value


def reduce_often(reductions: int) -> Any:
    async def work(ctx: RunContext) -> Message:
        found = []
        for number in range(reductions):
            merged = await ctx.reduce({ctx.me: 1}, total, f"{number}")
            found.append([merged.value, list(merged.contributors)])
        return found

    return work


@st.composite
def schedules(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]], list[Kill]]:
    count = draw(st.integers(2, 7))
    edges = {(draw(st.integers(0, index - 1)), index) for index in range(1, count)}  # a tree, and chords
    for _ in range(draw(st.integers(0, 6))):
        low = draw(st.integers(0, count - 2))
        edges.add((low, draw(st.integers(low + 1, count - 1))))
    nodes = draw(st.lists(st.integers(0, count - 1), max_size=count - 1, unique=True))
    kills = [
        Kill(
            node,
            draw(st.integers(0, 5 * count)),
            draw(st.lists(st.integers(0, count - 1), max_size=count, unique=True)),
        )
        for node in nodes
    ]
    return count, sorted(edges), kills


@settings(max_examples=60, deadline=None)
@given(schedule=schedules(), seed=st.integers(0, 1000))
def test_it_is_right_whoever_dies_whenever(
    schedule: tuple[int, list[tuple[int, int]], list[Kill]], seed: int
) -> None:
    count, edges, kills = schedule
    federation = Federation(
        count, topology=edges, kills=kills, seed=seed, quorum=1, latency_s=(0.001, 2.0), detection_s=1.0
    )
    check(federation, everywhere(federation, reduce_often(3)), 3)


@pytest.mark.parametrize(("topology", "node"), [("complete", 0), ("ring", 1), ("line", 1)])
def test_a_death_in_every_exchange(topology: str, node: int) -> None:
    for round in range(12):
        for reaches in ("none", "one", "some", "all"):
            federation = Federation(5, topology=topology, kills=[Kill(node, round, reaches)], quorum=1)
            check(federation, everywhere(federation, reduce_often(2)), 2)


def test_how_many_exchanges_it_takes() -> None:
    """Up and down; once more when somebody is missing for the first time; then the tree is without it."""

    async def work(ctx: RunContext) -> Message:
        rounds = []
        for _ in range(4):
            before = ctx.round
            await ctx.reduce(1, lambda one, other: one + other)
            rounds.append(ctx.round - before)
        return rounds

    assert good(everywhere(Federation(6, topology="complete"), work))[0] == [8, 8, 8, 8]
    assert good(everywhere(Federation(6, topology="line"), work))[0] == [16, 16, 16, 16]
    killed = Federation(6, topology="complete", kills=[Kill(3, 8)])
    assert good(everywhere(killed, work))[0] == [8, 13, 7, 7]
    assert good(everywhere(Federation(1), work))[0] == [0, 0, 0, 0]


def test_arrays_are_summed_to_the_same_bits_everywhere() -> None:
    async def work(ctx: RunContext) -> Message:
        merged = await ctx.reduce(ctx.rng("x").standard_normal(1000), np.add)
        assert merged.contributors == ctx.members
        return merged.value

    values = good(everywhere(Federation(9, topology="random-regular:4"), work))
    assert {value.tobytes() for value in values} == {values[0].tobytes()}
    assert values[0].dtype == np.float64


def test_what_travels_is_little() -> None:
    """A message goes up once and down a few times, not everybody's to everybody."""
    sent: list[int] = []

    async def work(ctx: RunContext) -> Message:
        swap = ctx.swap

        async def counted(payloads: Any, tag: str) -> Any:
            sent.extend(map(len, payloads.values()))
            return await swap(payloads, tag)

        ctx.swap = counted
        await ctx.reduce(bytes(10_000), lambda one, other: one)
        return None

    good(everywhere(Federation(8, topology="complete"), work))
    assert sum(size >= 10_000 for size in sent) == 7 + 7


def test_trees_span_what_is_left() -> None:
    graph = build("line", ["a", "b", "c", "d", "e"], 0)
    tree = tree_of(graph, ["a", "b", "c", "d", "e"], "b")
    assert (tree.parent, tree.children, tree.depth, tree.height) == ("a", ("c",), 1, 4)
    tree = tree_of(graph, ["a", "b", "d", "e"], "d")  # two components, as high as the higher one
    assert (tree.parent, tree.children, tree.component) == (None, ("e",), {"d", "e"})
    assert tree_of(Graph(("a",), frozenset()), ["a"], "a").height == 0


async def test_it_takes_nothing_else() -> None:
    def item(origins: int) -> bytes:
        return codec.encode([bytes([origins]), codec.encode(1)])

    for rubbish in (codec.encode(5), codec.encode([b"\x00", b""]), codec.encode([b"\x10", b""]), b"\xf6"):
        await refuses(rubbish, "it sent ")
    await refuses(item(6), "an aggregate of messages that it cannot have")
    await refuses(codec.encode([b"\x02", b"\xff"]), "")
    await refuses(codec.encode([b"\x02", codec.encode("text")]), "")
    with pytest.raises(TypeError):  # no neighbour's fault
        await context(Script(Round({"p2": item(4)}))).reduce("x", lambda one, other: one - other)


async def refuses(rubbish: bytes, said: str) -> None:
    """p1 is cut off for this as what it has gathered; the others' 4 + 1 + 1 count, its own does not."""
    four = codec.encode([b"\x04", codec.encode(1)])
    eight = codec.encode([b"\x08", codec.encode(1)])
    none = codec.encode([])
    up = Round({"p1": rubbish, "p2": four, "p3": eight})
    rest = [Round({"p2": b"", "p3": b""}) for _ in range(1 + 4)]
    torn = [Round({"p2": none, "p3": none}) for _ in range(3)]
    script = Script(up, *rest, *torn)
    ctx = context(script)
    merged = await ctx.reduce(4, lambda one, other: one + other)
    assert (merged.value, merged.contributors) == (6, ("p0", "p2", "p3"))
    ((peer, reason),) = script.cuts
    assert peer == "p1"
    assert said in reason
    assert [*script.sent[-1][1]] == ["p2", "p3", "p1"]
