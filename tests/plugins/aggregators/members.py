"""Contributions made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedd.api import Contribution, TrainResult


def contribution(index: int, *arrays: Any, samples: int = 1, extra: Sequence[Any] = ()) -> Contribution:
    """Of member number `index`; lists become float32 arrays."""
    model = [np.asarray(array, getattr(array, "dtype", np.float32)) for array in arrays]
    return Contribution(f"n{index:02d}", model, samples, extra)


def points(rows: Sequence[Sequence[float]]) -> list[Contribution]:
    """Models of one array, a row each."""
    return [contribution(index, row) for index, row in enumerate(rows)]


def model_like(contributions: Sequence[Contribution]) -> list[Any]:
    """A round's model of zeros."""
    return [np.zeros_like(array) for array in contributions[0].model]


def trained(samples: int = 1, steps: int = 1, step: float = 0.1) -> TrainResult:
    return TrainResult(samples, steps, step)
