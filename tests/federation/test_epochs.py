"""Epochs among real daemons: contract restart after `kill -9`, members that come late, and that come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation.daemons import GUARD_S, Daemon, Federation, eventually, federation, result_of

pytestmark = pytest.mark.slow


def test_the_survivors_of_a_restarted_run_have_their_own_mean() -> None:
    with federation(4) as fed:
        values = [3.0, -1.5, 40.25, 7.0]
        fed.set_inputs(values)
        words = (
            "run",
            "consensus",
            "--input",
            "x",
            "method=chebyshev",
            "iterations=60",
            "--pace",
            fed.pace(0.05),
        )
        run_id = fed[0].ctl(*words, "--topology", "ring", "--detach").ok()["run_id"]
        fed[1].wait_round(run_id, 10)
        fed[0].kill()
        results = [result_of(daemon, run_id) for daemon in fed.survivors()]
        assert {result["state"] for result in results} == {"finished"}, results
        assert {result["epoch"] for result in results} == {2}
        assert {result["contract"] for result in results} == {"restart"}
        for result in results:
            assert result["value"] == pytest.approx(sum(values[1:]) / 3, abs=1e-6)
            assert [lost["reason"] for lost in result["dropped"]] == ["dead"]


def configured(root: Path, index: int) -> str:
    """A daemon with its own least-squares problem."""
    rng = np.random.default_rng(index)
    path = root / f"problem{index}.npz"
    np.savez(path, A=rng.normal(size=(20, 3)), b=rng.normal(size=20))
    return f'[inputs.problem]\nlearner = "least-squares"\nfile = "{path}"\n'


def iterations(daemon: Daemon, run_id: str) -> int:
    """How far the run is on this daemon, 0 when nothing was reported yet."""
    return int(daemon.shown(run_id).get("metrics", {}).get("iteration", 0))


def check(fed: Federation, run_id: str, epoch: int) -> dict[str, Any]:
    """All have finished in this epoch; one of the results."""
    results = [result_of(daemon, run_id) for daemon in fed]
    assert {result["state"] for result in results} == {"finished"}, results
    assert {result["epoch"] for result in results} == {epoch}
    assert {result["metrics"]["iteration"] for result in results} == {200}
    return results[0]


def test_a_run_goes_on_with_a_late_member_a_killed_one_and_after_a_power_cut(tmp_path: Path) -> None:
    configs = [configured(tmp_path, index) for index in range(4)]
    with federation(4, configs=configs) as fed:
        words = (
            "run",
            "dgd",
            "--input",
            "problem",
            "iterations=200",
            "--pace",
            fed.pace(0.05),
            "--members",
            "n0,n1,n2",
        )
        run_id = fed[0].ctl(*words, "--detach").ok()["run_id"]
        fed[1].wait_round(run_id, 10)
        fed[1].ctl("enlist", run_id[:12], "n3").ok()
        fed[3].wait_round(run_id, 20)
        assert fed[3].shown(run_id)["epoch"] == 2

        fed[0].kill()
        fed[0].start(config=configs[0]).wait_ready()
        fed[0].wait_round(run_id, 40)
        before = eventually(lambda: iterations(fed[0], run_id), GUARD_S, "the returned one has reported")
        shown = fed[0].shown(run_id)
        assert (shown["epoch"], shown["state"]) == (3, "running")

        for daemon in fed:
            daemon.kill()
        for daemon, config in zip(fed, configs, strict=True):
            daemon.start(config=config)
        fed[2].wait_ready()
        again = eventually(lambda: iterations(fed[2], run_id), GUARD_S, "the run goes on")
        assert again >= before - 5  # from its checkpoint, not from the beginning
        result = check(fed, run_id, 4)
        assert len(result["members"]) == 4
        assert result["dropped"] == []
        # after its result, which is shown as soon as there is one, has come to the disk
        eventually(lambda: not list(fed[2].dir.glob("checkpoints/*")), GUARD_S, "its checkpoint is gone")
