"""How fast a method goes when all devices have the same quadratic objective up to its linear term.

Then the iteration falls apart into modes: one for each eigenvalue w of the mixing matrix W and each h of the
common Hessian, and everything is said by a polynomial of degree two in each. w = 1 is the mean of all nodes;
the exact methods have another root of modulus 1 there, which belongs to a sum that never changes and is
left out. With unlike objectives these rates are what the method would reach if it did not matter.

Source: the polynomials follow from the updates in the classes' docstrings by inserting w and h; for gradient
descent, EXTRA and tracking also D. Jakovetic, "A unification and generalization of exact distributed
first-order methods", IEEE Trans. Signal and Information Processing over Networks 5 (2019), section III.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedd.api import RunGraph, Spectrum

Array: TypeAlias = "NDArray[np.float64]"

_EIGENVALUES = 65
"""Of W, spread between the smallest and the second largest: where the roots are largest is not known."""
_CURVATURES = 33
"""Of the Hessian, from the smallest to the largest."""
_STEPS = 4000
"""Where steps times curvature are tried for the largest that converges, up to `_MOST`."""
_MOST = 4.0
LARGEST_MATRIX = 32
"""Members up to which the rate of push-pull is computed: it has a matrix of twice as many rows."""


@dataclass(frozen=True)
class Modes:
    """`others(w, ah)` is the largest modulus of the modes that disagree, `mean(ah)` of the nodes' mean.

    Both are elementwise over arrays; ah is the step times the curvature.
    """

    others: Callable[[Array, Array], Array]
    mean: Callable[[Array], Array]

    def rate(self, spectrum: Spectrum, step: float, smallest: float, largest: float) -> float:
        """By how much the distance to the limit shrinks an iteration, 1 and more: it does not."""
        h = step * np.geomspace(smallest, largest, _CURVATURES)
        return float(self._worst(spectrum, h).max())

    def largest_step(self, spectrum: Spectrum) -> float:
        """The step times L below which every mode shrinks."""
        h = np.linspace(_MOST / _STEPS, _MOST, _STEPS)
        grows = np.flatnonzero(self._worst(spectrum, h) >= 1)
        return float(h[grows[0]]) if grows.size else _MOST

    def _worst(self, spectrum: Spectrum, h: Array) -> Array:
        w = np.linspace(spectrum.lower, spectrum.upper, _EIGENVALUES)[:, None]
        worst: Array = np.maximum(self.others(w, h[None, :]).max(axis=0), self.mean(h))
        return worst


def _roots(trace: Any, determinant: Any) -> Array:
    """The largest modulus of the two roots of z^2 - trace z + determinant."""
    root = np.sqrt(np.asarray(trace * trace - 4 * determinant, dtype=np.complex128))
    largest: Array = np.maximum(np.abs(trace + root), np.abs(trace - root)) / 2
    return largest


def _descent(h: Array) -> Array:
    return np.abs(1 - h)


STANDARD = Modes(lambda w, h: np.abs(w - h), _descent)
"""x <- w x - a h x."""

DIFFUSION = Modes(lambda w, h: np.abs(w * (1 - h)), _descent)
"""x <- w (x - a h x), in either order."""

TRACKING = Modes(lambda w, h: _roots(2 * w - h, w * w - h), _descent)
"""x <- w x - a y, y <- w y + h (x' - x)."""

EXTRA = Modes(lambda w, h: _roots(1 + w - h, (1 + w) / 2 - h), _descent)
"""x'' = (1 + w) x' - (1 + w)/2 x - a h (x' - x)."""

EXACT_DIFFUSION = Modes(lambda w, h: _roots((1 + w) / 2 * (2 - h), (1 + w) / 2 * (1 - h)), _descent)
"""x'' = (1 + w)/2 (2 x' - x - a h (x' - x))."""


def local_descent(steps: int, gamma: float = 1.0) -> Modes:
    """`steps` times x <- x - a h x, then x <- (1 - gamma (1 - w)) x."""
    return Modes(
        lambda w, h: np.abs((1 - gamma * (1 - w)) * (1 - h) ** steps), lambda h: np.abs(1 - h) ** steps
    )


def local_tracking(steps: int, mixing: float) -> Modes:
    """K-GT: with p = 1 - (1 - ah)^K, d = p (x + c/h) the local progress, z = d / (K a):
    x <- w (x - s d), c <- c - (1 - w) z.
    """

    def others(w: Array, h: Array) -> Array:
        progress = 1 - (1 - h) ** steps
        share = progress / (steps * h)
        kept = 1 - mixing * progress
        return _roots(w * kept + 1 - (1 - w) * share, w * (kept - (1 - w) * share))

    return Modes(others, lambda h: np.abs(1 - mixing * (1 - (1 - h) ** steps)))


@dataclass(frozen=True)
class PushPullModes:
    """Push-Pull on one graph: its matrices of pulling and pushing have no eigenvectors in common."""

    pull: Array
    push: Array

    @classmethod
    def of(cls, graph: RunGraph) -> PushPullModes | None:
        """None where the graph takes turns or is too large."""
        count = len(graph.members)
        if graph.period > 1 or not 2 <= count <= LARGEST_MATRIX:
            return None
        index = {member: place for place, member in enumerate(graph.members)}
        arcs = np.eye(count)
        for source, target in graph.arcs():
            arcs[index[target], index[source]] = 1.0
        return cls(arcs / arcs.sum(axis=1, keepdims=True), arcs / arcs.sum(axis=0))

    def rate(self, step: float, smallest: float, largest: float) -> float:
        """As `Modes.rate`."""
        return max(self._radius(step * float(h)) for h in np.geomspace(smallest, largest, 9))

    def largest_step(self) -> float:
        """As `Modes.largest_step`."""
        low, high = 0.0, _MOST
        for theta in np.geomspace(1e-4, _MOST, 48):
            if self._radius(float(theta)) >= 1:
                high = float(theta)
                break
            low = float(theta)
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if self._radius(middle) < 1 else (low, middle)
        return low

    def _radius(self, h: float) -> float:
        """Of (x, a y): x <- R (x - a y), a y <- C a y + ah (x' - x).

        sum(a y) - ah sum(x) never changes and is 0: its eigenvalue 1 is moved to 0.
        """
        count = len(self.pull)
        one = np.eye(count)
        matrix = np.block([[self.pull, -self.pull], [h * (self.pull - one), self.push - h * self.pull]])
        kept = np.concatenate((np.full(count, -h), np.ones(count)))
        matrix -= np.outer(np.concatenate((np.zeros(count), np.full(count, 1 / count))), kept)
        return float(np.abs(np.linalg.eigvals(matrix)).max())


def iterations_to(tolerance: float, rate: float) -> int | None:
    """After how many iterations a distance is `tolerance` of what it was; None when it never is."""
    if not rate < 1 - 1e-12:
        return None
    return 1 if rate <= 0 else max(1, math.ceil(math.log(tolerance) / math.log(rate)))
