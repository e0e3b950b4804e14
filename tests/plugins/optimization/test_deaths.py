"""What a death does to the answer of each method."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from plugins.optimization.problems import Quadratic, line_weights, run, values
from plugins.optimization.test_least_squares import fixed_point

from fedd.testing import Kill, Reach
from fedd_optimization import DGD, DSGD, EXTRA, KGT, ExactDiffusion, GradientTracking, GTAdam

NODES = 5
VICTIM = 2
LINE = [3, 4, 0, 1]
"""The survivors, in the order of the line that the ring becomes."""

EXACT = [
    GradientTracking(iterations=450, step=0.1, history=0),
    GTAdam(iterations=800, step=0.012, history=0),
    KGT(iterations=450, step=0.04, local_steps=3, history=0),
    EXTRA(iterations=400, step=0.2, history=0),
    ExactDiffusion(iterations=400, step=0.2, history=0),
]


@pytest.mark.parametrize("algorithm", EXACT, ids=lambda each: each.name)
def test_exact_methods_end_at_the_survivors_optimum(algorithm: Any) -> None:
    problem = Quadratic(NODES)
    results = run(algorithm, problem.learners, kills=[Kill(VICTIM, 40, "one")])
    assert np.abs(values(results) - problem.optimum(LINE)).max() < 1e-9
    for result in results:
        if not result.killed:
            assert [drop.peer_id for drop in result.dropped] == ["node-02"]
            assert result.contributors == ("node-00", "node-01", "node-03", "node-04")


@pytest.mark.parametrize("reaches", ["none", "one", "some", "all"])
@pytest.mark.parametrize("round", [0, 1, 7])
def test_tracking_bears_a_death_in_any_round(round: int, reaches: Reach) -> None:
    problem = Quadratic(5, seed=round)
    algorithm = GradientTracking(iterations=200, step=0.15, history=0)
    results = run(algorithm, problem.learners, topology="complete", kills=[Kill(1, round, reaches)])
    assert np.abs(values(results) - problem.optimum([0, 2, 3, 4])).max() < 1e-9


def test_tracking_bears_two_deaths() -> None:
    problem = Quadratic(7)
    kills = [Kill(1, 5, "one"), Kill(4, 6, "some")]
    algorithm = GradientTracking(iterations=400, step=0.1, history=0)
    results = run(algorithm, problem.learners, topology="complete", kills=kills)
    assert np.abs(values(results) - problem.optimum([0, 2, 3, 5, 6])).max() < 1e-9


def test_a_split_graph_gives_each_side_its_own_optimum() -> None:
    problem = Quadratic(5)
    algorithm = GradientTracking(iterations=500, step=0.1, history=0)
    results = run(algorithm, problem.learners, topology="line", kills=[Kill(2, 30)], quorum=1)
    reached = values(results)
    assert np.abs(reached[:2] - problem.optimum([0, 1])).max() < 1e-9
    assert np.abs(reached[2:] - problem.optimum([3, 4])).max() < 1e-9


@pytest.mark.parametrize("form", ["standard", "cta", "atc"])
def test_gradient_descent_goes_on_to_the_survivors_fixed_point(
    form: Literal["standard", "cta", "atc"],
) -> None:
    problem = Quadratic(NODES)
    algorithm = DGD(iterations=380, step=0.1, form=form, history=0)
    results = run(algorithm, problem.learners, kills=[Kill(VICTIM, 40, "one")])
    expected = fixed_point(form, line_weights(len(LINE)), problem, LINE, 0.1)
    by_node = dict(zip(LINE, expected, strict=True))
    for result in results:
        if not result.killed:
            assert np.abs(np.asarray(result.value) - by_node[result.node]).max() < 1e-9


def test_stochastic_descent_goes_on_to_the_survivors_fixed_point() -> None:
    """With all samples and one local step it is adapt then combine."""
    problem = Quadratic(NODES)
    algorithm = DSGD(iterations=380, step=0.1, batch=0, history=0)
    results = run(algorithm, problem.learners, kills=[Kill(VICTIM, 40, "one")])
    expected = fixed_point("atc", line_weights(len(LINE)), problem, LINE, 0.1)
    by_node = dict(zip(LINE, expected, strict=True))
    for result in results:
        if not result.killed:
            assert np.abs(np.asarray(result.value) - by_node[result.node]).max() < 1e-9
