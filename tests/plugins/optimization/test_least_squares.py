"""What the methods reach on least squares, how fast, and where gradient descent stops instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from plugins.optimization.problems import Matrix, Quadratic, Vector, ring_weights, run, values

from fedd_optimization import DGD, EXTRA, KGT, ExactDiffusion, GradientTracking, GTAdam

NODES = 8
SIZE = 3
FORMS: tuple[Literal["standard", "cta", "atc"], ...] = ("standard", "cta", "atc")


@pytest.mark.parametrize(
    "algorithm",
    [
        GradientTracking(iterations=350, step=0.1, history=0),
        EXTRA(iterations=220, step=0.2, history=0),
        ExactDiffusion(iterations=220, step=0.2, history=0),
        GTAdam(iterations=450, step=0.01, history=0),
        KGT(iterations=350, step=0.05, local_steps=3, history=0),
    ],
    ids=lambda each: each.name,
)
def test_the_exact_methods_reach_the_optimum_of_everybody(algorithm: Any) -> None:
    problem = Quadratic(NODES)
    reached = values(run(algorithm, problem.learners))
    assert np.abs(reached - problem.optimum()).max() < 1e-10


def tracking_matrix(w: Matrix, h: Matrix, step: float) -> Matrix:
    """Of gradient tracking on (x, y)."""
    one = np.eye(len(w))
    return np.block([[w, -step * one], [h @ (w - one), w - step * h]])


def extra_matrix(w: Matrix, h: Matrix, step: float) -> Matrix:
    """Of EXTRA as published, on (x(k+1), x(k))."""
    one = np.eye(len(w))
    return np.block([[one + w - step * h, step * h - (one + w) / 2], [one, np.zeros_like(w)]])


def diffusion_matrix(w: Matrix, h: Matrix, step: float) -> Matrix:
    """Of exact diffusion as published, on (x(k), psi(k))."""
    one = np.eye(len(w))
    half = (one + w) / 2
    psi = one - step * h
    return np.block([[half @ (psi + one), -half], [psi, np.zeros_like(w)]])


@pytest.mark.parametrize(
    ("algorithm", "matrix"),
    [(GradientTracking, tracking_matrix), (EXTRA, extra_matrix), (ExactDiffusion, diffusion_matrix)],
)
def test_the_contraction_is_the_spectral_radius_of_the_iteration(
    algorithm: Callable[..., Any], matrix: Callable[[Matrix, Matrix, float], Matrix]
) -> None:
    problem = Quadratic(NODES)
    run(algorithm(iterations=650, step=0.05, history=0), problem.learners)
    seen = np.array([each.seen for each in problem.learners])
    errors = np.linalg.norm(seen - problem.optimum(), axis=(0, 2))
    measured = (errors[650] / errors[450]) ** (1 / 200)
    mixing = np.kron(ring_weights(NODES), np.eye(SIZE))
    sizes = np.abs(np.linalg.eigvals(matrix(mixing, problem.blocks()[0], 0.05)))
    sizes = np.sort(sizes[np.abs(sizes - 1) > 1e-6])  # 1: what is conserved, as the trackers' sum
    assert measured == pytest.approx(sizes[-1], abs=1e-4)


def fixed_point(form: str, w: Matrix, problem: Quadratic, of: list[int] | None, step: float) -> Matrix:
    """Solved, a row for each node."""
    mixing = np.kron(w, np.eye(SIZE))
    hessian, linear = problem.blocks(of)
    one = np.eye(len(mixing))
    down = one - step * hessian
    match form:
        case "standard":
            x: Vector = np.linalg.solve(one - mixing + step * hessian, step * linear)
        case "cta":
            x = np.linalg.solve(one - down @ mixing, step * linear)
        case _:
            x = np.linalg.solve(one - mixing @ down, step * mixing @ linear)
    return x.reshape(len(w), SIZE)


@pytest.mark.parametrize("form", FORMS)
def test_gradient_descent_ends_at_its_fixed_point(form: Literal["standard", "cta", "atc"]) -> None:
    problem = Quadratic(NODES)
    reached = values(run(DGD(iterations=350, step=0.1, form=form, history=0), problem.learners))
    expected = fixed_point(form, ring_weights(NODES), problem, None, 0.1)
    assert np.abs(reached - expected).max() < 1e-9
    assert np.abs(reached - problem.optimum()).max() > 0.1


@pytest.mark.parametrize(
    ("form", "step"),
    [
        ("standard", 0.033),
        pytest.param("cta", 0.05, marks=pytest.mark.long),
        pytest.param("atc", 0.025, marks=pytest.mark.long),
    ],
)
def test_half_the_step_gives_nearly_half_the_bias(
    form: Literal["standard", "cta", "atc"], step: float
) -> None:
    biases = []
    for size in (step, step / 2):
        problem = Quadratic(NODES)
        reached = values(run(DGD(iterations=600, step=size, form=form, history=0), problem.learners))
        biases.append(np.linalg.norm(reached - problem.optimum()))
    assert 1.88 < biases[0] / biases[1] < 1.92
