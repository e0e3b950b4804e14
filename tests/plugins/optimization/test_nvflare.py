"""NVFlare's conventions, iterate by iterate: what its DGD, GT and GTADAM executors compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plugins.optimization.problems import Matrix, Quadratic, run

from fedd_optimization import DGD, GradientTracking, GTAdam

NODES = 4
EDGES = {(0, 1): 0.25, (1, 2): 0.4, (2, 3): 0.15, (0, 2): 0.2}
ITERATIONS = 40
STEP = 0.05


def weights() -> Matrix:
    """Of `Neighbor(id, weight)`; a node keeps what its neighbours leave."""
    w = np.zeros((NODES, NODES))
    for (a, b), weight in EDGES.items():
        w[a, b] = w[b, a] = weight
    return w + np.diag(1 - w.sum(axis=1))


def topology() -> str:
    rows = [
        f"node-{a:02d},node-{b:02d},{weight}"
        for (low, high), weight in EDGES.items()
        for a, b in ((low, high), (high, low))
    ]
    return "edges:" + "\n".join(rows)


class Reference:
    """The executors' loops over all nodes at once, rows of x are nodes; gradients of the same problem."""

    def __init__(self, problem: Quadratic) -> None:
        self.learners = problem.learners
        self.x = np.zeros((NODES, problem.size))

    def gradients(self) -> Matrix:
        return np.array([each.slope(row) for each, row in zip(self.learners, self.x, strict=True)])

    def dgd(self) -> list[Matrix]:
        w, seen = weights(), []
        for _ in range(ITERATIONS):
            self.x = w @ self.x
            seen.append(self.x)
            self.x = self.x - STEP * self.gradients()
        return [*seen, self.x]

    def tracking(self, adam: GTAdam | None = None) -> list[Matrix]:
        w, seen = weights(), []
        tracker = np.zeros_like(self.x)
        old, first, second = tracker, tracker, tracker
        for _ in range(ITERATIONS):
            descent = tracker
            if adam is not None:
                first = adam.beta1 * first + (1 - adam.beta1) * tracker
                second = np.minimum(adam.beta2 * second + (1 - adam.beta2) * tracker**2, adam.cap)
                descent = first / np.sqrt(second + adam.epsilon)
            self.x = w @ self.x - STEP * descent
            seen.append(self.x)
            gradient = self.gradients()
            tracker = w @ tracker + gradient - old
            old = gradient
        return [*seen, self.x]


ADAM = GTAdam(iterations=ITERATIONS, step=STEP, zero_start=True, epsilon=1e-8, history=0)
CAPPED = GTAdam(iterations=ITERATIONS, step=STEP, zero_start=True, epsilon=1e-3, cap=1e-3, history=0)


@pytest.mark.parametrize(
    "algorithm",
    [
        DGD(iterations=ITERATIONS, step=STEP, form="cta", history=0),
        GradientTracking(iterations=ITERATIONS, step=STEP, zero_start=True, history=0),
        ADAM,
        CAPPED,
    ],
)
def test_every_iterate_is_nvflares(algorithm: Any) -> None:
    problem, reference = Quadratic(NODES), Reference(Quadratic(NODES))
    match algorithm:
        case DGD():
            expected = reference.dgd()
        case GTAdam():
            assert algorithm is CAPPED or algorithm.cap == 1e6
            expected = reference.tracking(algorithm)
        case _:
            expected = reference.tracking()
    run(algorithm, problem.learners, topology=topology())
    seen = np.array([each.seen for each in problem.learners]).swapaxes(0, 1)
    assert seen.shape == (ITERATIONS + 1, NODES, problem.size)
    assert np.abs(seen - np.array(expected)).max() < 1e-11


def test_a_tracker_that_starts_from_the_gradient_differs_from_the_first_step_on() -> None:
    problem = Quadratic(NODES)
    run(GradientTracking(iterations=2, step=STEP, history=0), problem.learners, topology=topology())
    expected = Reference(Quadratic(NODES)).tracking()
    assert np.abs(problem.learners[0].seen[1] - expected[0][0]).max() > 1e-3
