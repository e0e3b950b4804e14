"""What the aggregators reach on the digits: the figures of docs/reference/aggregators.md."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from plugins.aggregators.rounds import Experiment

from fedd.api import Aggregator
from fedd_aggregators import (
    CenteredClipping,
    CoordinateMedian,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedProx,
    FedYogi,
    GeometricMedian,
    Krum,
    MultiKrum,
    Scaffold,
    TrimmedMean,
)

SKEWED = [(FedAvg(), 0.89, 0.90), (Scaffold(), 0.90, 0.91), (FedAdam(), 0.91, 0.92)]
RELATED = [(FedProx(), 0.89, 0.90), (FedYogi(), 0.91, 0.92), (FedAdagrad(), 0.91, 0.92)]
ROBUST = [
    (CoordinateMedian(), 0.88),
    (TrimmedMean(byzantine=3), 0.88),
    (Krum(byzantine=3), 0.88),
    (MultiKrum(byzantine=3), 0.90),
    (GeometricMedian(), 0.88),
    (CenteredClipping(), 0.88),
]


def named(value: object) -> str:
    return str(getattr(value, "name", value))


@pytest.mark.parametrize(("aggregator", "softmax", "mlp"), SKEWED, ids=named)
def test_ten_skewed_members(aggregator: Aggregator, softmax: float, mlp: float) -> None:
    """Dirichlet(0.1), mean of three seeds."""
    check_skewed(aggregator, softmax, mlp, (1, 2, 3))


@pytest.mark.parametrize(("aggregator", "softmax", "mlp"), RELATED, ids=named)
def test_their_relatives(aggregator: Aggregator, softmax: float, mlp: float) -> None:
    """One seed here, three in the long run."""
    check_skewed(aggregator, softmax, mlp, (1,))


@pytest.mark.long
@pytest.mark.parametrize(("aggregator", "softmax", "mlp"), RELATED, ids=named)
def test_their_relatives_with_other_seeds(aggregator: Aggregator, softmax: float, mlp: float) -> None:
    check_skewed(aggregator, softmax, mlp, (1, 2, 3))


def check_skewed(aggregator: Aggregator, softmax: float, mlp: float, seeds: Sequence[int]) -> None:
    for model, least in (("softmax", softmax), ("mlp", mlp)):
        reached = Experiment(model).mean_accuracy(lambda: aggregator, seeds)
        assert reached >= least, f"{aggregator} with {model}: {reached:.3f}"


@pytest.mark.parametrize(("aggregator", "least"), ROBUST, ids=named)
def test_three_liars_of_ten(aggregator: Aggregator, least: float) -> None:
    """IID; one seed here, three in the long run."""
    reached = Experiment("mlp", "iid", liars=3).mean_accuracy(lambda: aggregator, seeds=(1,))
    assert reached >= least, f"{aggregator}: {reached:.3f}"


def test_the_mean_collapses_with_three_liars() -> None:
    assert Experiment("mlp", "iid", liars=3).mean_accuracy(FedAvg) < 0.15


@pytest.mark.long
@pytest.mark.parametrize(("aggregator", "least"), ROBUST, ids=named)
def test_three_liars_of_ten_with_other_seeds(aggregator: Aggregator, least: float) -> None:
    reached = Experiment("mlp", "iid", liars=3).mean_accuracy(lambda: aggregator)
    assert reached >= least, f"{aggregator}: {reached:.3f}"


def test_an_experiment_can_be_repeated() -> None:
    experiment = Experiment("mlp", rounds=3)
    assert experiment.accuracy(FedAdam(), 1) == experiment.accuracy(FedAdam(), 1)
