"""The UCI optical digits: 1797 images of handwritten digits, 8 x 8 pixels, 16 levels of grey.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository (1998), https://doi.org/10.24432/C50P49, the test part (by 13 writers, none of them in the training
part), licensed CC BY 4.0. The numbers are unchanged; digits.npz holds them as compressed bytes, in the
original order.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = 10
LEVELS = 16.0
TEST_SAMPLES = 360
"""A fifth of the samples."""


@dataclass(frozen=True)
class Digits:
    """Features (n, 64) in 0 to 1 and labels (n,) from 0 to 9, float64 and int64."""

    x: NDArray[np.float64]
    y: NDArray[np.int64]


def load_digits() -> Digits:
    """All 1797 images, grey levels divided by 16."""
    with importlib.resources.files(__package__).joinpath("digits.npz").open("rb") as file:
        packed = np.load(file, allow_pickle=False)
        return Digits(packed["x"] / LEVELS, packed["y"].astype(np.int64))


def split_digits(random_state: int = 42) -> tuple[Digits, Digits]:
    """(1437 for training, 360 for testing), as scikit-learn's train_test_split takes a fifth away."""
    digits = load_digits()
    # the legacy generator, because published figures come from this split
    order = np.random.RandomState(random_state).permutation(len(digits.y))
    test, train = order[:TEST_SAMPLES], order[TEST_SAMPLES:]
    return Digits(digits.x[train], digits.y[train]), Digits(digits.x[test], digits.y[test])
