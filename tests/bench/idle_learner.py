"""A learner whose training does nothing but note when it began: a plugin for tests/bench/learning.py."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedd.api import Learner, Message, TrainResult, hookimpl

if TYPE_CHECKING:
    from fedd.api.types import Array


@dataclass
class Idle:
    """A model of zeros that stays what it is."""

    name: ClassVar[str] = "bench-idle"
    size: int = field(default=10_000, metadata={"help": "float32 values of the model"})
    notes: str = field(default="", metadata={"help": "file for the times at which trainings begin"})

    def prepare(self, data: Message, rng: np.random.Generator) -> None:
        """Make the model."""
        self.model: list[Array] = [np.zeros(self.size, np.float32)]

    def parameters(self) -> list[Array]:
        """A copy."""
        return [array.copy() for array in self.model]

    def load(self, parameters: Sequence[Array]) -> None:
        """Take it over."""
        self.model = list(parameters)

    def train(self, *, epochs: int = 0, steps: int = 0) -> TrainResult:
        """Do nothing."""
        with Path(self.notes).open("a") as notes:
            notes.write(f"{time.monotonic()!r}\n")
        return TrainResult(1, 1)

    def evaluate(self) -> dict[str, float]:
        """Do nothing."""
        return {"loss": 0.0}


@hookimpl
def fedd_register_learners() -> list[type[Learner]]:
    """Register it."""
    return [Idle]
