"""Optimisation among real daemons: bit for bit what the simulation gives, and a death in the middle."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation.daemons import Federation, federation, result_of

import fedd.testing
from fedd_learners import LeastSquares, Softmax
from fedd_learners.digits import split_digits
from fedd_learners.partition import dirichlet
from fedd_optimization import KGT, GradientTracking

TRIALS = int(os.environ.get("FEDD_DEATH_TRIALS", "1"))
NODES = 5
STEP = 0.15
ITERATIONS = 350


def tables(nodes: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(nodes):
        a = rng.normal(size=(20, 3))
        found.append({"A": a, "b": a @ (1.0 + rng.normal(size=3))})
    return found


def optimum(data: list[dict[str, Any]]) -> Any:
    hessian = sum(each["A"].T @ each["A"] / len(each["b"]) for each in data)
    return np.linalg.solve(hessian, sum(each["A"].T @ each["b"] / len(each["b"]) for each in data))


@contextmanager
def devices(folder: Path, learner: str, data: list[dict[str, Any]]) -> Iterator[Federation]:
    """Daemons with an input `here`: this learner over a .npz file of their own."""
    configs = []
    for index, arrays in enumerate(data):
        path = folder / f"{index}.npz"
        np.savez(path, **arrays)
        configs.append(f'[inputs.here]\n{learner}\nfile = "{path}"\n')
    with federation(len(data), configs=configs) as fed:
        yield fed


def simulated(fed: Federation, learner: Any, data: list[dict[str, Any]], algorithm: Any) -> dict[str, Any]:
    """Peer id -> the answer of `fedd.testing` among the same members on a ring, seed 7."""
    by_peer = dict(sorted((d.peer_id(), each) for d, each in zip(fed, data, strict=True)))
    inputs = [fedd.testing.Device(learner, each) for each in by_peer.values()]
    results = fedd.testing.Federation(list(by_peer), topology="ring", seed=7).run(algorithm, inputs)
    return {result.peer_id: result.value for result in results}


def as_lists(value: Any) -> Any:
    """JSON has the shortest decimals that name one float, so equal here is equal to the bit."""
    return [as_lists(each) for each in value] if isinstance(value, list) else value.tolist()


RUN = ("--input", "here", "--topology", "ring", "--seed", "7")


@pytest.mark.slow
def test_tracking_gives_the_same_bits_as_the_simulation(tmp_path: Path) -> None:
    data = tables(4)
    with devices(tmp_path, 'learner = "least-squares"', data) as fed:
        run = fed[1].ctl("run", "gradient-tracking", "iterations=60", f"step={STEP}", *RUN).ok()
        expected = simulated(fed, LeastSquares(), data, GradientTracking(iterations=60, step=STEP))
        for daemon in fed:
            assert result_of(daemon, run["run_id"])["value"] == as_lists(expected[daemon.peer_id()])


@pytest.mark.long
def test_ten_daemons_learn_digits_as_one_process_does(tmp_path: Path) -> None:
    train, test = split_digits()
    parts = dirichlet(train.y, 10, 0.1, np.random.default_rng(0))
    data = [
        {"x": train.x[p], "y": train.y[p].astype(float), "x_test": test.x, "y_test": test.y.astype(float)}
        for p in parts
    ]
    algorithm = KGT(iterations=60, step=0.5, local_steps=10)
    with devices(tmp_path, 'learner = "softmax"\nclasses = 10\nbatch = 32', data) as fed:
        run = fed[3].ctl("run", "k-gt", "iterations=60", "step=0.5", "local_steps=10", *RUN).ok()
        expected = simulated(fed, Softmax(classes=10, batch=32), data, algorithm)
        for daemon in fed:
            result = result_of(daemon, run["run_id"])
            assert result["value"] == as_lists(expected[daemon.peer_id()])


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(TRIALS))
def test_the_killed_ones_data_does_not_count(tmp_path: Path, trial: int) -> None:
    rng = random.Random(trial)
    data = tables(NODES)
    with devices(tmp_path, 'learner = "least-squares"', data) as fed:
        victim = rng.randrange(NODES)
        starter = rng.randrange(NODES)
        command = ("run", "gradient-tracking", f"iterations={ITERATIONS}", f"step={STEP}", "history=0")
        topology = ("--input", "here", "--topology", "complete", "--pace", fed.pace(0.01), "--detach")
        run_id = fed[starter].ctl(*command, *topology).ok()["run_id"]
        watcher = fed[(victim + 1) % NODES]
        target = rng.randrange(5, 60)
        watcher.wait_round(run_id, target)
        fed[victim].kill()
        expected = optimum([each for index, each in enumerate(data) if index != victim])
        for daemon in fed.survivors():
            result = result_of(daemon, run_id)
            assert result["state"] == "finished", result
            assert len(result["contributors"]) == NODES - 1
            assert np.abs(np.array(result["value"]) - expected).max() < 1e-9
