"""What is foreseen of a run, before anybody is asked, among whole nodes on virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from host.test_run_workers import proposal
from host.test_runs import everything_is_over, take
from host.worlds import request, world
from stores import MemoryStore
from trio.testing import MockClock

from fedd.api.errors import Denied, InvalidParameter, TimedOut
from fedd.host import run_workers
from fedd.host.inputs import Inputs
from fedd.host.policy import Policy
from fedd.host.run_result import MAX_WARNINGS
from fedd.host.run_workers import RunWorkers


async def test_a_run_is_foreseen_and_nobody_is_asked(autojump_clock: MockClock) -> None:
    async with world(3) as nodes:
        told = await nodes[0].runs.predict(request(parameters={"iterations": 15}, topology="ring", seed=4))
        assert told == {
            "algorithm": "mean",
            "members": sorted(node.id for node in nodes),
            "topology": "ring",
            "seed": 4,
            "quorum": 2,
            "prediction": {"step_bound": 0.5, "members": 3, "graph": True},
        }
        few = await nodes[0].runs.predict(request(members=[nodes[1].id]))
        assert (few["topology"], len(few["members"]), few["prediction"]) == ("complete", 2, {})
        assert [node.runs.summaries() for node in nodes] == [[], [], []]
        assert [node.runs._gate.occupied for node in nodes] == [0, 0, 0]
        assert len(nodes[0].workers.made) == 2
        assert nodes[1].workers.made == nodes[2].workers.made == []


async def test_a_run_tells_what_was_foreseen_before_it_was_proposed(autojump_clock: MockClock) -> None:
    async with world(3) as nodes:
        started = await nodes[0].runs.start(request(parameters={"iterations": 15}))
        assert started["prediction"] == {"step_bound": 0.5, "members": 3, "graph": False}
        assert (await nodes[0].result(started["run_id"]))["state"] == "finished"
        await everything_is_over(nodes)


async def test_what_the_algorithm_refuses_is_refused_before_anybody_is_asked(
    autojump_clock: MockClock,
) -> None:
    async with world(2) as nodes:
        unlucky = request(parameters={"iterations": 13})
        for ask in (nodes[0].runs.start, nodes[0].runs.predict):
            with pytest.raises(InvalidParameter, match="no luck"):
                await ask(unlucky)
        assert not nodes[1].workers.made
        assert nodes[0].runs._gate.occupied == 0
        nodes[0].runs.set_policy(Policy(inputs={"x": ("other",)}))
        with pytest.raises(Denied):
            await nodes[0].runs.predict(request())


async def test_who_takes_too_long_to_foresee_begins_all_the_same(autojump_clock: MockClock) -> None:
    async with world(2) as nodes:
        slow = request(parameters={"iterations": 14})
        started = await nodes[0].runs.start(slow)
        assert started["prediction"] == {"error": "not ready in 30 s"}
        assert (await nodes[1].result(started["run_id"]))["state"] == "finished"
        assert len(nodes[0].workers.made) == 2  # the first was busy, and is closed
        with pytest.raises(TimedOut):
            await nodes[0].runs.predict(slow)
        await everything_is_over(nodes)


async def test_a_warning_is_an_event_once(autojump_clock: MockClock) -> None:
    async with world(2) as nodes:
        started = await nodes[0].runs.start(request(pace_s=1.0))
        node = nodes[0].runs.nodes[started["run_id"]]
        for _ in range(3):
            node.on_report({"warning": "step 9 is\nbeyond 1"}, [])
        events = [event async for event in take(nodes[0], "run", 2)]
        assert (events[1]["state"], events[1]["run_id"]) == ("warning", started["run_id"])
        assert "beyond 1" in events[1]["error"]
        assert "\n" not in events[1]["error"]
        for number in range(MAX_WARNINGS + 5):
            node.on_report({"warning": f"again {number}"}, [])
        node.on_report({"warning": 3.0}, [])
        await nodes[0].result(started["run_id"])
        states = [event["state"] async for event in take(nodes[0], "run", MAX_WARNINGS + 2)]
        assert states == ["started", *["warning"] * MAX_WARNINGS, "finished"]


async def test_the_real_worker_foresees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = RunWorkers(str(tmp_path), Inputs({"x": {"value": 2.0}}, MemoryStore()))
    offer = proposal(input="x", initiator="b")
    seat = await workers.prepare(offer)
    with trio.fail_after(60):
        await seat.check(offer)
        found = await seat.predict(offer, ["a", "b", "c"], 1000, graph=False)
        again = await seat.predict(offer, ["b"], 1000, graph=True)
    assert found["rounds_predicted"] == 4  # of the five that it may make
    assert (found["edges"], found["diameter"], found["spectral_gap"]) == (3, 1, pytest.approx(1.0))
    assert again["edges"] == 0
    monkeypatch.setattr(run_workers, "PREDICT_TIMEOUT_S", 0.0)
    with pytest.raises(TimedOut):
        await seat.predict(offer, ["b"], 1000, graph=True)
    await seat.aclose()
