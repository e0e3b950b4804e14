"""Exact least squares over everybody's rows, which nobody but their owner ever sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedd.api import Algorithm, InvalidMessage, Message, RunContext, TimedOut, hookimpl
from fedd_regression.normal_equations import Moments, Standard, fit
from fedd_regression.table import Table, read_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedd.api import Agreement

SCALE_TOLERANCE = 1e-6
"""A scale only has to be the same everywhere and of the right size: the fit takes its own spreads."""


@dataclass(frozen=True)
class Regression:
    """Ordinary least squares with intercept over all members' rows together; no row leaves its device.

    The members agree on the columns' means, then on their deviations, then on sums of squares and products
    of the standardised columns with the row count: (columns + 1)(columns + 2) / 2 + columns + 2 numbers a
    message, about 80 for ten columns. Standardising first keeps the condition number that of the
    correlation matrix. The coefficients are exactly those of the rows of the last agreement's
    contributors, also when somebody died between the stages: its sums of deviations correct for a centre
    that was another set's mean.

    Source: T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance: analysis
    and recommendations", The American Statistician 37 (1983), for centring on a shifted mean.
    """

    name: ClassVar[str] = "regression"
    target: str = field(default="", metadata={"help": "column to explain (default: the last)"})
    tolerance: float = field(
        default=1e-13,
        metadata={"help": "largest difference between nodes, relative to the largest magnitude"},
    )
    iterations: int = field(default=10000, metadata={"help": "fail when a stage takes more than this many"})

    def __post_init__(self) -> None:
        if not 1e-15 <= self.tolerance <= 1e-3:
            raise ValueError(f"tolerance must be between 1e-15 and 1e-3, not {self.tolerance:g}")
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, not {self.iterations}")

    async def run(self, ctx: RunContext) -> Message:
        """Return {coefficients, intercept, r2, rows, contributors, and names and target of named columns}."""
        table = read_table(ctx.input, self.target)
        descriptions = await ctx.flood(table.description(), "columns", read=table.read_description)
        table = table.ordered(next(iter(descriptions.values())))
        rows = table.rows

        ctx.report(stage="means")
        sums = await self._agree(ctx, np.concatenate(([rows.shape[0]], rows.sum(axis=0))), self.tolerance)
        if not sums.value[0] > 0:
            raise InvalidMessage("no member has a row")
        center = sums.value[1:] / sums.value[0]

        ctx.report(stage="deviations")
        deviations = rows - center
        start = np.concatenate(([rows.shape[0]], (deviations**2).sum(axis=0)))
        squares = await self._agree(ctx, start, max(self.tolerance, SCALE_TOLERANCE))
        scale = np.sqrt(squares.value[1:] / squares.value[0])
        standard = Standard(center, scale, table.labels, self.tolerance)
        standard.check()

        ctx.report(stage="correlations")
        own = Moments.of(deviations / scale)
        last = await self._agree(ctx, own.packed(), self.tolerance)
        moments = Moments.unpacked(last.value * len(last.contributors), rows.shape[1])
        solution = fit(moments, standard)
        result: dict[str, Message] = {
            "coefficients": solution.coefficients,
            "intercept": solution.intercept,
            "r2": solution.r2,
            "rows": solution.rows,
            "contributors": list(last.contributors),
        }
        if table.names:
            result["names"] = list(table.names[:-1])
            result["target"] = table.names[-1]
        return result

    async def _agree(self, ctx: RunContext, start: NDArray[np.float64], tolerance: float) -> Agreement:
        """Agree or fail: the next stage needs the same bits everywhere."""
        agreement = await ctx.ledger(start).agree(tolerance=tolerance, iterations=self.iterations)
        if not agreement.agreed:
            raise TimedOut(
                f"the members did not agree within {self.iterations} iterations "
                f"(they differ by {agreement.residual:.1e}, the tolerance is {tolerance:g})",
                hint="raise iterations or tolerance, or choose a topology with more edges",
            )
        return agreement


@hookimpl
def fedd_register_algorithms() -> list[type[Algorithm]]:
    """Register it."""
    return [Regression]


__all__ = ["Regression", "Table", "fedd_register_algorithms"]
