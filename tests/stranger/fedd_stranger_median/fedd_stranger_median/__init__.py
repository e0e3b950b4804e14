"""The median of everybody's values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from fedd.api import Algorithm, InvalidMessage, Message, RunContext, hookimpl


@dataclass(frozen=True)
class Median:
    """Every node ends at the median of the inputs of those who stayed."""

    name: ClassVar[str] = "median"
    middle: Literal["mean", "lower", "upper"] = field(
        default="mean", metadata={"help": "what to take when the number of values is even"}
    )

    async def run(self, ctx: RunContext) -> Message:
        """Flood all values, take the middle."""
        if isinstance(ctx.input, bool) or not isinstance(ctx.input, int | float):
            raise InvalidMessage(f"the input of {ctx.me} is no number: {ctx.input!r:.80}")
        values = list((await ctx.flood(float(ctx.input))).values())
        ctx.report(values=len(values))
        methods = {"mean": "midpoint", "lower": "lower", "upper": "higher"}
        return float(np.quantile(values, 0.5, method=methods[self.middle]))


@hookimpl
def fedd_register_algorithms() -> list[type[Algorithm]]:
    """Register it."""
    return [Median]
