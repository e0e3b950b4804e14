"""NVFlare's example: a network of 67,074 parameters tells two moons apart, on a ring of six."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plugins.optimization.problems import run
from sklearn.datasets import make_moons

from fedd_learners import NumpyMlp
from fedd_optimization import DGD, GradientTracking, GTAdam

NODES = 6


def moons(nodes: int = NODES) -> list[NumpyMlp]:
    """128 samples a node, 20 to test, and first weights as PyTorch's `Linear` has them, unlike on all."""
    x_test, y_test = make_moons(n_samples=20, noise=0.1, random_state=42)
    learners = []
    for node in range(nodes):
        x, y = make_moons(n_samples=128, noise=0.1, random_state=node)
        rng = np.random.default_rng(node)
        learner = NumpyMlp(hidden="256,256")
        learner.prepare({"x": x, "y": y.astype(float), "x_test": x_test, "y_test": y_test.astype(float)}, rng)
        weights = []
        for array in learner.parameters():
            if array.ndim == 2:
                bound = 1 / np.sqrt(array.shape[0])
            weights.append(rng.uniform(-bound, bound, array.shape).astype(np.float32))
        learner.load(weights)
        learners.append(learner)
    return learners


def accuracies(algorithm: Any) -> list[float]:
    return [float(result.metrics["accuracy"]) for result in run(algorithm, moons())]


@pytest.mark.long
@pytest.mark.parametrize(
    ("algorithm", "least", "most"),
    [
        (DGD(iterations=1000, form="cta", batch=64, start="model", history=0), 0.80, 0.90),
        (
            GradientTracking(iterations=1000, batch=64, start="model", zero_start=True, history=0),
            0.80,
            0.90,
        ),
        (GTAdam(iterations=1000, batch=64, start="model", zero_start=True, history=0), 1.0, 1.0),
    ],
    ids=lambda each: getattr(each, "name", None),
)
def test_the_accuracies_are_those_of_nvflare(algorithm: Any, least: float, most: float) -> None:
    found = accuracies(algorithm)
    assert least <= np.mean(found) <= most
