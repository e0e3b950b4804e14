"""Means of models: FedAvg and FedProx."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from fedd.api import Aggregate, Contribution, LocalTraining, TrainResult
from fedd_aggregators.arithmetic import back, weighted_mean
from fedd_aggregators.screens import screened

if TYPE_CHECKING:
    from fedd.api.types import Array, FloatArray


def mean_of(contributions: Sequence[Contribution]) -> list[FloatArray]:
    """The mean of their models, weighted by their samples."""
    return weighted_mean([each.model for each in contributions], [each.num_samples for each in contributions])


def as_model(means: Sequence[FloatArray], model: Sequence[Array]) -> list[Array]:
    """float64 arrays in the types of the model's."""
    return [back(mean, old) for mean, old in zip(means, model, strict=True)]


@dataclass(frozen=True)
class Plain:
    """What an aggregator without a state does, that asks nothing of its members' training."""

    def start(self, model: Sequence[Array]) -> list[Array]:
        """No state."""
        return []

    def before(self, model: Sequence[Array], state: Sequence[Array], own: Sequence[Array]) -> LocalTraining:
        """Train as the learner does alone."""
        return LocalTraining()

    def after(
        self,
        model: Sequence[Array],
        trained: Sequence[Array],
        result: TrainResult,
        state: Sequence[Array],
        own: Sequence[Array],
    ) -> tuple[list[Array], list[Array]]:
        """Nothing to keep, nothing to add."""
        return [], []


@dataclass(frozen=True)
class FedAvg(Plain):
    """The mean of the models, each weighted by the samples it was trained on.

    x' = sum_i n_i x_i / sum_i n_i over the members that contributed in this round.

    Source: B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Aguera y Arcas, "Communication-efficient learning
    of deep networks from decentralized data", AISTATS 2017, algorithm 1.
    """

    name: ClassVar[str] = "fedavg"
    mean: ClassVar[bool] = True

    def aggregate(
        self, model: Sequence[Array], contributions: Sequence[Contribution], state: Sequence[Array]
    ) -> Aggregate:
        """The weighted mean. Raises InvalidParameter when no contribution passes the screens."""
        kept, left_out = screened(self.name, model, contributions)
        if len(kept) == 1:  # as when the mean was made on its way: it is what it is, in its own types
            return Aggregate(list(kept[0].model), [], left_out)
        return Aggregate(as_model(mean_of(kept), model), [], left_out)


@dataclass(frozen=True)
class FedProx(FedAvg):
    """FedAvg whose members stay near the round's model while they train.

    Each member minimises f_i(w) + mu/2 |w - x|^2: its learner adds mu (w - x) to every gradient.

    Source: T. Li, A. K. Sahu, M. Zaheer, M. Sanjabi, A. Talwalkar, V. Smith, "Federated optimization in
    heterogeneous networks", MLSys 2020, algorithm 2.
    """

    name: ClassVar[str] = "fedprox"
    mu: float = field(default=0.01, metadata={"help": "weight of the pull towards the round's model"})

    def __post_init__(self) -> None:
        if not 0 <= self.mu < math.inf:
            raise ValueError(f"mu must be 0 or more, not {self.mu:g}")

    def before(self, model: Sequence[Array], state: Sequence[Array], own: Sequence[Array]) -> LocalTraining:
        """Add mu (w - x) to every gradient."""
        return LocalTraining(proximal=self.mu)
