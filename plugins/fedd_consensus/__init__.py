"""Agreement on one value: the mean, the largest or the smallest of everybody's inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fedd.api import Algorithm, InvalidMessage, Message, RunContext, hookimpl

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class AverageConsensus:
    """Every node ends at the mean of the inputs of those who stayed.

    Inputs are numbers or arrays of one shape; the result is float64. Stops when all survivors are known
    to agree within `tolerance`, relative to the largest magnitude, and then all hold the same bits; with
    a tolerance of 0, after exactly `iterations`, and then each holds its own estimate.

    Source: P. Jesus, C. Baquero, P. S. Almeida, "Flow updating: fault-tolerant aggregation for dynamic
    networks", J. Parallel Distrib. Comput. (2015); weights: L. Xiao, S. Boyd, S. Lall, "A scheme for
    robust distributed sensor fusion based on average consensus", IPSN 2005.
    """

    name: ClassVar[str] = "consensus"
    tolerance: float = field(
        default=1e-12,
        metadata={"help": "largest relative difference between nodes; 0: do not stop early"},
    )
    iterations: int = field(default=10000, metadata={"help": "end without agreement after this many"})

    def __post_init__(self) -> None:
        if self.tolerance != 0 and not 1e-15 <= self.tolerance <= 1:
            raise ValueError(f"tolerance must be 0 or between 1e-15 and 1, not {self.tolerance:g}")
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, not {self.iterations}")

    async def run(self, ctx: RunContext) -> Message:
        """Average until agreed."""
        start = numbers(ctx.input)
        agreement = await ctx.ledger(start).agree(tolerance=self.tolerance, iterations=self.iterations)
        return plain(agreement.value)


@dataclass(frozen=True)
class Maximum:
    """Every node ends at the largest input, element by element.

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

    Source: as `Maximum`.
    """

    name: ClassVar[str] = "min"

    async def run(self, ctx: RunContext) -> Message:
        """Flood the minimum."""
        return await extreme(ctx, np.minimum)


async def extreme(ctx: RunContext, better: Callable[[Any, Any], Any]) -> Message:
    """The elementwise extreme of everybody's input.

    Raises InvalidMessage when an input is not numeric, not finite, or shapes differ.
    """
    start = numbers(ctx.input)

    def combine(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
        if np.shape(theirs) != start.shape:
            raise InvalidMessage(
                f"the inputs have the shapes {start.shape} and {np.shape(theirs)}",
                hint="give all members inputs of one shape",
            )
        return np.asarray(better(mine, theirs))

    merged = await ctx.merge(start, combine)
    return plain(np.asarray(merged.value, dtype=np.float64))


def numbers(value: Message) -> NDArray[np.float64]:
    """The input as a float64 array, a number as an array without dimensions.

    Raises InvalidMessage when it is missing, not numeric, ragged or not finite.
    """
    if value is None:
        raise InvalidMessage("this node has no input for the run", hint="name one with --input")
    try:
        array = np.asarray(value)
    except ValueError:
        raise InvalidMessage("the input is a ragged list", hint="give every row the same length") from None
    if array.dtype.kind not in "biuf":
        raise InvalidMessage(f"the input is no number or array of numbers: {value!r:.80}")
    start = array.astype(np.float64) + 0.0  # -0.0 and 0.0 would be equal in value and differ in bits
    if not all(map(math.isfinite, start.flat)):
        raise InvalidMessage("the input holds a value that is not finite", hint="look for NaN and infinity")
    return start


def plain(array: NDArray[np.float64]) -> Message:
    """A number for an array without dimensions, else the array."""
    return float(array) if array.ndim == 0 else array


@hookimpl
def fedd_register_algorithms() -> list[type[Algorithm]]:
    """Register the three."""
    return [AverageConsensus, Maximum, Minimum]
