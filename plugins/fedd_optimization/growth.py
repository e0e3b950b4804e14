"""When an iteration grows instead of converging."""

from __future__ import annotations

import math
from typing import Literal

_EARLY = 2
"""Iterations that a divergence is measured by: a step that is far too large needs few to lose all digits."""

_BEGINNING = 10
"""Iterations that growth is measured by, and as many more as there are members: news has then crossed the
graph, and nobody's own part looks small any more."""

_GROWS = 1e3
"""Times as large as in the beginning is worth a word: minibatches and far optima stay below."""

_DIVERGED = 1e12
"""Times as large: of what a double held in the beginning four digits are left, and it does not come back."""


class Growth:
    """The sizes of a node's iterates and gradients, against those of the beginning.

    Both must have grown: an optimum may be far away, and a gradient may begin at zero.
    """

    def __init__(self, members: int) -> None:
        self._beginning = _BEGINNING + members
        self._count = 0
        self._early = _Sizes()
        self._usual = _Sizes()
        self._told = False

    def judge(self, size: float, slope: float) -> Literal["", "grows", "diverged"]:
        """Take the norms of an iteration; "grows" is said once."""
        if not (math.isfinite(size) and math.isfinite(slope)):
            return "diverged"
        self._count += 1
        if self._count <= _EARLY:
            self._early.take(size, slope)
        elif self._early.exceeded(size, slope, _DIVERGED):
            return "diverged"
        if self._count <= self._beginning:
            self._usual.take(size, slope)
        elif not self._told and self._usual.exceeded(size, slope, _GROWS):
            self._told = True
            return "grows"
        return ""


class _Sizes:
    """The largest of some iterations."""

    def __init__(self) -> None:
        self._size = 1.0  # a model whose numbers are small may grow to this
        self._slope = 1e-300  # a device that begins at its own optimum has none

    def take(self, size: float, slope: float) -> None:
        self._size = max(self._size, size)
        self._slope = max(self._slope, slope)

    def exceeded(self, size: float, slope: float, times: float) -> bool:
        """Whether the iterate is so many times as large, and the gradient a thousand times."""
        return size > times * self._size and slope > _GROWS * self._slope
