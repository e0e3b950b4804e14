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
