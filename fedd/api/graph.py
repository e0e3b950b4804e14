"""The graph of a run, and how fast averaging goes on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from fedd.api.types import PeerId


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of a graph's mixing matrix W beside the one at 1, as far as algorithms need them.

    `second` is the largest modulus: by it disagreement shrinks a round. `upper` and `lower` are the largest
    and the smallest of a symmetric W, else (`symmetric` false) plus and minus the modulus over a period.
    `period` is the number of rounds after which the arcs repeat.
    """

    second: float
    upper: float
    lower: float
    period: int = 1
    symmetric: bool = True

    @property
    def gap(self) -> float:
        """The spectral gap, 1 - second."""
        return 1.0 - self.second

    def rounds(self, tolerance: float) -> float:
        """After how many rounds of plain averaging a disagreement is `tolerance` of what it was.

        Infinite when it never is.
        """
        if self.second >= 1:
            return math.inf
        if self.second <= 0:
            return float(self.period)
        return max(1.0, math.ceil(math.log(tolerance) / math.log(self.second) - 1e-9))

    @property
    def interval(self) -> tuple[float, float]:
        """Centre and half the width of the smallest interval that holds `lower` and `upper`.

        The half is 1e-6 at least: any interval holds one eigenvalue alone, and nothing divides by zero.
        """
        return (self.upper + self.lower) / 2, max((self.upper - self.lower) / 2, 1e-6)

    def chebyshev_rounds(self, tolerance: float) -> int | None:
        """As `rounds`, with Chebyshev polynomials of W: the smallest k with 1 / T_k <= tolerance.

        T_k is taken at (1 - centre) / half of `interval`. None where W is not symmetric or has another 1.
        """
        if not self.symmetric or self.upper >= 1:
            return None
        centre, half = self.interval
        return max(1, math.ceil(math.acosh(1 / tolerance) / math.acosh((1 - centre) / half) - 1e-9))


class RunGraph(Protocol):
    """The graph of a run as its epoch began, the same on every node, the dead included."""

    @property
    def members(self) -> tuple[PeerId, ...]:
        """Sorted."""
        ...

    @property
    def edges(self) -> frozenset[tuple[PeerId, PeerId]]:
        """Pairs (lower, higher) of those who have a link, whichever way messages go."""
        ...

    @property
    def directed(self) -> bool:
        """Whether messages go one way over (some of) the edges."""
        ...

    @property
    def period(self) -> int:
        """After how many rounds the arcs repeat: 1 unless they take turns."""
        ...

    @property
    def rule(self) -> str:
        """How mixing weights follow: metropolis, lazy, uniform or explicit."""
        ...

    def arcs(self, round: int = 0) -> frozenset[tuple[PeerId, PeerId]]:
        """(from, to) of a round; both ways of every edge when the graph is undirected."""
        ...

    def degree(self, peer: PeerId) -> int:
        """How many edges a member has."""
        ...

    def diameter(self) -> int:
        """The longest shortest path over edges, in hops."""
        ...

    def is_strongly_connected(self) -> bool:
        """Whether a message goes from every member to every other along the arcs, given enough rounds."""
        ...
