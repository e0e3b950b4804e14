"""What can be said before the first iteration: curvature, and the step sizes that are known to converge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fedd_optimization.vectors import Vector

POWER_STEPS = 20
"""Gradients that the estimate of the curvature takes: the first digits of the largest one."""


@dataclass(frozen=True)
class StepBound:
    """Steps below `of(smallest eigenvalue of W, L)` converge; L is the largest curvature of any objective."""

    formula: str
    of: Callable[[float, float], float]


GRADIENT = StepBound("(1 + smallest eigenvalue of W) / L", lambda smallest, largest: (1 + smallest) / largest)
"""Of gradient descent in its standard form (Yuan, Ling, Yin 2016) and of EXTRA (Shi, Ling, Wu, Yin 2015, who
write it as twice the smallest eigenvalue of (I + W)/2, over L)."""

DIFFUSION = StepBound("2 / L", lambda smallest, largest: 2 / largest)
"""Of the diffusion forms (Cattivelli, Sayed 2010) and of exact diffusion (Li, Shi, Yan 2019)."""


def curvature(gradient: Callable[[Vector], Vector], x: Vector, rng: np.random.Generator) -> float:
    """The largest eigenvalue of the Hessian at `x` in modulus, from below: power iteration on differences
    of gradients. 0 where the objective is flat.

    Source: G. H. Golub, C. F. Van Loan, "Matrix Computations", section 7.3.1.
    """
    direction = rng.standard_normal(x.size).astype(x.dtype)
    direction /= np.linalg.norm(direction)
    width = float(np.sqrt(np.finfo(x.dtype).eps)) * max(1.0, float(np.linalg.norm(x)))
    here = gradient(x)
    largest = 0.0
    for _ in range(POWER_STEPS):
        bent = (gradient(x + width * direction) - here) / width
        largest = float(np.linalg.norm(bent))
        if not largest > 0:
            return 0.0
        direction = bent / largest
    return largest
