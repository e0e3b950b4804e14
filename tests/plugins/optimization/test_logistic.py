"""Breast-cancer logistic regression, split by label: no node sees both classes, all but one or two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plugins.optimization.problems import Logistic, Vector, run, values
from sklearn.datasets import load_breast_cancer

from fedd_optimization import DGD, EXTRA, ExactDiffusion, GradientTracking

NODES = 8
STEPS = 3000
STEP = 0.08
LAMBDA = 0.1


def by_label() -> list[Logistic]:
    """Standardised features, the samples sorted by label and cut into eight."""
    data = load_breast_cancer()
    x = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    signs = np.where(data.target > 0, 1.0, -1.0)
    parts = np.array_split(np.argsort(data.target, kind="stable"), NODES)
    return [Logistic(x[part], signs[part], LAMBDA) for part in parts]


def optimum(learners: list[Logistic]) -> Vector:
    """The minimiser of the sum, by Newton's method."""
    x = np.zeros(30)
    for _ in range(20):
        hessian = np.zeros((30, 30))
        for each in learners:
            right = 1 / (1 + np.exp(-each.signed @ x))
            curved = each.signed * (right * (1 - right))[:, None]
            hessian += curved.T @ each.signed / len(right) + LAMBDA * np.eye(30)
        x = x - np.linalg.solve(hessian, sum(each.slope(x) for each in learners))
    return x


@pytest.mark.long
@pytest.mark.parametrize(
    "algorithm",
    [
        GradientTracking(iterations=STEPS, step=STEP, history=0),
        EXTRA(iterations=STEPS, step=STEP, history=0),
        ExactDiffusion(iterations=STEPS, step=STEP, history=0),
    ],
    ids=lambda each: each.name,
)
def test_exact_methods_reach_the_central_optimum(algorithm: Any) -> None:
    learners = by_label()
    assert np.abs(values(run(algorithm, learners)) - optimum(learners)).max() < 1e-10


def test_the_exact_methods_gain_a_digit_in_every_few_hundred_steps() -> None:
    learners = by_label()
    reached = values(run(GradientTracking(iterations=400, step=0.2, history=0), learners))
    assert np.abs(reached - optimum(learners)).max() < 1e-4


@pytest.mark.long
def test_gradient_descent_stays_off_by_its_bias() -> None:
    learners = by_label()
    reached = values(run(DGD(iterations=STEPS, step=STEP, history=0), learners))
    assert 1.4e-2 < np.abs(reached - optimum(learners)).max() < 1.8e-2
