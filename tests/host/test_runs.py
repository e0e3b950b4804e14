"""Runs of whole nodes on virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from host.worlds import Node, mean, request, rounds_of, world
from trio.testing import MockClock
from waiting import until

from fedd.api.errors import Conflict, FeddError, NotFound


async def results(nodes: list[Node], run_id: str) -> list[dict[str, Any]]:
    return [await node.result(run_id) for node in nodes]


async def everything_is_over(nodes: list[Node]) -> None:
    """Every run is retired: nobody waits for anything, no link is held."""
    await until(lambda: not any(node.runs.nodes for node in nodes), 200.0)
    assert not any(node.runs.rooms.pins._held for node in nodes)


@pytest.mark.parametrize("topology", ["ring", "complete", None])
async def test_everybody_gets_the_mean(autojump_clock: MockClock, topology: str | None) -> None:
    async with world(4) as nodes:
        started = await nodes[2].runs.start(request(topology=topology, seed=7))
        assert started["members"] == sorted(node.id for node in nodes)
        assert started["declined"] == []
        assert started["quorum"] == 3
        assert started["seed"] == 7
        assert started["topology"] == (topology or "complete")
        ended = await results(nodes, started["run_id"])
        assert {result["state"] for result in ended} == {"finished"}
        assert len({result["value"] for result in ended}) == 1
        assert ended[0]["value"] == pytest.approx((0 + 1 + 4 + 9) / 4, abs=1e-11)
        for result in ended:
            assert result["contributors"] == started["members"]
            assert result["dropped"] == []
            assert result["agreed"]
            assert not result["degraded"]
            assert result["rounds"] > 0
            assert result["bytes_in"] > 0
            assert result["bytes_out"] > 0
            assert result["wall_s"] > 0
            assert result["initiator"] == nodes[2].id
        await everything_is_over(nodes)
        assert nodes[0].runs.get(started["run_id"])["value"] == ended[0]["value"]
        (summary,) = nodes[0].runs.summaries()
        assert summary["state"] == "finished"
        assert summary["members"] == 4
        states = [event["state"] async for event in take(nodes[0], "run", 2)]
        assert states == ["started", "finished"]


async def test_a_result_that_the_disk_refuses_is_shown_and_told(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, data: bytes, mode: int = 0o600) -> None:
        raise FeddError("the disk is full")

    async with world(2) as nodes:
        monkeypatch.setattr(nodes[0].store, "write", refuse)
        started = await nodes[0].runs.start(request())
        await results(nodes, started["run_id"])
        await everything_is_over(nodes)
        assert nodes[0].runs.get(started["run_id"])["state"] == "finished"
        events = [event async for event in take(nodes[0], "run", 3)]
        assert (events[2]["state"], events[2]["error"]) == ("not stored", "the disk is full")


async def take(node: Node, kind: str, count: int) -> Any:
    async for event in node.events.subscribe(0):
        if event["kind"] == kind:
            yield event
            count -= 1
            if not count:
                return


async def test_alone(autojump_clock: MockClock) -> None:
    async with world(1) as nodes:
        started = await nodes[0].runs.start(request())
        (result,) = await results(nodes, started["run_id"])
        assert (result["state"], result["value"], result["quorum"]) == ("finished", 0.0, 1)
        await everything_is_over(nodes)


async def test_some_members_and_two_runs_at_once(autojump_clock: MockClock) -> None:
    async with world(4) as nodes:
        first = await nodes[0].runs.start(request(members=[nodes[1].id], pace_s=0.1))
        second = await nodes[3].runs.start(request(members=[nodes[1].id, nodes[2].id, nodes[3].id]))
        assert first["members"] == sorted([nodes[0].id, nodes[1].id])
        (value,) = {r["value"] for r in await results(nodes[1:], second["run_id"])}
        assert value == pytest.approx(14 / 3, abs=1e-9)
        assert {r["value"] for r in await results(nodes[:2], first["run_id"])} == {0.5}
        with pytest.raises(NotFound):
            nodes[2].runs.get(first["run_id"])
        await everything_is_over(nodes)


async def test_pace_is_the_least_time_of_a_round(autojump_clock: MockClock) -> None:
    async with world(3) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(5)
        began = trio.current_time()
        started = await nodes[0].runs.start(request(pace_s=2.0))
        (result, *_) = await results(nodes, started["run_id"])
        assert result["value"] == [2] * 5
        assert 10.0 <= trio.current_time() - began < 12.0


async def test_watch_shows_progress_then_the_result(autojump_clock: MockClock) -> None:
    async with world(3) as nodes:
        started = await nodes[0].runs.start(request(pace_s=0.2))
        items = [item async for item in nodes[1].runs.watch(started["run_id"][:6])]
        assert [item["kind"] for item in items[-2:]] == ["progress", "result"]
        rounds = [item["round"] for item in items[:-1]]
        assert rounds == sorted(rounds)
        assert len(set(rounds)) > 3
        assert items[-2]["residual"] is not None
        assert items[-2]["members"] == started["members"]
        again = [item async for item in nodes[1].runs.watch(started["run_id"])]
        assert [item["kind"] for item in again] == ["result"]


# ---- deaths ------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["ring", "complete"])
@pytest.mark.parametrize("at_round", [0, 3, 7])
@pytest.mark.parametrize("victim", [0, 3])
async def test_a_death_changes_only_who_counts(
    autojump_clock: MockClock, topology: str, at_round: int, victim: int
) -> None:
    async with world(5) as nodes:
        started = await nodes[0].runs.start(request(topology=topology, pace_s=0.2))
        run_id = started["run_id"]
        await until(lambda: nodes[1].round_of(run_id) >= at_round)
        nodes[victim].kill()
        survivors = [node for node in nodes if node.number != victim]
        ended = await results(survivors, run_id)
        assert {result["state"] for result in ended} == {"finished"}
        assert len({result["value"] for result in ended}) == 1
        assert len({tuple(result["contributors"]) for result in ended}) == 1
        inputs = {node.id: float(node.number**2) for node in nodes}
        counted = ended[0]["contributors"]
        assert set(counted) >= {node.id for node in survivors}
        assert ended[0]["value"] == pytest.approx(sum(inputs[p] for p in counted) / len(counted), abs=1e-9)
        for result in ended:
            if counted == sorted(node.id for node in survivors):
                (dropped,) = result["dropped"]
                assert dropped["peer_id"] == nodes[victim].id
                assert dropped["reason"] == "dead"
                assert dropped["round"] >= at_round
        await everything_is_over(survivors)


async def test_the_initiator_dies_when_one_member_has_the_manifest(autojump_clock: MockClock) -> None:
    async with world(4) as nodes:
        initiator, lucky, *others = nodes

        async def deaf(*_: Any) -> None:
            await trio.sleep_forever()

        for node in others:  # the manifest comes to them by their neighbours' streams alone
            original = node.runs.rooms.desk.answer

            async def answer(peer: str, message: Any, original: Any = original) -> Any:
                if message["kind"] == "manifest":
                    await deaf()
                return await original(peer, message)

            node.runs.rooms.desk.answer = answer
        for node in nodes:
            node.workers.script = rounds_of(8)
        async with trio.open_nursery() as nursery:
            original_adopt = lucky.runs.adopt

            def adopt(manifest: Any, seat: Any = None) -> Any:
                adopted.append(manifest.run_id)
                initiator.kill()
                return original_adopt(manifest, seat)

            adopted: list[str] = []
            lucky.runs.rooms.desk._adopt = adopt

            nursery.start_soon(initiator.runs.start, request(topology="ring"))
            await until(lambda: adopted)
            nursery.cancel_scope.cancel()
        ended = await results([lucky, *others], adopted[0])
        assert {result["state"] for result in ended} == {"finished"}
        assert all([d["reason"] for d in result["dropped"]] == ["dead"] for result in ended)


async def test_quorum_lost_names_who_is_out(autojump_clock: MockClock) -> None:
    async with world(3) as nodes:
        started = await nodes[0].runs.start(request(pace_s=0.5, quorum=3))
        await until(lambda: nodes[1].round_of(started["run_id"]) >= 2)
        nodes[2].kill()
        ended = await results(nodes[:2], started["run_id"])
        assert [(result["state"], result["error_code"]) for result in ended] == [
            ("failed", "quorum_lost")
        ] * 2
        # Both notice at one moment. Whoever is second may know that the first has left, too.
        assert "2 of 3 members are left, the quorum is 3; out: n2 (dead)" in {
            result["error"] for result in ended
        }
        assert all("n2 (dead)" in result["error"] for result in ended)
        await everything_is_over(nodes[:2])


async def test_a_partition_leaves_each_side_with_those_it_reaches(autojump_clock: MockClock) -> None:
    """On a ring of 6 two opposite deaths leave two pairs; the quorum of 2 lets both finish."""
    async with world(6) as nodes:
        started = await nodes[0].runs.start(request(topology="ring", quorum=2, pace_s=0.2))
        ring = started["members"]
        await until(lambda: nodes[0].round_of(started["run_id"]) >= 2)
        by_id = {node.id: node for node in nodes}
        by_id[ring[0]].kill()
        by_id[ring[3]].kill()
        for side in (ring[1:3], ring[4:6]):
            one, other = await results([by_id[peer] for peer in side], started["run_id"])
            assert one["state"] == other["state"] == "finished"
            assert one["value"] == other["value"]
            if one["contributors"] == side:
                assert one["value"] == pytest.approx(sum(by_id[p].number ** 2 for p in side) / 2)
                reasons = {d["peer_id"]: d["reason"] for d in one["dropped"]}
                assert reasons[ring[0]] == "dead"
                assert any(reason.startswith("cut: no path") for reason in reasons.values())


# ---- stop, leave, shut down --------------------------------------------------------------


async def test_any_member_stops_a_run(autojump_clock: MockClock) -> None:
    async with world(5) as nodes:
        started = await nodes[0].runs.start(request(topology="ring", pace_s=1.0))
        await until(lambda: nodes[3].round_of(started["run_id"]) >= 1)
        assert await nodes[3].runs.stop(started["run_id"]) == {
            "run_id": started["run_id"],
            "state": "stopped",
        }
        ended = await results(nodes, started["run_id"])
        assert {result["state"] for result in ended} == {"stopped"}
        assert {result["value"] for result in ended} == {None}
        assert nodes[1].workers.made[0].stops == ["stopped"]
        with pytest.raises(Conflict):
            await nodes[3].runs.stop(started["run_id"])
        await everything_is_over(nodes)


async def test_a_daemon_that_shuts_down_leaves_at_once(autojump_clock: MockClock) -> None:
    async with world(4) as nodes:
        started = await nodes[0].runs.start(request(topology="ring", pace_s=0.2))
        await until(lambda: nodes[1].round_of(started["run_id"]) >= 2)
        began = trio.current_time()
        await nodes[1].runs.leave_all("the daemon is shutting down")
        assert trio.current_time() - began <= 2.0
        others = [nodes[0], *nodes[2:]]
        for result in await results(others, started["run_id"]):
            assert result["state"] == "finished"
            assert [d["peer_id"] for d in result["dropped"]] == [nodes[1].id]
            assert result["dropped"][0]["reason"] == "left: the daemon is shutting down"
        own = await nodes[1].result(started["run_id"])
        assert (own["state"], own["error"]) == ("failed", "the daemon is shutting down")


async def test_unknown_and_ambiguous_run_ids(autojump_clock: MockClock) -> None:
    async with world(2) as nodes:
        for run_id in ("", "ff", "zz"):
            with pytest.raises(NotFound):
                nodes[0].runs.get(run_id)
        assert nodes[0].runs.summaries() == []
        nodes[0].workers.script = mean


async def test_what_one_sent_to_another_is_what_came_there(autojump_clock: MockClock) -> None:
    async with world(4) as nodes:
        run_id = (await nodes[0].runs.start(request(topology="ring")))["run_id"]
        told = {node.id: await node.result(run_id) for node in nodes}
        assert all(len(result["traffic"]) == 2 for result in told.values())
        for peer, result in told.items():
            assert result["bytes_in"] == sum(item["bytes_in"] for item in result["traffic"]) > 0
            for item in result["traffic"]:
                (back,) = [other for other in told[item["peer_id"]]["traffic"] if other["peer_id"] == peer]
                # the last frames may cross the end at which the result was written
                assert abs(item["bytes_out"] - back["bytes_in"]) < 200
