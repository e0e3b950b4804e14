"""The average that a death leaves exact, as algorithms use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fedd.api.types import PeerId

if TYPE_CHECKING:
    from fedd.api.types import FloatArray


@dataclass(frozen=True)
class Agreement:
    """Where a `Ledger.agree` ended.

    `value` has the shape of the ledger's start value, float64. With `agreed` it is the same to
    the last bit on every survivor of this component and lies within `tolerance` (relative to the
    largest contributed magnitude) of the mean over `contributors`. Without, the iteration limit
    came first and `value` is this node's own estimate. `residual` is the largest difference
    between two nodes' estimates, relative as above, when last compared (infinite when never).
    """

    value: FloatArray
    contributors: tuple[PeerId, ...]
    iterations: int
    residual: float
    agreed: bool


class Ledger(Protocol):
    """The mass-conserving average: a death takes back exactly what the dead had put in.

    Source: P. Jesus, C. Baquero, P. S. Almeida, "Flow updating: fault-tolerant aggregation for
    dynamic networks", J. Parallel Distrib. Comput. (2015), in its pairwise form.
    """

    @property
    def value(self) -> FloatArray:
        """This node's present estimate of the mean, shape of the start value."""
        ...

    async def step(self) -> None:
        """One exchange with all neighbours, one update.

        A neighbour whose value has another shape, is not finite, or claims transfers that never took place
        is cut off (`RunContext.cut`). Raises QuorumLost, Dropped or Stopped as `RunContext.exchange` does.
        """
        ...

    async def agree(self, *, tolerance: float, iterations: int) -> Agreement:
        """Step until all survivors are known to agree within `tolerance`, or `iterations` steps were made.

        All members of the run must call this in the same step with the same arguments. A tolerance of
        0 is never met: exactly `iterations` steps are made. Afterwards the run's result names the
        agreement's contributors and residual.

        Raises InvalidParameter for a negative tolerance or fewer than one iteration, and as `step`.
        """
        ...
