"""What is foreseen before the first iteration is what happens; steps beyond the bound diverge and say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plugins.optimization.problems import LeastSquares, Logistic, Quadratic, run, values

from fedd.api import Spectrum
from fedd.testing import Federation
from fedd_optimization import (
    ADPSGD,
    DGD,
    DSGD,
    EXTRA,
    KGT,
    ChocoSGD,
    ExactDiffusion,
    GradientTracking,
    GTAdam,
    PushPull,
    modes,
)
from fedd_optimization.bounds import curvature
from fedd_optimization.growth import Growth

RING = Spectrum(2 / 3, 2 / 3, -1 / 3)
"""Of six with weights of a third."""

METHODS: list[Callable[[float, int], Any]] = [
    lambda step, count: DGD(step=step, iterations=count),
    lambda step, count: DGD(step=step, iterations=count, form="cta"),
    lambda step, count: DGD(step=step, iterations=count, form="atc"),
    lambda step, count: DSGD(step=step, iterations=count, batch=0, local_steps=2),
    lambda step, count: GradientTracking(step=step, iterations=count),
    lambda step, count: KGT(step=step, iterations=count, local_steps=3, mixing_step=0.7),
    lambda step, count: EXTRA(step=step, iterations=count),
    lambda step, count: ExactDiffusion(step=step, iterations=count),
    lambda step, count: PushPull(step=step, iterations=count),
    lambda step, count: ChocoSGD(step=step, iterations=count, batch=0, codec="none", gamma=0.8),
]


def alike(nodes: int = 6) -> Quadratic:
    """All with the Hessian of the first, and optima of their own."""
    problem = Quadratic(nodes)
    for each in problem.learners:
        each.hessian = problem.learners[0].hessian
    return problem


@pytest.mark.parametrize("make", METHODS, ids=lambda make: type(make(0.1, 1)).__name__)
def test_the_iterations_to_a_millionth_are_foreseen(make: Callable[[float, int], Any]) -> None:
    bound = float(run(make(1e-3, 1), alike(4).learners)[0].metrics["step_bound"])
    step = 0.6 * bound
    foreseen = run(make(step, 1), alike(4).learners)[0].metrics
    count = int(foreseen["predicted_iterations"])
    assert foreseen["predicted_bytes"] == count * foreseen["planned_bytes"]

    def after(iterations: int) -> Any:
        return values(run(replace(make(step, iterations), history=0), alike(4).learners))

    limit = after(2 * count)
    first = np.abs(limit).max()
    reached = np.abs(after(count) - limit).max() / first
    assert 1e-8 < reached < 1e-5
    assert np.abs(after(count // 2) - limit).max() / first > 50 * reached


@pytest.mark.parametrize(
    ("found", "bound"),
    [
        (modes.STANDARD, 1 - 1 / 3),
        (modes.DIFFUSION, 2.0),
        (modes.EXACT_DIFFUSION, 2.0),
        (modes.TRACKING, (1 - 1 / 3) ** 2 / 2),
        (modes.EXTRA, (5 + 3 * (-1 / 3)) / 4),  # Li, Yan (2021): what is proven stops at 2/3
        (modes.local_descent(3), 2.0),
    ],
)
def test_the_bounds_are_those_of_the_modes(found: modes.Modes, bound: float) -> None:
    assert found.largest_step(RING) == pytest.approx(bound, abs=2e-3)


def test_a_mean_that_bears_more_than_is_tried_has_the_largest_step_tried() -> None:
    still = modes.Modes(lambda w, h: 0.5 + 0 * w * h, lambda h: 0.5 + 0 * h)
    assert still.largest_step(RING) == 4.0


@pytest.mark.parametrize("method", [GradientTracking, PushPull])
def test_a_step_beyond_the_bound_of_tracking_warns_and_fails(method: Any) -> None:
    bound = float(run(method(step=1e-3, iterations=1), alike().learners)[0].metrics["step_bound"])
    near = run(method(step=0.93 * bound, iterations=400), alike().learners)
    assert "warning" not in near[0].metrics
    assert np.abs(values(near) - alike().optimum()).max() < 1e-2
    beyond = Federation(6, topology="ring").run(method(step=1.3 * bound, iterations=4000), alike().learners)
    assert all(result.error is not None for result in beyond)
    assert any("diverged in iteration" in str(result.error) for result in beyond)
    assert all(result.rounds < 1000 for result in beyond)
    assert {"beyond", "seems"} & set(str(beyond[0].metrics["warning"]).split())


def test_a_run_that_is_too_short_to_overflow_fails_all_the_same() -> None:
    """A finished run whose answer is 1e43 would be a lie."""
    results = Federation(4).run(GradientTracking(step=20.0, iterations=30, history=0), Quadratic(4).learners)
    assert all(result.error is not None for result in results)
    assert any("take a smaller step than 20" in str(result.error) for result in results)


def test_growth_is_told_in_the_metrics_before_it_is_a_failure() -> None:
    bound = float(run(GradientTracking(step=1e-3, iterations=1), alike().learners)[0].metrics["step_bound"])
    results = run(GradientTracking(step=1.1 * bound, iterations=450), alike().learners)
    assert all("seems to diverge" in str(result.metrics["warning"]) for result in results)


@pytest.mark.parametrize("far", [1e9, 1e-9])
def test_far_optima_and_sleeping_gradients_are_no_growth(far: float) -> None:
    growth = Growth(members=3)
    for number in range(60):
        near = 1 - 0.8**number
        assert growth.judge(far * near, far * (1 - near)) == ""
    asleep = Growth(members=3)
    for number in range(60):
        assert asleep.judge(0.0 if number < 20 else 1.0, 0.0 if number < 20 else 5.0) == ""


def test_what_grows_is_told_once_and_then_failed() -> None:
    growth = Growth(members=3)
    said = [growth.judge(2.0**number, 3 * 2.0**number) for number in range(50)]
    assert said.count("grows") == 1
    assert said.index("grows") == 22  # the largest of the first thirteen is 2^12
    assert said[41:] == ["diverged"] * 9  # more than 1e12 times the first two
    assert Growth(1).judge(float("nan"), 1.0) == "diverged"


def test_curvature_is_exact_for_few_parameters_and_flat_without_regularisation() -> None:
    rng = np.random.default_rng(4)
    a = rng.normal(size=(30, 8))
    x = rng.normal(size=8)
    learner = LeastSquares(a, rng.normal(size=30))
    found = curvature(learner.slope, x, rng)
    eigenvalues = np.linalg.eigvalsh(learner.hessian)
    assert (found.largest, found.smallest) == pytest.approx((eigenvalues[-1], eigenvalues[0]), rel=1e-5)
    ridge = Logistic(a[:3], np.sign(a[:3, 0]), regularization=0.05)
    found = curvature(ridge.slope, x, rng)
    assert found.smallest == pytest.approx(0.05, rel=1e-4)
    flat = Logistic(a[:3], np.sign(a[:3, 0]), regularization=0.0)
    assert curvature(flat.slope, x, rng).smallest == 0.0
    assert curvature(lambda x: np.full_like(x, np.inf), x, rng).largest == np.inf
    assert curvature(lambda y: y if (y == x).all() else np.full_like(y, np.nan), x, rng).largest == np.inf
    assert curvature(lambda x: x, np.zeros(0), rng).largest == 0.0


def test_what_has_no_bound_says_why() -> None:
    (adam, *_) = run(GTAdam(iterations=1), Quadratic(4).learners)
    assert "moments" in str(adam.metrics["step_bound_unknown"])
    assert not {"step_bound", "predicted_iterations", "warning"} & set(adam.metrics)
    (directed, *_) = run(DGD(iterations=1), Quadratic(4).learners, "directed-ring")
    assert "topology" in str(directed.metrics["step_bound_unknown"])
    (turns, *_) = run(PushPull(iterations=1), Quadratic(4).learners, "one-peer-exponential")
    assert "topology" in str(turns.metrics["step_bound_unknown"])
    (arcs, *_) = run(PushPull(iterations=1, step=1e-3), Quadratic(4).learners, "directed-ring")
    assert 0 < float(arcs.metrics["step_bound"]) < 2 / float(arcs.metrics["curvature"])
    (pairs, *_) = run(ADPSGD(iterations=1, step=9.0, batch=0), Quadratic(2).learners)
    assert pairs.metrics["step_bound"] == pytest.approx(2 / float(pairs.metrics["curvature"]))
    assert "predicted_iterations" not in pairs.metrics
    assert "beyond" in str(pairs.metrics["warning"])


def test_planned_bytes_are_those_that_are_sent() -> None:
    for algorithm in (
        ADPSGD(iterations=7, batch=0),
        ChocoSGD(iterations=7, batch=0),
        PushPull(iterations=7),
        KGT(iterations=7),
    ):
        (result, *_) = run(algorithm, Quadratic(4).learners)
        assert result.metrics["planned_bytes"] == result.metrics["bytes"], algorithm.name
