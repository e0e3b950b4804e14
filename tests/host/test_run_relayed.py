"""Runs whose neighbours cannot all be dialled: their rounds pass through a relay."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from host.worlds import Node, request, rounds_of, world
from waiting import until

from fedd.host.run_limits import RunLimits

Clock = trio.testing.MockClock


def mean_of(nodes: list[Node]) -> float:
    return sum(float(node.number**2) for node in nodes) / len(nodes)


async def test_the_exact_mean_among_some_who_cannot_be_dialled(autojump_clock: Clock) -> None:
    async with world(5, undialable=3) as nodes:
        started = await nodes[4].runs.start(request(topology="complete"))
        assert started["declined"] == []
        for node in nodes:
            result = await node.result(started["run_id"])
            assert result["value"] == pytest.approx(mean_of(nodes), abs=1e-9)
            assert len(result["contributors"]) == 5
            assert not result["dropped"]
        assert nodes[2].swarm.connections[nodes[3].id].relayed_by in (nodes[0].id, nodes[1].id)


async def test_who_starts_a_run_need_not_be_linked_with_all(autojump_clock: Clock) -> None:
    async with world(3, undialable=2) as nodes:
        started = await nodes[1].runs.start(request(topology="star"))
        assert started["declined"] == []
        for node in nodes:
            assert (await node.result(started["run_id"]))["value"] == pytest.approx(mean_of(nodes), abs=1e-9)


async def test_when_the_relay_dies_the_run_goes_on_through_another(autojump_clock: Clock) -> None:
    async with world(4, undialable=2) as nodes:
        for node in nodes:
            node.workers.script = slowly
        started = await nodes[2].runs.start(request(topology="complete", quorum=1))
        await until(lambda: nodes[3].round_of(started["run_id"]) >= 3)
        relay_id = nodes[2].swarm.connections[nodes[3].id].relayed_by
        relay = next(node for node in nodes if node.id == relay_id)
        relay.kill()
        left = [node for node in nodes if node is not relay]
        for node in left:
            result = await node.result(started["run_id"])
            assert result["state"] == "finished"
            assert result["value"] == pytest.approx(mean_of(left), abs=1e-9)
            assert [entry["peer_id"] for entry in result["dropped"]] == [relay.id]
        assert nodes[2].swarm.connections[nodes[3].id].relayed_by not in (None, relay.id)


async def test_without_another_way_each_side_ends_with_its_own(autojump_clock: Clock) -> None:
    async with world(3, RunLimits(edge_timeout_s=20.0), undialable=2) as nodes:
        for node in nodes:
            node.workers.script = slowly
        started = await nodes[1].runs.start(request(topology="complete", quorum=1))
        await until(lambda: nodes[1].round_of(started["run_id"]) >= 3)
        nodes[0].kill()
        for node in nodes[1:]:
            result = await node.result(started["run_id"])
            assert result["value"] == pytest.approx(node.number**2, abs=1e-9)


async def test_a_refusing_relay_leaves_an_edge_that_both_cut(autojump_clock: Clock) -> None:
    async with world(3, RunLimits(edge_timeout_s=5.0), undialable=2) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(3)
        started = await nodes[0].runs.start(request(topology="complete", quorum=1))
        nodes[0].relay._circuits._why_not = lambda stream, target: "not today"
        results = [await node.result(started["run_id"]) for node in nodes]
        assert all(result["state"] == "finished" for result in results)
        assert not any(result["dropped"] for result in results)
        assert results[0]["value"] == [2, 2, 2]
        assert results[1]["value"] == results[2]["value"] == [1, 1, 1]


async def slowly(worker: object, start: dict[str, object]) -> None:
    """The mean by many exchanges, each of which takes a moment."""
    from host.worlds import Mean, PlayedWorker, play

    from fedd.worker.context import Context

    class Slow(Mean):
        async def run(self, ctx: Context) -> object:
            for number in range(20):
                await trio.sleep(0.2)
                await ctx.exchange(number, tag="warm")
            agreement = await ctx.ledger(ctx.input).agree(tolerance=1e-12, iterations=500)
            return float(agreement.value)

    assert isinstance(worker, PlayedWorker)
    await play(worker, start, Slow())
