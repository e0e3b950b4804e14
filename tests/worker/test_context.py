"""What a run lends: exchanges, floods, merges, weights, generators, metrics, errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from fedd.api import (
    InvalidMessage,
    InvalidParameter,
    Message,
    NotFound,
    PluginFailed,
    QuorumLost,
    RunContext,
)
from fedd.core import codec
from fedd.core.topology import build
from fedd.testing import Federation, Kill, NodeResult
from fedd.worker.context import Context, Round, RunStart, run_algorithm


@dataclass(frozen=True)
class Does:
    """Runs a coroutine function given by the test."""

    name: ClassVar[str] = "does"
    what: Callable[[RunContext], Awaitable[Message]] | None = None

    async def run(self, ctx: RunContext) -> Message:
        assert self.what is not None
        return await self.what(ctx)


def everywhere(federation: Federation, what: Callable[[RunContext], Awaitable[Message]]) -> list[NodeResult]:
    return federation.run(Does(what), [None] * len(federation.peer_ids))


def good(results: list[NodeResult]) -> list[Any]:
    assert [result.error for result in results if not result.killed and result.error] == []
    return [result.value for result in results if not result.killed]


class Script:
    """A port that answers as the test says and keeps what was sent."""

    def __init__(self, *rounds: Round) -> None:
        self.rounds = list(rounds)
        self.sent: list[tuple[str, Mapping[str, bytes | memoryview]]] = []
        self.reported: list[Mapping[str, object]] = []
        self.cuts: list[tuple[str, str]] = []

    def cut(self, peer: str, reason: str) -> None:
        self.cuts.append((peer, reason))

    async def exchange(self, tag: str, payloads: Mapping[str, bytes | memoryview]) -> Round:
        self.sent.append((tag, payloads))
        return self.rounds.pop(0)

    def report(self, metrics: Mapping[str, float | int | str | bool]) -> None:
        self.reported.append(metrics)

    def attach(self, sink: object) -> None:
        pass


def context(script: Script, members: int = 4, quorum: int = 1, max_payload_bytes: int = 1000) -> Context:
    graph = build("complete", [f"p{index}" for index in range(members)], 0)
    start = RunStart("run", "p0", graph, 1, 7, quorum, max_payload_bytes)
    return Context(start, script, "input")


async def test_what_a_context_knows() -> None:
    ctx = context(Script(), quorum=3)
    assert (ctx.me, ctx.members, ctx.round) == ("p0", ("p0", "p1", "p2", "p3"), 0)
    assert (ctx.epoch, ctx.seed, ctx.quorum, ctx.input) == (1, 7, 3, "input")
    assert ctx.neighbors == {"p1": 0.25, "p2": 0.25, "p3": 0.25}


async def test_one_message_for_all_is_encoded_once() -> None:
    script = Script(Round({"p1": codec.encode(1), "p3": codec.encode(3)}))
    ctx = context(script)
    assert await ctx.exchange({"x": 1}, "tag") == {"p1": 1, "p3": 3}
    tag, payloads = script.sent[0]
    assert tag == "tag"
    assert [*payloads] == ["p1", "p2", "p3"]
    assert len({id(payload) for payload in payloads.values()}) == 1
    assert ctx.round == 1


async def test_a_function_gives_each_neighbour_its_own() -> None:
    script = Script(Round({}))
    await context(script).exchange(lambda peer: {"for": peer})
    assert {peer: codec.decode(payload) for peer, payload in script.sent[0][1].items()} == {
        peer: {"for": peer} for peer in ("p1", "p2", "p3")
    }


async def test_the_gone_and_the_cut_leave_the_neighbours_after_the_exchange() -> None:
    script = Script(Round({"p1": codec.encode(1)}, gone={"p1": "dead"}, cut=("p2",)), Round({}))
    ctx = context(script, quorum=3)
    assert await ctx.exchange(None) == {"p1": 1}
    assert [*ctx.neighbors] == ["p3"]
    assert ctx.out == {"p1": "dead"}
    await ctx.exchange(None)
    assert [*script.sent[1][1]] == ["p3"]
    assert ctx.outcome(5).contributors == ("p0", "p2", "p3")


async def test_who_has_finished_is_no_neighbour_but_counts() -> None:
    ctx = context(Script(Round({"p1": codec.encode(1)}, finished=("p1",))), quorum=4)
    await ctx.exchange(None)
    assert ([*ctx.neighbors], ctx.finished, ctx.out) == (["p2", "p3"], {"p1"}, {})
    assert ctx.outcome(5).contributors == ctx.members


async def test_quorum_counts_the_members_of_my_component() -> None:
    ctx = context(Script(Round({}, gone={"p1": "dead", "p2": "left: it was tired"})), quorum=3)
    with pytest.raises(
        QuorumLost, match=r"2 of 4 .* quorum is 3 \(out: p1 \(dead\), p2 \(left: it was tired\)\)"
    ):
        await ctx.exchange(None)
    graph = build("ring", ["p0", "p1", "p2", "p3"], 0)
    ring = Context(
        RunStart("r", "p0", graph, 1, 0, 2, 99), Script(Round({}, gone={"p1": "dead", "p3": "dead"})), None
    )
    with pytest.raises(QuorumLost, match="1 of 4"):
        await ring.exchange(None)


async def test_who_is_at_another_tag_is_cut_off() -> None:
    round = Round({"p1": codec.encode(1), "p2": codec.encode(2)}, other_tags={"p1": "b"})
    script = Script(round, round)
    ctx = context(script)
    assert await ctx.exchange(None, "a", lenient=True) == {"p1": None, "p2": 2}
    assert script.cuts == []
    assert await ctx.exchange(None, "a") == {"p2": 2}
    ((peer, reason),) = script.cuts
    assert (peer, [*ctx.neighbors]) == ("p1", ["p2", "p3"])
    assert reason.startswith("it is at an exchange tagged 'b', this node at 'a'")
    with pytest.raises(InvalidMessage, match="200 bytes"):
        await ctx.exchange(None, "x" * 201)


async def test_what_cannot_be_sent_or_read_is_said() -> None:
    script = Script()
    ctx = context(script)
    with pytest.raises(InvalidMessage, match="more than this run's 1000"):
        await ctx.exchange(bytes(2000))
    with pytest.raises(InvalidMessage, match="set"):
        await ctx.exchange({1, 2})
    assert script.sent == []


async def test_reports() -> None:
    script = Script()
    ctx = context(script)
    ctx.report(loss=0.5, stage="one")
    ctx.report(loss=np.float64(0.25), n=np.int64(3), ok=True)
    assert ctx.metrics == {"loss": 0.25, "stage": "one", "n": 3, "ok": True}
    assert [type(ctx.metrics[name]) for name in ("loss", "n", "ok")] == [float, int, bool]
    assert script.reported[1] == {"loss": 0.25, "n": 3, "ok": True}
    for wrong in ({"a": [1]}, {"a": None}, {"a": "x" * 300}, {"a" * 300: 1}):
        with pytest.raises(InvalidParameter):
            ctx.report(**wrong)
    with pytest.raises(InvalidParameter, match="up to 64"):
        ctx.report(**{f"m{index}": index for index in range(70)})


def test_generators_depend_on_seed_node_and_name_alone() -> None:
    async def draws(ctx: RunContext) -> Message:
        return [float(ctx.rng("a").random()), float(ctx.rng("a").random()), float(ctx.rng("b").random())]

    one, other = good(everywhere(Federation(2, seed=1), draws))
    assert one[0] == one[1]
    assert len({one[0], one[2], other[0], other[2]}) == 4
    assert good(everywhere(Federation(2, seed=1), draws)) == [one, other]
    assert good(everywhere(Federation(2, seed=2), draws))[0][0] != one[0]


def test_a_flood_gives_everybody_everything() -> None:
    async def flood(ctx: RunContext) -> Message:
        heard = await ctx.flood({"from": ctx.me}, "hello")
        return [heard, ctx.round]

    for value, rounds in good(everywhere(Federation(7, topology="ring"), flood)):
        assert [*value] == [f"node-{index:02d}" for index in range(7)]
        assert all(message == {"from": peer} for peer, message in value.items())
        assert rounds == 6


@pytest.mark.parametrize("topology", ["ring", "complete", "random-regular:3"])
def test_all_survivors_of_a_flood_hold_the_same_whoever_dies(topology: str) -> None:
    async def flood(ctx: RunContext) -> Message:
        return await ctx.flood(ctx.me)

    async def merge(ctx: RunContext) -> Message:
        merged = await ctx.merge([ctx.me], lambda one, other: sorted({*one, *other}))
        assert merged.value == list(merged.contributors)
        return merged.value

    for primitive in (flood, merge):
        for round in range(5):
            for reaches in ("none", "one", "some", "all"):
                # a chain: whoever got the first one's last message is next
                kills = [Kill(0, round, reaches), Kill(1, round + 1, "one")]
                federation = Federation(6, topology=topology, kills=kills, seed=round, quorum=1)
                results = everywhere(federation, primitive)
                values = good(results)
                component = [r for r in results if not r.killed]
                near = {r.peer_id: set(federation.graph.neighbors(r.peer_id)) for r in component}
                for one, value in zip(component, values, strict=True):
                    assert one.contributors == tuple(value)
                    for other in component:
                        if other.peer_id in near[one.peer_id]:
                            assert other.value == value


async def test_floods_and_merges_take_nothing_else() -> None:
    for rubbish in (1, [0], [0, 1], [9, b""], [-1, b""], ["p1", b""]):
        script = Script(*[Round({"p1": codec.encode(rubbish), "p2": codec.encode([2, b"\x07"])})] * 3)
        ctx = context(script)
        assert await ctx.flood(None) == {"p0": None, "p2": 7}
        assert script.cuts == [("p1", "it sent something else than flooded messages")]
        assert ctx.outcome(0).contributors == ("p0", "p2")
    for rubbish in (1, [b"\x01"], [b"\xff", codec.encode(1)], [1, 2]):
        script = Script(*[Round({"p1": codec.encode(rubbish), "p2": codec.encode([b"\x04", b"\x07"])})] * 3)
        merged = await context(script).merge(1, max)
        assert (merged.value, merged.contributors) == (7, ("p0", "p2"))
        assert script.cuts == [("p1", "it sent something else than a merged value")]


def test_a_ledger_can_be_stepped_by_hand_and_then_agreed() -> None:
    async def work(ctx: RunContext) -> Message:
        ledger = ctx.ledger(float(ctx.me[-1]))
        for _ in range(3):
            await ledger.step()
        halfway = float(ledger.value)
        agreement = await ledger.agree(tolerance=1e-12, iterations=500)
        assert agreement.agreed
        assert agreement.iterations == ctx.round - 3
        await ledger.step()
        return [halfway, float(agreement.value), float(ledger.value)]

    for halfway, agreed, after in good(everywhere(Federation(5, topology="ring"), work)):
        assert 1 < halfway < 3
        assert agreed == pytest.approx(2.0, abs=1e-12)
        assert after == pytest.approx(2.0, abs=1e-11)


def test_an_agreement_shorter_than_a_window_was_never_compared() -> None:
    async def work(ctx: RunContext) -> Message:
        agreement = await ctx.ledger(1.0).agree(tolerance=1e-9, iterations=2)
        return [agreement.agreed, str(agreement.residual), list(agreement.contributors)]

    results = everywhere(Federation(5, topology="ring"), work)
    assert good(results) == [[False, "inf", [f"node-{index:02d}" for index in range(5)]]] * 5
    assert {(result.residual, result.agreed) for result in results} == {(None, False)}


def test_without_agreement_the_dead_are_no_contributors() -> None:
    async def work(ctx: RunContext) -> Message:
        return list((await ctx.ledger(float(ctx.me[-1])).agree(tolerance=1e-15, iterations=7)).contributors)

    results = everywhere(Federation(5, topology="complete", kills=[Kill(3, 5)]), work)
    assert good(results) == [["node-00", "node-01", "node-02", "node-04"]] * 4


@pytest.mark.parametrize(("tolerance", "iterations"), [(-1.0, 5), (-1e-9, 5), (float("nan"), 5), (0.1, 0)])
def test_an_agreement_needs_a_tolerance_and_time(tolerance: float, iterations: int) -> None:
    async def work(ctx: RunContext) -> Message:
        return (await ctx.ledger(1.0).agree(tolerance=tolerance, iterations=iterations)).value

    assert isinstance(everywhere(Federation(1), work)[0].error, InvalidParameter)


async def test_what_a_plugin_raises_is_told_with_the_place() -> None:
    async def work(ctx: RunContext) -> Message:
        raise KeyError("temperature")

    with pytest.raises(PluginFailed) as raised:
        await run_algorithm(Does(work), context(Script()))
    assert raised.value.detail == "KeyError: 'temperature'"
    assert "in work, " in raised.value.hint
    assert "test_context.py" in raised.value.hint
    assert isinstance(raised.value.__cause__, KeyError)


@pytest.mark.parametrize("topology", ["complete", "ring"])
def test_gather_brings_everybodys_message_to_one(topology: str) -> None:
    async def work(ctx: RunContext) -> Message:
        found = await ctx.gather({"from": ctx.me}, "node-02", "tag")
        return None if found is None else [list(found), list(found.values()), ctx.round]

    values = good(everywhere(Federation(5, topology=topology), work))
    peers = [f"node-{index:02d}" for index in range(5)]
    rounds = {"complete": 1, "ring": 4}[topology]
    assert values[2] == [peers, [{"from": peer} for peer in peers], rounds]
    assert [value for index, value in enumerate(values) if index != 2] == [None] * 4


def test_gather_goes_on_without_the_dead() -> None:
    async def work(ctx: RunContext) -> Message:
        found = [await ctx.gather(ctx.me, "node-02") for _ in range(2)]
        return [None if each is None else list(each) for each in found]

    values = good(everywhere(Federation(4, topology="complete", kills=[Kill(0, 1, "none")]), work))
    everybody = ["node-00", "node-01", "node-02", "node-03"]
    assert values == [[None, None], [everybody, everybody[1:]], [None, None]]
    values = good(everywhere(Federation(4, topology="complete", kills=[Kill(2, 0, "none")]), work))
    assert values == [[None, None]] * 3


async def test_gather_goes_to_a_member() -> None:
    with pytest.raises(InvalidParameter, match="no member"):
        await context(Script()).gather(1, "nobody")


def test_who_leaves_is_told_between_two_exchanges() -> None:
    async def work(ctx: RunContext) -> Message:
        left: list[list[object]] = []
        ctx.on_leave(lambda peer, reason: left.append([peer, reason, ctx.round, peer in ctx.neighbors]))
        for _ in range(4):
            await ctx.exchange(None)
        return left

    federation = Federation(5, topology="complete", kills=[Kill(1, 2, "all")])
    for peer, value in zip(federation.peer_ids, everywhere(federation, work), strict=True):
        if peer != "node-01":
            ((gone, reason, round, still),) = value.value
            assert (gone, reason, still) == ("node-01", "dead", False)
            assert round in (3, 4)


def test_along_arcs_messages_go_one_way_only() -> None:
    async def work(ctx: RunContext) -> Message:
        heard = await ctx.exchange(lambda peer: [ctx.me, peer])
        same = await ctx.exchange(ctx.me)
        return [list(ctx.out_neighbors), list(ctx.in_neighbors), heard, same]

    peers = [f"node-{index:02d}" for index in range(4)]
    results = everywhere(Federation(4, topology="directed-ring"), work)
    for index, (out, into, heard, same) in enumerate(good(results)):
        after, before = peers[(index + 1) % 4], peers[index - 1]
        assert (out, into) == ([after], [before])
        assert heard == {before: [before, peers[index]]}
        assert same == {before: before}


async def test_aggregators_are_found_by_name() -> None:
    ctx = context(Script())
    assert ctx.aggregator("krum", {"byzantine": 2}).name == "krum"
    with pytest.raises(NotFound, match="no aggregator 'crum'"):
        ctx.aggregator("crum")
    with pytest.raises(InvalidParameter):
        ctx.aggregator("krum", {"colour": "red"})
