"""The largest and the smallest of everybody's inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fedd.api import Message, RunContext
from fedd_consensus.values import numbers, plain, received

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Maximum:
    """Every node ends at the largest input, element by element.

    Update: x_i = max over itself and its neighbours, N - 1 times. Message: x_i and whose inputs are in it.
    Rate: exact after N - 1 exchanges. A death: the input of the dead counts on all survivors or on none,
    and the result says which.

    Source: max consensus by flooding over len(members) - 1 exchanges (N. Lynch, "Distributed Algorithms",
    1996, section 6.2).
    """

    name: ClassVar[str] = "max"

    async def run(self, ctx: RunContext) -> Message:
        """Flood the maximum."""
        return await extreme(ctx, np.maximum)


@dataclass(frozen=True)
class Minimum:
    """Every node ends at the smallest input, element by element.

    Update, message, rate, deaths and source: as `Maximum`.
    """

    name: ClassVar[str] = "min"

    async def run(self, ctx: RunContext) -> Message:
        """Flood the minimum."""
        return await extreme(ctx, np.minimum)


async def extreme(ctx: RunContext, better: Callable[[Any, Any], Any]) -> Message:
    """The elementwise extreme of everybody's input.

    Raises InvalidMessage when this node's input is not numeric or not finite; who has another shape is cut
    off.
    """
    start = numbers(ctx.input)

    def combine(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(better(mine, received(theirs, start.shape)))

    merged = await ctx.merge(start, combine)
    return plain(np.asarray(merged.value, dtype=np.float64))
