"""Learners as inputs of real daemons: configured, listed, lent to a run, declined when they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from federation.daemons import GUARD_S, eventually, federation, result_of

pytestmark = pytest.mark.slow


def table(folder: Path, seed: int) -> tuple[str, np.ndarray, np.ndarray]:
    """A .npz file with a system of 30 equations in 3 unknowns."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(30, 3))
    b = a @ [1.0, -2.0, 3.0] + rng.normal(size=30)
    path = folder / f"{seed}.npz"
    np.savez(path, A=a, b=b)
    return str(path), a, b


def config(path: str, learner: str, more: str = "") -> str:
    return f"[inputs.rows]\nfile = {json.dumps(path)}\nlearner = '{learner}'\n{more}"


def test_a_run_learns_from_every_devices_own_data(tmp_path: Path) -> None:
    systems = [table(tmp_path, seed) for seed in range(3)]
    configs = [config(path, "least-squares") for path, _, _ in systems]
    with federation(3, configs=configs) as fed:
        (shown,) = fed[0].ctl("inputs").ok()
        assert shown == {
            "name": "rows", "kind": "learner", "source": "configuration", "path": systems[0][0],
            "learner": "least-squares", "options": {},
        }  # fmt: skip
        learners = {each["name"]: each for each in fed[0].ctl("learners").ok()}
        assert {"numpy-softmax", "numpy-mlp", "sklearn", "torch", "ridge"} <= set(learners)
        assert fed[0].ctl("learners", "least-squares").ok() == learners["least-squares"]
        assert "gradient" in learners["least-squares"]["abilities"]
        (plugin,) = [each for each in fed[0].ctl("plugins").ok() if each["name"] == "learners"]
        assert "error" not in plugin
        assert plugin["learners"] == sorted(learners)

        result = fed[1].ctl("run", "gradient-tracking", "iterations=150", "step=0.3", "--input", "rows").ok()
        a = np.vstack([each for _, each, _ in systems])
        b = np.concatenate([each for _, _, each in systems])
        solved = np.linalg.lstsq(a, b, rcond=None)[0]
        for daemon in fed:
            value = result_of(daemon, result["run_id"])["value"]
            np.testing.assert_allclose(np.ravel(value), solved, atol=1e-6)


def test_a_learner_that_does_not_fit_is_named_before_it_is_needed(tmp_path: Path) -> None:
    path, _, _ = table(tmp_path, 1)
    configs = [
        config(path, "least-squares"),
        config(path, "least-squares", "stpe = 0.1\n"),
        config(path, "least-sqares"),
    ]
    with federation(3, configs=configs) as fed:
        for daemon, said in (
            (fed[1], "least-squares has no option 'stpe'"),
            (fed[2], "no learner 'least-sqares'"),
        ):
            eventually(lambda d=daemon, s=said: s in d.log.read_text(), GUARD_S, f"{daemon.name} logs {said}")
            assert (
                f"{daemon.dir}/fedd.toml:{4 if daemon is fed[1] else 3}: inputs.rows"
                in daemon.log.read_text()
            )
            (shown,) = daemon.ctl("inputs").ok()
            assert said in shown["error"]
        refused = fed[0].ctl("run", "gradient-tracking", "iterations=5", "--input", "rows")
        assert refused.code == 1
        assert "no option 'stpe'" in refused.err
        assert "no learner 'least-sqares'" in refused.err


def test_a_run_fails_with_the_learners_own_words(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("1,2\n3,4\n")
    with federation(1, configs=[config(str(path), "logistic")]) as fed:
        failed = fed[0].ctl("run", "dgd", "iterations=5", "--input", "rows")
        assert failed.code == 1
        assert "the learner logistic: the targets are 2, 4" in failed.err
        set_ = fed[0].ctl("set", "rows", "5")
        assert set_.code == 7
        assert "is a learner" in set_.err
