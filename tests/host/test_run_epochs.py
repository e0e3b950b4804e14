"""Runs of whole nodes whose members change: contract restart, late members, restarts of daemons."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from host.epoch_plays import through_epochs
from host.worlds import Node, document, request, silence_until_dead, world
from trio.testing import MockClock
from waiting import until

from fedd.api.errors import Conflict, InvalidParameter, Refused
from fedd.core.epoch_manifest import issue_epoch
from fedd.core.epochs import Next
from fedd.core.identity import open_sealed, seal
from fedd.host.policy import Policy
from fedd.host.run_control import ask
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
        assert [result.get("error") for result in ended] == [None] * len(ended)
        assert len({str(result["value"]) for result in ended}) == 1
        members = ended[0]["value"]["members"]
        assert ended[0]["value"]["sum"] == sum(node.number**2 for node in nodes if node.id in members)
        if at < 8:
            assert members == sorted(node.id for node in left)
            assert [result["epoch"] for result in ended] == [2, 2, 2]
            assert {drop["peer_id"] for result in ended for drop in result["dropped"]} == {victim.id}
            assert ended[0]["value"]["round"] > 8
        await until(lambda: not any(node.runs.nodes for node in left), 300.0)
        assert not any(node.runs.rooms.pins._held for node in left)


async def test_too_few_left_end_with_the_quorum_lost(autojump_clock: MockClock) -> None:
    async with world(3, prepare=prepare("restart")) as nodes:
        started = await nodes[0].runs.start(request(quorum=3, pace_s=0.2))
        await until(lambda: nodes[0].round_of(started["run_id"]) >= 2)
        nodes[1].kill()
        for result in await results([nodes[0], nodes[2]], started["run_id"]):
            assert (result["state"], result["error_code"]) == ("failed", "quorum_lost")
            assert "2 of 3 members are left" in result["error"]
            assert "n1 (dead)" in result["error"]


class Counter:
    """Counts to 40 together, from where the furthest had come, and checkpoints every step."""

    async def run(self, ctx: Context) -> Any:
        came: list[str] = []
        ctx.on_join(came.extend)
        mine = ctx.restored if isinstance(ctx.restored, int) else 0
        count = max([mine, *(await ctx.flood(mine)).values()])
        while count < 40:
            await ctx.exchange(count)
            count += 1
            await ctx.checkpoint(count)
        return {"from": mine, "count": count, "came": came, "epoch": ctx.epoch}


def checkpoints(*nodes: Node) -> list[str]:
    """Those that are left on disk."""
    return [name for node in nodes for name in node.store.names("checkpoints")]


async def start_again(nursery: trio.Nursery, node: Node) -> None:
    """As a service manager does after a crash."""
    await until(lambda: node.is_down)
    await nursery.start(node.run)


JOINABLE = prepare(joinable=True, algorithm=Counter())


def check_counted(ended: list[dict[str, Any]], epoch: int) -> None:
    assert [result.get("error") for result in ended] == [None] * len(ended)
    assert {result["value"]["count"] for result in ended} == {40}
    assert {result["value"]["epoch"] for result in ended} == {epoch}
    assert {result["epoch"] for result in ended} == {epoch}


async def test_a_member_enlisted_late_takes_part_from_the_next_epoch(autojump_clock: MockClock) -> None:
    async with world(4, prepare=JOINABLE) as nodes:
        first = [node.id for node in nodes[:3]]
        started = await nodes[0].runs.start(request(members=first, pace_s=0.2))
        run_id = started["run_id"]
        await until(lambda: nodes[0].round_of(run_id) >= 10)
        assert await nodes[1].runs.enlist(run_id[:8], nodes[3].id) == {
            "run_id": run_id,
            "peer_id": nodes[3].id,
        }
        ended = await results(nodes, run_id)
        check_counted(ended, 2)
        assert ended[3]["value"]["from"] == 0
        assert ended[0]["value"]["from"] >= 5
        for result in ended:
            assert result["value"]["came"] == [nodes[3].id]
            assert [(joined["peer_id"], joined["epoch"]) for joined in result["joined"]] == [(nodes[3].id, 2)]
            assert sorted(result["members"]) == sorted(node.id for node in nodes)
        await until(lambda: not checkpoints(*nodes))


async def test_an_open_run_lets_in_who_comes_to_the_federation(autojump_clock: MockClock) -> None:
    async with world(4, prepare=JOINABLE) as nodes, trio.open_nursery() as nursery:
        nodes[3].kill()
        await until(lambda: all(node.presence.state_of(nodes[3].id) == "dead" for node in nodes[:3]))
        started = await nodes[0].runs.start(request(pace_s=0.5, open=True))
        assert nodes[3].id not in started["members"]
        await until(lambda: nodes[0].round_of(started["run_id"]) >= 5)
        await start_again(nursery, nodes[3])
        ended = await results(nodes, started["run_id"])
        check_counted(ended, 2)
        assert ended[0]["value"]["came"] == [nodes[3].id]
        nursery.cancel_scope.cancel()


async def test_only_what_can_be_joined_can_be_open(autojump_clock: MockClock) -> None:
    async with world(2) as nodes:
        with pytest.raises(InvalidParameter) as caught:
            await nodes[0].runs.start(request(open=True))
        assert caught.value.field == "open"


async def test_who_cannot_be_enlisted_is_told_why(autojump_clock: MockClock) -> None:
    async with world(4, prepare=JOINABLE) as nodes:
        started = await nodes[0].runs.start(request(members=[node.id for node in nodes[:3]], pace_s=0.2))
        with pytest.raises(Conflict, match="n1 is in the run already"):
            await nodes[0].runs.enlist(started["run_id"], nodes[1].id)
        nodes[3].runs.set_policy(Policy(initiators=()))
        nodes[3].inputs.reload({})
        with pytest.raises(Refused, match="n3 declines"):
            await nodes[0].runs.enlist(started["run_id"], nodes[3].id)
        await results(nodes[:3], started["run_id"])
        with pytest.raises(Conflict, match="ended"):
            await nodes[0].runs.enlist(started["run_id"], nodes[3].id)


async def test_an_algorithm_that_takes_in_nobody_says_so(autojump_clock: MockClock) -> None:
    async with world(3, prepare=prepare("restart")) as nodes:
        started = await nodes[0].runs.start(request(members=[node.id for node in nodes[:2]], pace_s=0.2))
        with pytest.raises(Conflict, match="takes in nobody who comes later"):
            await nodes[0].runs.enlist(started["run_id"], nodes[2].id)


@pytest.mark.parametrize("away_s", [0.5, 20.0])
async def test_a_killed_daemon_comes_back_into_its_run(autojump_clock: MockClock, away_s: float) -> None:
    async with world(3, prepare=JOINABLE) as nodes, trio.open_nursery() as nursery:
        started = await nodes[0].runs.start(request(pace_s=2.0))
        run_id = started["run_id"]
        await until(lambda: nodes[0].round_of(run_id) >= 12, 100.0)
        nodes[2].kill()
        await trio.sleep(away_s)
        await start_again(nursery, nodes[2])
        ended = [await node.result(run_id, 600.0) for node in nodes]
        check_counted(ended, 2)
        assert ended[2]["value"]["from"] >= 8
        for result in ended:
            assert [joined["peer_id"] for joined in result["joined"]] == [nodes[2].id]
            assert result["dropped"] == []
        await until(lambda: not checkpoints(*nodes))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("lost", [None, 1])
async def test_a_run_goes_on_after_a_power_cut(autojump_clock: MockClock, lost: int | None) -> None:
    async with world(3, prepare=JOINABLE) as nodes, trio.open_nursery() as nursery:
        started = await nodes[0].runs.start(request(pace_s=1.0))
        run_id = started["run_id"]
        await until(lambda: nodes[0].round_of(run_id) >= 12, 100.0)
        for node in nodes:
            node.kill()
        await trio.sleep(5.0)
        back = [node for node in nodes if node.number != lost]
        await start_again(nursery, back[0])
        await until(lambda: back[0].runs.summaries())
        assert back[0].runs.get(run_id)["state"] == "waiting"
        assert back[0].runs.summaries()[0]["state"] == "waiting"
        for node in back[1:]:
            await start_again(nursery, node)
        ended = [await node.result(run_id, 600.0) for node in back]
        check_counted(ended, 2)
        assert min(result["value"]["from"] for result in ended) >= 8
        assert [joined["peer_id"] for joined in ended[0]["joined"]] == sorted(node.id for node in back)
        nursery.cancel_scope.cancel()


async def test_a_graceful_restart_is_no_end(autojump_clock: MockClock) -> None:
    async with world(3, prepare=JOINABLE) as nodes, trio.open_nursery() as nursery:
        started = await nodes[0].runs.start(request(pace_s=1.0))
        run_id = started["run_id"]
        await until(lambda: nodes[0].round_of(run_id) >= 10, 100.0)
        await nodes[1].runs.leave_all("the daemon is shutting down", for_good=False)
        nodes[1].kill()
        assert f"checkpoints/{run_id}.state" in nodes[1].store.files
        await start_again(nursery, nodes[1])
        ended = [await node.result(run_id, 600.0) for node in nodes]
        check_counted(ended, 2)
        nursery.cancel_scope.cancel()


async def test_who_comes_back_after_the_end_learns_it(autojump_clock: MockClock) -> None:
    async with world(3, prepare=JOINABLE) as nodes, trio.open_nursery() as nursery:
        started = await nodes[0].runs.start(request(pace_s=0.5))
        run_id = started["run_id"]
        await until(lambda: nodes[0].round_of(run_id) >= 12, 100.0)
        nodes[2].kill()
        for node in nodes[:2]:
            assert (await node.result(run_id, 600.0))["state"] == "finished"
        await start_again(nursery, nodes[2])
        result = await nodes[2].result(run_id, 600.0)
        assert (result["state"], result["error_code"]) == ("failed", "dropped")
        assert "has finished at n" in result["error"]
        await until(lambda: not checkpoints(nodes[2]))
        nursery.cancel_scope.cancel()


async def test_a_run_that_waits_can_be_given_up(autojump_clock: MockClock) -> None:
    async with world(3, prepare=JOINABLE) as nodes, trio.open_nursery() as nursery:
        started = await nodes[0].runs.start(request(pace_s=0.5))
        run_id = started["run_id"]
        await until(lambda: nodes[0].round_of(run_id) >= 12, 100.0)
        for node in nodes:
            node.kill()
        await start_again(nursery, nodes[0])
        await until(lambda: nodes[0].runs.summaries())
        assert (await nodes[0].runs.stop(run_id[:6]))["state"] == "failed"
        assert nodes[0].runs.get(run_id)["state"] == "failed"
        await until(lambda: not checkpoints(nodes[0]))
        nursery.cancel_scope.cancel()


async def test_who_was_declared_dead_by_mistake_comes_back(autojump_clock: MockClock) -> None:
    async with world(4, prepare=JOINABLE) as nodes:
        started = await nodes[0].runs.start(request(topology="complete", pace_s=2.0, quorum=1))
        run_id = started["run_id"]
        await until(lambda: nodes[1].round_of(run_id) >= 8)
        await silence_until_dead(nodes, 1)
        await until(lambda: nodes[0].runs.get(run_id)["epoch"] == 2)
        ended = [await node.result(run_id, 600.0) for node in nodes]
        check_counted(ended, 2)
        for result in ended:
            assert [joined["peer_id"] for joined in result["joined"]] == [nodes[1].id]


async def test_an_epoch_of_somebody_who_is_no_member_is_refused(autojump_clock: MockClock) -> None:
    async with world(3, prepare=JOINABLE) as nodes:
        members = [nodes[0].id, nodes[1].id]
        started = await nodes[0].runs.start(request(members=members, pace_s=0.5))
        run_id = started["run_id"]
        sealed = nodes[0].runs.nodes[run_id].manifest.sealed

        async def say(kind: str) -> dict[str, Any]:
            return await ask(nodes[2].relay, nodes[0].id, {"kind": kind, "manifest": sealed}, 5.0)

        assert (await say("return"))["code"] == "denied"
        assert (await say("enlist"))["kind"] == "declined"
        own = issue_epoch(
            nodes[1].key, nodes[0].runs.nodes[run_id].manifest, Next(2, tuple(sorted(members)), ()), 0
        )
        foreign = own.sealed[: own.sealed.index(b"\0") + 1] + seal(
            nodes[2].key,
            "fedd/run-epoch/1",
            open_sealed(own.sealed[11:], "fedd/run-epoch/1", max_bytes=1 << 18)[1],
        )
        reply = await ask(nodes[2].relay, nodes[0].id, {"kind": "manifest", "manifest": foreign}, 5.0)
        assert reply["kind"] == "error"
        assert "is no member of that run" in reply["detail"]
        assert nodes[0].runs.get(run_id)["epoch"] == 1
        check_counted(await results(nodes[:2], run_id), 1)


async def test_who_asks_about_a_run_that_nobody_knows_is_told_so(autojump_clock: MockClock) -> None:
    async with world(2, prepare=JOINABLE) as nodes:
        started = await nodes[0].runs.start(request(members=[nodes[0].id], quorum=1, pace_s=0.1))
        run_id = started["run_id"]
        sealed = nodes[0].runs.nodes[run_id].manifest.sealed
        question = {"kind": "return", "manifest": sealed}
        assert await ask(nodes[0].relay, nodes[1].id, question, 5.0) == {"kind": "unknown"}
        await nodes[0].result(run_id)
        await until(lambda: not nodes[0].runs.nodes)
        assert await ask(nodes[1].relay, nodes[0].id, question, 5.0) == {"kind": "ended", "state": "finished"}
        reply = await ask(nodes[1].relay, nodes[0].id, {"kind": "manifest", "manifest": sealed}, 5.0)
        assert reply == {"kind": "ended", "digest": ""}


@pytest.mark.parametrize("topology", ["complete", "ring"])
async def test_two_that_propose_at_once_end_in_one_epoch(autojump_clock: MockClock, topology: str) -> None:
    async with world(4, prepare=JOINABLE) as nodes:
        started = await nodes[0].runs.start(request(topology=topology, pace_s=0.3))
        run_id = started["run_id"]
        await until(lambda: nodes[0].round_of(run_id) >= 6)
        for node in nodes[:3]:
            node.runs.nodes[run_id].epochs.let_in(nodes[3].id)
        await until(lambda: all(node.runs.get(run_id)["epoch"] == 2 for node in nodes))
        ended = await results(nodes, run_id)
        check_counted(ended, 2)
        for result in ended:
            assert result["value"]["came"] == [nodes[3].id]


async def test_who_comes_back_when_too_few_are_left_gives_up(autojump_clock: MockClock) -> None:
    async with world(3, prepare=JOINABLE) as nodes, trio.open_nursery() as nursery:
        started = await nodes[0].runs.start(request(pace_s=0.5, quorum=3))
        run_id = started["run_id"]
        await until(lambda: nodes[0].round_of(run_id) >= 8, 100.0)
        nodes[2].kill()
        for node in nodes[:2]:
            assert (await node.result(run_id, 600.0))["error_code"] == "quorum_lost"
        await start_again(nursery, nodes[2])
        result = await nodes[2].result(run_id, 600.0)
        assert result["error_code"] == "dropped"
        assert "too few are left" in result["error"]
        nursery.cancel_scope.cancel()
