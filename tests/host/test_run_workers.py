"""The real worker program: its parameters are checked before anybody is asked, its input is inherited."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from stores import MemoryStore

from fedd.api.errors import FeddError, InvalidParameter, NotFound, PluginFailed, TimedOut
from fedd.core.manifest import Proposal
from fedd.core.pipe import Frame
from fedd.host import run_workers
from fedd.host.inputs import Inputs
from fedd.host.plugin_schema import LearnerInfo
from fedd.host.run_workers import RunWorkers
from fedd.host.worker_process import WorkerProcess


def proposal(**more: Any) -> Proposal:
    fields: dict[str, Any] = {
        "federation": "f", "initiator": "me", "algorithm": "consensus", "plugin": "consensus",
        "distribution": "fedd", "version": "0", "parameters": {"iterations": 5, "tolerance": 1e-9},
        "input": "", "topology": "", "contract": "survivors",
        "seed": 1, "quorum": 1, "pace_s": 0.0, "nonce": b"",
    }  # fmt: skip
    return Proposal(**{**fields, **more})


def test_what_a_killed_daemons_workers_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "scratch" / "17-1"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    RunWorkers(str(tmp_path / "scratch"), Inputs({}, MemoryStore()))
    assert not left.exists()


async def test_a_run_alone_from_check_to_result(tmp_path: Path) -> None:
    table = tmp_path / "x.csv"
    table.write_text("4\n")
    workers = RunWorkers(str(tmp_path / "scratch"), Inputs({"x": {"file": str(table)}}, MemoryStore()))
    offer = proposal(input="x")
    with trio.fail_after(60):
        seat = await workers.prepare(offer)
        await seat.check(offer)
        start = {"kind": "start", "run_id": "r", "me": "me", "members": ["me"], "edges": [], "epoch": 1,
                 "seed": 1, "quorum": 1, "max_payload_bytes": 1000, **seat.start_fields(offer)}  # fmt: skip
        seat.process.send(start)
        frames: list[Frame] = []

        def take(frame: Frame) -> None:
            frames.append(frame)
            if frame.header["kind"] == "exchange":
                reply = {"kind": "round", "round": frame.header["round"], "from": [], "gone": []}
                seat.process.send(reply)

        assert await seat.process.run(take) == "ended with status 0"
    result = frames[-1].header
    assert result["kind"] == "result", result
    assert result["contributors"] == ["me"]
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("more", "error", "field"),
    [
        ({"parameters": {"iterations": 0, "tolerance": 1e-9}}, InvalidParameter, "iterations"),
        ({"plugin": "gone"}, PluginFailed, ""),
    ],
)
async def test_what_the_algorithm_refuses(
    tmp_path: Path, more: dict[str, Any], error: type[FeddError], field: str
) -> None:
    workers = RunWorkers(str(tmp_path), Inputs({}, MemoryStore()))
    offer = proposal(**more)
    seat = await workers.prepare(offer)
    with trio.fail_after(60), pytest.raises(error) as caught:
        await seat.check(offer)
    assert caught.value.field == field
    await seat.aclose()


async def test_what_the_learner_refuses_and_what_is_told_of_aggregators(tmp_path: Path) -> None:
    class Known:
        def learner(self, name: str) -> LearnerInfo:
            return LearnerInfo(name, "learners", "fedd", "0", "", ())

        def check_options(self, learner: str, given: Any) -> dict[str, Any]:
            return dict(given)

    configured = {"x": {"learner": "softmax", "options": {"step": -1.0}, "value": [[1, 0]]}}
    inputs = Inputs(configured, MemoryStore(), Known())
    workers = RunWorkers(str(tmp_path), inputs, aggregators=lambda: {"fedavg": "aggregators"})
    offer = proposal(input="x")
    seat = await workers.prepare(offer)
    fields = seat.start_fields(offer)
    assert fields["aggregators"] == {"fedavg": "aggregators"}
    assert fields["input"]["data"] == {"kind": "value", "name": "x", "value": [[1, 0]]}
    with trio.fail_after(60), pytest.raises(InvalidParameter, match="step must be above 0") as caught:
        await seat.check(offer)
    assert caught.value.field == "step"
    await seat.aclose()


async def test_a_worker_is_told_its_walls_for_its_plugin_and_that_of_its_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Learners:
        def learner(self, name: str) -> LearnerInfo:
            return LearnerInfo(name, "nets", "acme", "0", "", ())

        def check_options(self, learner: str, given: Any) -> dict[str, Any]:
            return {}

    async def spawn(scratch: str, max_frame_bytes: int, fds: Sequence[int], command: Sequence[str]) -> None:
        own = os.path.join(tmp_path, os.path.basename(scratch))
        assert command[1:] == ("-I", "-m", "fedd.worker", "--for", "consensus nets", "--own", own, "run")
        raise PluginFailed("seen")

    monkeypatch.setattr(WorkerProcess, "spawn", spawn)
    inputs = Inputs({"x": {"learner": "net", "options": {}}}, MemoryStore(), Learners())
    workers = RunWorkers(str(tmp_path), inputs, walls=lambda plugins: ("--for", " ".join(plugins)))
    with pytest.raises(PluginFailed, match="seen"):
        await workers.prepare(proposal(input="x"))


async def test_a_plugin_that_is_never_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_workers, "CHECK_TIMEOUT_S", 0.2)
    workers = RunWorkers(str(tmp_path), Inputs({}, MemoryStore()), command=("/bin/sleep",))
    seat = await workers.prepare(proposal())
    with pytest.raises((TimedOut, PluginFailed)):
        await seat.check(proposal())
    await seat.aclose()


async def test_a_missing_input_costs_no_process(tmp_path: Path) -> None:
    workers = RunWorkers(str(tmp_path), Inputs({}, MemoryStore()), command=("/no/such",))
    with pytest.raises(NotFound):
        await workers.prepare(proposal(input="x"))
    with pytest.raises(PluginFailed):
        await workers.prepare(proposal())
