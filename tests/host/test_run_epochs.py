"""Runs of whole nodes whose members change: contract restart, late members, restarts of daemons."""

from __future__ import annotations

import json
from typing import Any

import pytest
from host.epoch_plays import through_epochs
from host.worlds import Node, document, request, until, world
from trio.testing import MockClock

from fedd.worker.context import Context


class Total:
    """The sum of the inputs, right only when nobody is lost on the way."""

    async def run(self, ctx: Context) -> Any:
        known = {ctx.me: ctx.input}
        for _ in range(8):
            for heard in (await ctx.exchange(known)).values():
                known |= heard
        return {"members": sorted(known), "sum": sum(known.values()), "epoch": ctx.epoch, "round": ctx.round}


def prepare(contract: str = "survivors", joinable: bool = False, algorithm: Any = None) -> Any:
    described = json.loads(document("mean"))
    described["plugins"][0]["algorithms"][0] |= {"contract": contract, "joinable": joinable}

    def change(nodes: list[Node]) -> None:
        for node in nodes:
            node.document = json.dumps(described).encode()
            node.script = through_epochs(algorithm or Total())

    return change


async def results(nodes: list[Node], run_id: str) -> list[dict[str, Any]]:
    return [await node.result(run_id) for node in nodes]


@pytest.mark.parametrize("topology", ["ring", "complete"])
@pytest.mark.parametrize("initiator_dies", [False, True])
@pytest.mark.parametrize("at", [1, 6, 8])
async def test_a_death_begins_an_epoch_without_the_dead(
    autojump_clock: MockClock, topology: str, initiator_dies: bool, at: int
) -> None:
    async with world(4, prepare=prepare("restart")) as nodes:
        started = await nodes[1].runs.start(request(topology=topology, pace_s=0.2))
        run_id = started["run_id"]
        victim = nodes[1] if initiator_dies else nodes[2]
        left = [node for node in nodes if node is not victim]
        await until(lambda: left[0].round_of(run_id) >= at)
        victim.kill()
        ended = await results(left, run_id)
        assert {result["state"] for result in ended} == {"finished"}, ended
        assert len({str(result["value"]) for result in ended}) == 1
        members = ended[0]["value"]["members"]
        assert ended[0]["value"]["sum"] == sum(node.number**2 for node in nodes if node.id in members)
        if at < 8:
            assert members == sorted(node.id for node in left)
            assert [result["epoch"] for result in ended] == [2, 2, 2]
            assert {drop["peer_id"] for result in ended for drop in result["dropped"]} == {victim.id}
            assert ended[0]["value"]["round"] > 8
        await until(lambda: not any(node.runs._nodes for node in left), 300.0)
        assert not any(node.runs._pins._held for node in left)


async def test_too_few_left_end_with_the_quorum_lost(autojump_clock: MockClock) -> None:
    async with world(3, prepare=prepare("restart")) as nodes:
        started = await nodes[0].runs.start(request(quorum=3, pace_s=0.2))
        await until(lambda: nodes[0].round_of(started["run_id"]) >= 2)
        nodes[1].kill()
        for result in await results([nodes[0], nodes[2]], started["run_id"]):
            assert (result["state"], result["error_code"]) == ("failed", "quorum_lost")
            assert "2 of 3 members are left" in result["error"]
            assert "n1 (dead)" in result["error"]
