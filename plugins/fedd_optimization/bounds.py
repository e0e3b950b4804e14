"""Curvature of a device's objective, and the step sizes beyond which a method need not converge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fedd_optimization.vectors import Vector

LANCZOS_STEPS = 20
"""Gradients that the estimate takes: exact for so many parameters, else the first digits of the largest."""


@dataclass(frozen=True)
class StepBound:
    """`of(smallest eigenvalue of W, L)`, in words `formula`; L is the largest curvature of any objective.

    `proven` bounds are enough: every smaller step converges on smooth convex objectives. The others are the
    most that there can be: a larger step diverges when all devices have the same quadratic objective up to
    linear terms, and with unlike ones a smaller step may be needed.
    """

    formula: str
    of: Callable[[float, float], float]
    proven: bool = True


GRADIENT = StepBound("(1 + smallest eigenvalue of W) / L", lambda smallest, largest: (1 + smallest) / largest)
"""Of gradient descent in its standard form (Yuan, Ling, Yin 2016) and of EXTRA (Shi, Ling, Wu, Yin 2015, who
write it as twice the smallest eigenvalue of (I + W)/2, over L)."""

DIFFUSION = StepBound("2 / L", lambda smallest, largest: 2 / largest)
"""Of the diffusion forms (Cattivelli, Sayed 2010) and of exact diffusion (Li, Shi, Yan 2019)."""

MEAN = StepBound("2 / L", lambda smallest, largest: 2 / largest, proven=False)
"""Of gradient descent on the nodes' mean, which every method here contains when all agree."""

TRACKING = StepBound(
    "(1 + smallest eigenvalue of W)^2 / (2 L)",
    lambda smallest, largest: (1 + smallest) ** 2 / (2 * largest),
    proven=False,
)
"""Of gradient tracking: Jury's criterion on z^2 - (2 w - a h) z + w^2 - a h, its characteristic polynomial
for an eigenvalue w of W and one h of the common Hessian (`modes.tracking`). What is proven for unlike
objectives (Nedic, Olshevsky, Shi 2017; Qu, Li 2018) is smaller by orders of magnitude."""


@dataclass(frozen=True)
class Curvature:
    """Eigenvalues of a Hessian: the largest in modulus, from below, and the smallest, from above.

    `smallest` is 0 where it cannot be told from 0 or is negative: the objective is not strongly convex.
    """

    largest: float
    smallest: float


def curvature(gradient: Callable[[Vector], Vector], x: Vector, rng: np.random.Generator) -> Curvature:
    """The extreme eigenvalues of the Hessian at `x`, by Lanczos' method on differences of gradients.

    Both 0 where the objective is flat, and infinite where it overflows.

    Source: G. H. Golub, C. F. Van Loan, "Matrix Computations", section 10.1, with all vectors made
    orthogonal to all earlier ones.
    """
    noise = float(np.sqrt(np.finfo(x.dtype).eps))
    width = noise * max(1.0, float(np.linalg.norm(x)))
    here = gradient(x)
    direction = rng.standard_normal(x.size).astype(x.dtype)
    basis: list[Vector] = []
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(LANCZOS_STEPS, x.size)):
        basis.append(direction / np.linalg.norm(direction))
        with np.errstate(over="ignore", invalid="ignore"):  # it is looked at next
            bent = (gradient(x + width * basis[-1]) - here) / width
        if not np.isfinite(bent).all():
            return Curvature(float("inf"), 0.0)
        diagonal.append(float(basis[-1] @ bent))
        for _ in range(2):  # once leaves rounding behind that grows
            for known in basis:
                bent = bent - (known @ bent) * known
        beside.append(float(np.linalg.norm(bent)))
        scale = max(map(abs, (*diagonal, *beside)))
        if not beside[-1] > 10 * noise * scale:
            break
        direction = bent
    if not diagonal:
        return Curvature(0.0, 0.0)
    found = np.linalg.eigvalsh(np.diag(diagonal) + np.diag(beside[: len(diagonal) - 1], 1), UPLO="U")
    largest = float(np.abs(found).max())
    smallest = float(found[0])
    return Curvature(largest, smallest if smallest > 30 * noise * largest else 0.0)
