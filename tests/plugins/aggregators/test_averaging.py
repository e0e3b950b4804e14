"""Means and what is built on them: FedAvg, FedProx, FedAdam, FedYogi, FedAdagrad."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from plugins.aggregators.members import contribution, model_like, points, trained

from fedd.api import LocalTraining
from fedd_aggregators import FedAdagrad, FedAdam, FedAvg, FedProx, FedYogi
from fedd_aggregators.adaptive import Adaptive


def test_fedavg_weighs_by_samples_over_those_who_contributed() -> None:
    members = [contribution(0, [0.0, 4.0], samples=1), contribution(7, [4.0, 0.0], samples=3)]
    aggregate = FedAvg().aggregate(model_like(members), members, [])
    np.testing.assert_array_equal(aggregate.model[0], np.array([3.0, 1.0], np.float32))
    assert aggregate.model[0].dtype == np.float32
    assert aggregate.state == []


def test_the_mean_of_means_is_the_mean() -> None:
    """What a member computes from the premixed mean is what it would from everybody's."""
    members = [contribution(i, np.random.default_rng(i).normal(size=50), samples=i + 1) for i in range(6)]
    whole = FedAvg().aggregate(model_like(members), members, []).model[0]
    again = FedAvg().aggregate(model_like(members), [contribution(0, whole, samples=21)], []).model[0]
    assert again.tobytes() == whole.tobytes()


def test_counters_of_a_model_stay_whole_numbers() -> None:
    members = [contribution(i, np.array([3 + i, 10], np.int64)) for i in range(2)]
    model = FedAvg().aggregate(model_like(members), members, []).model[0]
    assert (model.dtype, model.tolist()) == (np.int64, [4, 10])


def test_members_of_fedavg_train_as_they_are() -> None:
    model = [np.zeros(2)]
    assert FedAvg().before(model, [], []) == LocalTraining()
    assert FedAvg().after(model, model, trained(), [], []) == ([], [])
    assert FedAvg().start(model) == []


def test_fedprox_pulls_towards_the_model() -> None:
    assert FedProx(mu=0.5).before([np.zeros(2)], [], []).proximal == 0.5
    members = points([[1.0], [3.0]])
    assert FedProx().aggregate(model_like(members), members, []).model[0].tolist() == [2.0]


@pytest.mark.parametrize(
    ("aggregator", "moment"),
    [
        (FedAdam(rate=0.5, beta1=0.8, beta2=0.9, tau=0.01), lambda v, d: 0.9 * v + 0.1 * d * d),
        (
            FedYogi(rate=0.5, beta1=0.8, beta2=0.9, tau=0.01),
            lambda v, d: v - 0.1 * d * d * math.copysign(1, v - d * d),
        ),
        (FedAdagrad(rate=0.5, beta1=0.8, tau=0.01), lambda v, d: v + d * d),
    ],
)
def test_adaptive_steps_by_hand(aggregator: Adaptive, moment: Callable[[float, float], float]) -> None:
    """Three rounds of one weight, computed from the paper's lines with Python's numbers."""
    x, m, v = 1.0, 0.0, 0.01**2
    model: list[Any] = [np.array([x])]
    state = aggregator.start(model)
    for target in (3.0, -1.0, 0.5):
        d = target - x
        m = 0.8 * m + 0.2 * d
        v = moment(v, d)
        x += 0.5 * m / (math.sqrt(v) + 0.01)
        aggregate = aggregator.aggregate(model, [contribution(0, np.array([target]))], state)
        model, state = aggregate.model, aggregate.state
        assert model[0][0] == pytest.approx(x, rel=1e-12)
        assert [float(array[0]) for array in state] == pytest.approx([m, v], rel=1e-12)


def test_the_state_of_several_arrays_keeps_its_order_and_shapes() -> None:
    model = [np.zeros((2, 3), np.float32), np.zeros(4, np.float64)]
    aggregator = FedAdam()
    state = aggregator.start(model)
    assert [array.shape for array in state] == [(2, 3), (4,), (2, 3), (4,)]
    assert [array.dtype for array in state] == [np.float32, np.float64] * 2
    moved = aggregator.aggregate(model, [contribution(0, *(array + 1 for array in model))], state)
    assert [(a.shape, a.dtype) for a in moved.state] == [(a.shape, a.dtype) for a in state]
    assert [(a.shape, a.dtype) for a in moved.model] == [(a.shape, a.dtype) for a in model]


@pytest.mark.parametrize(
    ("make", "blamed"),
    [
        (lambda: FedProx(mu=-1), "mu"),
        (lambda: FedAdam(rate=0), "rate"),
        (lambda: FedAdam(beta1=1), "beta1"),
        (lambda: FedAdam(beta2=1), "beta2"),
        (lambda: FedYogi(beta2=-0.1), "beta2"),
        (lambda: FedAdagrad(tau=0), "tau"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Callable[[], object], blamed: str) -> None:
    with pytest.raises(ValueError, match=blamed):
        make()
