"""New epochs: the contract restart, late members, and descent without rounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plugins.optimization.problems import LeastSquares, Quadratic, Vector, run, values

from fedd.api import InvalidMessage
from fedd.testing import Federation, Join, Kill
from fedd_optimization import ADPSGD, EXTRA, ExactDiffusion, GradientTracking, mixing
from fedd_optimization.asynchronous import _Pair


@pytest.mark.parametrize("contract", ["restart", "survivors"])
@pytest.mark.parametrize(
    "algorithm",
    [EXTRA(iterations=180, step=0.25, history=0), ExactDiffusion(iterations=180, step=0.25, history=0)],
    ids=lambda each: each.name,
)
def test_corrected_methods_bear_a_death_by_either_contract(algorithm: Any, contract: str) -> None:
    problem = Quadratic(5)
    kills = [Kill(1, 60, "one")]
    results = run(algorithm, problem.learners, "complete", kills=kills, contract=contract)
    assert np.abs(values(results) - problem.optimum([0, 2, 3, 4])).max() < 1e-9
    assert {result.epoch for result in results if not result.killed} == {2 if contract == "restart" else 1}


def test_a_late_member_counts_from_its_epoch_on() -> None:
    problem = Quadratic(4)
    algorithm = GradientTracking(iterations=330, step=0.15, history=0)
    results = run(algorithm, problem.learners, "complete", joins=[Join(3, 100)])
    assert np.abs(values(results) - problem.optimum()).max() < 1e-9
    late, early = (problem.learners[node].seen for node in (3, 0))
    assert len(late) < len(early)
    assert np.abs(late[0]).max() > 0.1  # it began at the others' iterate, not at zero


class GivesUp(LeastSquares):
    """Fails at its sixtieth gradient."""

    def __init__(self, like: LeastSquares) -> None:
        self.__dict__.update(like.__dict__)

    def slope(self, x: Vector) -> Vector:
        if len(self.seen) > 60:
            raise RuntimeError("no power")
        return super().slope(x)


@pytest.mark.parametrize("loses_one", [False, True])
def test_asynchronous_descent_ends_near_the_optimum_of_those_who_stayed(loses_one: bool) -> None:
    problem = Quadratic(4, unlike=0.1)
    learners: list[Any] = list(problem.learners)
    if loses_one:
        learners[1] = GivesUp(problem.learners[1])
    algorithm = ADPSGD(iterations=200, step=0.03, batch=0)
    federation = Federation(4, topology="complete", latency_s=(0.001, 0.02))
    results = federation.run(algorithm, learners)
    stayed = [node for node in range(4) if not (loses_one and node == 1)]
    assert [result.node for result in results if result.error is None] == stayed
    reached = np.array([results[node].value for node in stayed])
    assert np.abs(reached.mean(axis=0) - problem.optimum(stayed)).max() < 0.02
    assert np.abs(reached - problem.optimum(stayed)).max() < 0.05
    assert results[0].metrics["iteration"] == 200


def test_asking_keeps_the_sum_of_the_iterates() -> None:
    """Without gradients (all objectives flat) averages move mass between nodes and none is lost."""
    learners = []
    for node in range(5):
        flat = LeastSquares(np.zeros((1, 2)), np.zeros(1))
        flat.x = np.array([float(node), -3.0 * node])
        learners.append(flat)
    algorithm = ADPSGD(iterations=60, start="model", batch=0, history=0)
    reached = values(run(algorithm, learners, "complete", latency_s=(0.001, 0.02)))
    assert np.abs(reached.sum(axis=0) - [10.0, -30.0]).max() < 1e-12
    assert np.abs(reached - [2.0, -6.0]).max() < 1e-3


@pytest.mark.parametrize("piece_bytes", [8, 16])
def test_iterates_that_are_asked_for_in_parts_keep_their_sum(
    monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    monkeypatch.setattr(mixing, "CHUNK_BYTES", piece_bytes)
    learners = []
    for node in range(4):
        flat = LeastSquares(np.zeros((1, 3)), np.zeros(1))
        flat.x = np.array([float(node), -3.0 * node, 0.5])
        learners.append(flat)
    algorithm = ADPSGD(iterations=50, start="model", batch=0)
    results = run(algorithm, learners, "complete", latency_s=(0.001, 0.02))
    reached = values(results)
    assert np.abs(reached.sum(axis=0) - [6.0, -18.0, 2.0]).max() < 1e-12
    assert np.abs(reached - [1.5, -4.5, 0.5]).max() < 1e-3
    assert results[0].metrics["bytes"] == 50 * 3 * 8


def test_a_death_between_the_parts_of_an_iterate_leaves_the_others_near_their_optimum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mixing, "CHUNK_BYTES", 8)
    problem = Quadratic(4, unlike=0.1)
    learners: list[Any] = list(problem.learners)
    learners[1] = GivesUp(problem.learners[1])
    algorithm = ADPSGD(iterations=200, step=0.03, batch=0, history=0)
    results = Federation(4, topology="complete", latency_s=(0.001, 0.02)).run(algorithm, learners)
    reached = np.array([results[node].value for node in (0, 2, 3)])
    assert np.abs(reached - problem.optimum([0, 2, 3])).max() < 0.05


@pytest.mark.parametrize(
    "message", [np.zeros(2), [0, np.zeros(3)], [1, np.zeros(2)], [0, np.full(2, np.nan)], [0.0, np.zeros(2)]]
)
def test_what_is_no_part_of_an_iterate_is_refused(message: Any) -> None:
    pair = _Pair()
    assert pair.asked("a", message) is None  # not ready yet
    pair.x = np.ones(2)
    with pytest.raises(InvalidMessage, match="a sent something else"):
        pair.asked("a", message)
    assert (pair.x == 1).all()
