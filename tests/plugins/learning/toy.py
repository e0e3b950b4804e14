"""A learner whose training is known beforehand, and what must come out of a run with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedd.api import Message, TrainResult

if TYPE_CHECKING:
    from fedd.api.types import Array


@dataclass
class Toy:
    """Training adds numbers to the model that depend on the member and the model alone."""

    name: ClassVar[str] = "toy"
    number: int = 0
    samples: int = 10
    size: int = 7
    diverges_at: int = -1
    fails_at: int = -1
    label: str = ""
    trainings: int = 0
    model: list[Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.number)
        self.model = [rng.normal(size=(self.size, 3)).astype(np.float32), rng.normal(size=self.size)]

    def prepare(self, data: Message, rng: np.random.Generator) -> None:
        """Nothing to prepare."""

    def parameters(self) -> list[Array]:
        return [array.copy() for array in self.model]

    def load(self, parameters: Sequence[Array]) -> None:
        self.model = [np.array(array) for array in parameters]

    def train(self, *, epochs: int = 0, steps: int = 0) -> TrainResult:
        self.trainings += 1
        if self.trainings == self.fails_at:
            raise ZeroDivisionError("the sensor is broken")
        self.model = trained(self.model, self.number)
        if self.trainings == self.diverges_at:
            self.model[0][0, 0] = np.nan
        metrics: Mapping[str, float] = {f"samples_of.{self.label}": self.samples} if self.label else {}
        return TrainResult(self.samples, 1, metrics=metrics)

    def evaluate(self) -> dict[str, float]:
        return {"loss": float(np.abs(self.model[0]).sum()), "accuracy": 1 / (1 + self.number)}


def trained(model: Sequence[Array], number: int) -> list[Array]:
    """What a training of member `number` makes of a model."""
    return [(array * 0.9 + np.sin(array + number)).astype(array.dtype) for array in model]


def averaged(models: Sequence[Sequence[Array]], weights: Sequence[int]) -> list[Array]:
    """FedAvg's mean, written down once more."""
    weights = [weight // math.gcd(*weights) for weight in weights]
    total = sum(weights)
    found = []
    for arrays in zip(*models, strict=True):
        mean = sum(w * a.astype(np.float64) for w, a in zip(weights, arrays, strict=True)) / total
        found.append(np.asarray(mean).astype(arrays[0].dtype))
    return found
