"""What goes wrong in a run, on virtual time: workers, links, pauses, proposals."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from host.worlds import (
    Crash,
    Node,
    PlayedWorker,
    context,
    document,
    request,
    rounds_of,
    silence_until_dead,
    world,
)
from trio.testing import MockClock
from waiting import until

from fedd.api.errors import Conflict, Denied, FeddError, InvalidParameter, NotFound, PluginFailed, Refused
from fedd.host.policy import Policy
from fedd.host.run_limits import RunLimits


async def outcome(nodes: list[Node], bad: Node, **more: Any) -> tuple[dict[str, Any], str]:
    """Start a run; (the bad node's result, the one reason that all others give for dropping it)."""
    started = await nodes[0].runs.start(request(**more))
    reasons = set()
    for node in nodes:
        if node is not bad:
            result = await node.result(started["run_id"])
            assert result["state"] == "finished", result
            assert [d["peer_id"] for d in result["dropped"]] == [bad.id]
            reasons.add(result["dropped"][0]["reason"])
    own = await bad.result(started["run_id"])
    await until(lambda: not any(node.runs.nodes for node in nodes), 200.0)
    (reason,) = reasons
    return own, reason


# ---- the worker ----------------------------------------------------------------------------


async def raising(worker: PlayedWorker, start: dict[str, Any]) -> None:
    await context(worker, start).exchange(0)
    worker.emit(
        {"kind": "failed", "code": "plugin_failed", "detail": "ValueError: on fire", "hint": "in run"}
    )


async def crashing(worker: PlayedWorker, start: dict[str, Any]) -> None:
    await context(worker, start).exchange(0)
    worker.last_line = "Segmentation fault"
    raise Crash


async def hanging(worker: PlayedWorker, start: dict[str, Any]) -> None:
    await context(worker, start).exchange(0)
    await trio.sleep_forever()


async def chatting(worker: PlayedWorker, start: dict[str, Any]) -> None:
    await context(worker, start).exchange(0)
    while True:
        worker.emit({"kind": "report", "metrics": {"alive": True, "bad": [1]}})
        await trio.sleep(1)


async def lying(worker: PlayedWorker, start: dict[str, Any]) -> None:
    worker.emit({"kind": "exchange", "round": 5, "tag": "", "to": [], "same": False})


async def babbling(worker: PlayedWorker, start: dict[str, Any]) -> None:
    worker.emit({"kind": "gossip"})


async def bursting(worker: PlayedWorker, start: dict[str, Any]) -> None:
    to = [member for member in start["members"] if member != start["me"]]
    worker.emit({"kind": "exchange", "round": 0, "tag": "", "to": to, "same": True}, [bytes(2000)])


async def garbled(worker: PlayedWorker, start: dict[str, Any]) -> None:
    worker.emit({"kind": "result", "contributors": [], "residual": None, "agreed": True}, [b"\xff"])


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        (raising, "plugin_failed", "left: ValueError: on fire"),
        (crashing, "plugin_failed", "left: its worker process was killed by SIGSEGV"),
        (hanging, "plugin_failed", "stall: the algorithm did not go on for 60 s"),
        (chatting, "plugin_failed", "stall:"),
        (lying, "protocol", "left: its worker began exchange 5"),
        (babbling, "protocol", "left: its worker sent a malformed message"),
        (bursting, "invalid_message", "2000 bytes"),
        (garbled, "invalid_message", "left: "),
    ],
)
async def test_a_bad_worker_costs_its_own_node_the_run(
    autojump_clock: MockClock, script: Any, code: str, said: str
) -> None:
    async with world(3, RunLimits(payload_bytes=1024, stall_factor=1.5)) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(4)
        nodes[2].workers.script = script
        own, reason = await outcome(nodes, nodes[2], topology="complete")
        assert said in reason
        assert own["state"] == "failed"
        assert own["error_code"] == code
        assert own["value"] is None


async def test_a_stall_is_measured_by_the_algorithms_own_pace(autojump_clock: MockClock) -> None:
    """Steps of 10 s allow a silence of 200 s; the others wait without accusing anybody."""

    async def slow(worker: PlayedWorker, start: dict[str, Any]) -> None:
        ctx = context(worker, start)
        for number in range(6):
            await trio.sleep(150 if number == 5 else 10)
            await ctx.exchange(number)
        await finish_with(worker, 1)

    async def finish_with(worker: PlayedWorker, value: int) -> None:
        worker.emit(
            {"kind": "result", "contributors": [], "residual": None, "agreed": True}, [bytes([value])]
        )

    async with world(2) as nodes:
        for node in nodes:
            node.workers.script = slow
        started = await nodes[0].runs.start(request(quorum=1))
        for node in nodes:
            result = await node.result(started["run_id"], within_s=400.0)
            assert (result["state"], result["value"], result["dropped"]) == ("finished", 1, [])


async def test_a_pause_of_the_whole_device_is_no_stall(autojump_clock: MockClock) -> None:
    """The clock jumps by an hour between two looks, as after a suspend."""
    async with world(1) as nodes:

        async def thinking(worker: PlayedWorker, start: dict[str, Any]) -> None:
            await trio.sleep(30)
            autojump_clock.jump(3600)
            await trio.sleep(20)
            worker.emit({"kind": "result", "contributors": [], "residual": None, "agreed": True}, [b"\x01"])

        nodes[0].workers.script = thinking
        started = await nodes[0].runs.start(request())
        assert (await nodes[0].result(started["run_id"], 4000.0))["state"] == "finished"


async def test_a_reason_reaches_those_who_are_no_neighbours(autojump_clock: MockClock) -> None:
    async with world(6) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(12)
        nodes[5].workers.script = raising
        _, reason = await outcome(nodes, nodes[5], topology="ring")
        assert reason == "left: ValueError: on fire"


# ---- links ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut", "disconnect"])
async def test_a_broken_link_heals_and_nothing_is_lost(autojump_clock: MockClock, how: str) -> None:
    async with world(4) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(30)
        started = await nodes[0].runs.start(request(topology="ring", pace_s=0.2))
        ring = {node.id: node for node in nodes}
        one, other = ring[started["members"][0]], ring[started["members"][1]]
        for at_round in (3, 9, 15):
            await until(lambda at_round=at_round: one.round_of(started["run_id"]) >= at_round)
            if how == "cut":
                one.link_to(other).cut()
            else:
                await one.swarm.disconnect(other.id)
        for node in nodes:
            result = await node.result(started["run_id"])
            assert result["state"] == "finished", result
            assert result["dropped"] == []
            assert result["value"] == [2] * 30


async def test_a_pause_of_a_few_seconds_harms_nobody(autojump_clock: MockClock) -> None:
    async with world(4) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(10)
        started = await nodes[0].runs.start(request(topology="ring", pace_s=0.2))
        await until(lambda: nodes[1].round_of(started["run_id"]) >= 3)
        for wire in nodes[1].links:
            wire.hold()
        await trio.sleep(4.0)
        for wire in nodes[1].links:
            wire.release()
        for node in nodes:
            result = await node.result(started["run_id"])
            assert (result["state"], result["dropped"]) == ("finished", [])
            assert result["value"] == [2] * 10


async def test_who_was_away_for_too_long_learns_that_it_was_dropped(autojump_clock: MockClock) -> None:
    async with world(4) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(200)
        started = await nodes[0].runs.start(request(topology="complete", pace_s=0.2))
        await until(lambda: nodes[1].round_of(started["run_id"]) >= 3)
        await silence_until_dead(nodes, 1)
        own = await nodes[1].result(started["run_id"])
        assert (own["state"], own["error_code"]) in {("failed", "dropped"), ("failed", "quorum_lost")}
        for node in (nodes[0], *nodes[2:]):
            result = await node.result(started["run_id"])
            assert result["state"] == "finished"
            assert [d["peer_id"] for d in result["dropped"]] == [nodes[1].id]


async def test_an_alive_neighbour_that_cannot_be_reached_is_cut_off_by_both(
    autojump_clock: MockClock,
) -> None:
    """The two see each other through the others; the run goes on without their edge and drops nobody."""
    async with world(4, RunLimits(edge_timeout_s=5.0)) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(60)
        one, other = nodes[0], nodes[1]
        for node, far in ((one, other), (other, one)):
            original = node.runs.rooms.around.open_stream

            async def refuse(peer: str, far: Node = far, original: Any = original) -> Any:
                if peer == far.id:
                    raise NotFound("no way")
                return await original(peer)

            object.__setattr__(node.runs.rooms.around, "open_stream", refuse)
        started = await one.runs.start(request(topology="complete", pace_s=0.2))
        for node in nodes:
            result = await node.result(started["run_id"])
            assert (result["state"], result["dropped"]) == ("finished", [])
            expected = 2 if node in (one, other) else 3
            assert result["value"][-1] == expected


# ---- proposals -------------------------------------------------------------------------------


async def start_error(node: Node, **more: Any) -> FeddError:
    with pytest.raises(FeddError) as caught:
        await node.runs.start(request(**more))
    return caught.value


@pytest.mark.parametrize(
    ("more", "kind", "field"),
    [
        ({"algorithm": "meen"}, NotFound, "algorithm"),
        ({"parameters": {"iteration": "1"}}, InvalidParameter, "iteration"),
        ({"parameters": {"iterations": "many"}}, InvalidParameter, "iterations"),
        ({"parameters": {"iterations": "0"}}, InvalidParameter, "iterations"),
        ({"input": "y"}, NotFound, "input"),
        ({"topology": "circle"}, InvalidParameter, "topology"),
        ({"quorum": 9}, InvalidParameter, "quorum"),
        ({"quorum": 0}, InvalidParameter, "quorum"),
        ({"quorum": "x%"}, InvalidParameter, "quorum"),
        ({"members": ["nobody"]}, NotFound, "members"),
        ({"contract": "forever"}, InvalidParameter, "contract"),
        ({"seed": -1}, InvalidParameter, "seed"),
        ({"pace_s": float("nan")}, InvalidParameter, "pace_s"),
    ],
)
async def test_a_bad_request_is_refused_before_anybody_is_asked(
    autojump_clock: MockClock, more: dict[str, Any], kind: type[FeddError], field: str
) -> None:
    async with world(2) as nodes:
        error = await start_error(nodes[0], **more)
        assert isinstance(error, kind)
        assert error.field == field
        assert nodes[1].workers.made == []
        assert nodes[0].runs.active == 0
        started = await nodes[0].runs.start(request())
        assert (await nodes[1].result(started["run_id"]))["state"] == "finished"


async def test_who_declines_is_named_with_the_reason(autojump_clock: MockClock) -> None:
    def differ(nodes: list[Node]) -> None:
        nodes[1].document = document("mean", version="9.9")
        nodes[2].policy = Policy(initiators=("n1",))
        nodes[3].inputs._configured.clear()
        nodes[4].policy = Policy(inputs={"x": ("other",)})

    async with world(6, prepare=differ) as nodes:
        error = await start_error(nodes[0])
        assert isinstance(error, Refused)
        assert "2 of 6 members take part in mean, the quorum is 4" in error.detail
        for said in (
            "n1: ",
            "9.9 here",
            "n2: the policy here does not let n0",
            "n3: there is no input 'x'",
            "n4: ",
        ):
            assert said in error.detail
        started = await nodes[0].runs.start(request(quorum="30%"))
        declined = {entry["peer_id"]: entry["reason"] for entry in started["declined"]}
        assert set(declined) == {node.id for node in nodes[1:5]}
        for node in (nodes[0], nodes[5]):
            result = await node.result(started["run_id"])
            assert result["value"] == pytest.approx(12.5)
            assert {d["peer_id"]: d["reason"] for d in result["declined"]} == declined


async def test_a_member_that_never_answers_declines_after_its_time(autojump_clock: MockClock) -> None:
    async with world(3) as nodes:

        async def silent(*_: Any) -> Any:
            await trio.sleep_forever()

        nodes[2].runs.rooms.desk.answer = silent
        began = trio.current_time()
        started = await nodes[0].runs.start(request())
        assert trio.current_time() - began <= 7.0
        assert [d["peer_id"] for d in started["declined"]] == [nodes[2].id]
        assert "5 s" in started["declined"][0]["reason"]
        assert (await nodes[1].result(started["run_id"]))["value"] == pytest.approx(0.5)


async def test_a_strangers_algorithm_must_be_listed(autojump_clock: MockClock) -> None:
    def stranger(nodes: list[Node]) -> None:
        for node in nodes:
            node.document = document("mean", distribution="acme")
        nodes[1].policy = Policy(algorithms=("mean",))

    async with world(2, prepare=stranger) as nodes:
        error = await start_error(nodes[0])
        assert isinstance(error, Denied)
        assert "policy" in error.detail
        error = await start_error(nodes[1])
        assert isinstance(error, Refused)
        assert "n0: the policy here does not allow" in error.detail


async def test_runs_are_bounded_and_forgotten_acceptances_free_their_place(autojump_clock: MockClock) -> None:
    async with world(2, RunLimits(runs=1)) as nodes:
        await nodes[0].runs.start(request(pace_s=1.0))
        assert "in progress here already" in (await start_error(nodes[0])).detail
        await until(lambda: not any(node.runs.nodes for node in nodes), 200.0)
        await nodes[1].runs._gate.consider(
            nodes[0].runs.rooms.proposer.draft(request())[0], nodes[0].federation, "n0"
        )
        error = await start_error(nodes[0])
        assert isinstance(error, Refused)
        await trio.sleep(31)
        started = await nodes[0].runs.start(request())
        assert (await nodes[1].result(started["run_id"]))["state"] == "finished"


async def test_a_manifest_that_comes_too_late_drops_its_member_with_the_reason(
    autojump_clock: MockClock,
) -> None:
    async with world(3) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(4)
        nodes[2].runs._gate.admit = refuse_admission
        started = await nodes[0].runs.start(request(topology="complete"))
        for node in nodes[:2]:
            result = await node.result(started["run_id"])
            assert result["state"] == "finished"
            (dropped,) = result["dropped"]
            assert dropped["peer_id"] == nodes[2].id
            assert dropped["reason"] == "left: too late"


def refuse_admission(manifest: Any) -> None:
    raise Conflict("too late")


async def test_a_worker_that_cannot_start_makes_its_node_leave(autojump_clock: MockClock) -> None:
    async def fail(proposal: Any) -> Any:
        raise PluginFailed("no memory left")

    async with world(3) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(4)
        nodes[1].workers.prepare = fail
        own, reason = await outcome(nodes, nodes[1])
        assert reason == "left: no memory left"
        assert own["error"] == "no memory left"


async def test_without_a_federation_there_are_no_runs(autojump_clock: MockClock) -> None:
    async with world(2) as nodes:
        await nodes[0].presence.leave()
        error = await start_error(nodes[0])
        assert isinstance(error, Conflict)
        assert "fedctl init" in error.hint


async def test_an_initiators_slow_input_does_not_cost_it_its_own_word(autojump_clock: MockClock) -> None:
    async with world(2, RunLimits(acceptance_s=30.0)) as nodes:
        prepare = nodes[0].workers.prepare

        async def slow(proposal: Any) -> Any:
            await trio.sleep(29)
            return await prepare(proposal)

        async def late(proposal: Any, *args: Any) -> Any:
            await trio.sleep(4)
            return await consider(proposal, *args)

        consider = nodes[1].runs._gate.consider
        nodes[0].workers.prepare = slow
        nodes[1].runs._gate.consider = late
        started = await nodes[0].runs.start(request())
        assert len(started["members"]) == 2
        assert (await nodes[0].result(started["run_id"]))["state"] == "finished"


async def test_a_result_is_stored_at_once_and_a_shutdown_does_not_cost_it(autojump_clock: MockClock) -> None:
    async with world(3) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(3)
        started = await nodes[0].runs.start(request(topology="complete", pace_s=1.0))
        await until(lambda: nodes[0].round_of(started["run_id"]) == 2)
        for wire in nodes[2].links:
            wire.hold()  # it will not confirm anything for a while
        await nodes[0].runs.leave_all("the daemon is shutting down")
        assert started["run_id"] in nodes[0].runs.nodes
        nodes[0].kill()
        (stored,) = [data for name, data in nodes[0].store.files.items() if started["run_id"] in name]
        assert json.loads(stored)["error"] == "the daemon is shutting down"
