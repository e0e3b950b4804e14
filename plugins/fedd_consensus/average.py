"""The mean of everybody's inputs, by the method that fits the graph and the links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from fedd.api import Message, RunContext
from fedd_consensus.choco import choco, choco_rounds, default_gamma
from fedd_consensus.codecs import find_codec
from fedd_consensus.linear import (
    chebyshev,
    chebyshev_rounds,
    lazy,
    lazy_rounds,
    metropolis_rounds,
    refuse_directed,
)
from fedd_consensus.pairwise import needed_questions, pairwise
from fedd_consensus.push_sum import push_sum, push_sum_rounds
from fedd_consensus.values import numbers, plain

if TYPE_CHECKING:
    from fedd.api.types import FloatArray

Method = Literal["metropolis", "lazy", "chebyshev", "push-sum", "choco", "pairwise"]


@dataclass(frozen=True)
class AverageConsensus:
    """Every node ends at the mean of the inputs of those who stayed.

    Inputs are numbers or arrays of one shape; the result is float64. `method`:

    - metropolis: the ledger. Update: x_i = x_i(0) - sum_j F_ij, F_ij += (x_i - x_j) / (1 + max(d_i, d_j)).
      Message: x_i, d_i, F_ij. Rate: the second eigenvalue of the Metropolis matrix. Stops when all
      survivors are known to agree within `tolerance`, relative to the largest magnitude, and then all hold
      the same bits; with a tolerance of 0, after exactly `iterations`, and then each holds its own estimate.
      A death: the mean of the survivors, or with the dead if its value was agreed before; the result says.
    - lazy, chebyshev, push-sum, choco, pairwise: see the functions of these names. They make as many
      rounds as the spectrum says that the disagreement's root mean square needs to be `tolerance` of what it
      was (0: exactly `iterations`), and end without asking the others: a death in the last rounds leaves what
      it leaves.

    Source: P. Jesus, C. Baquero, P. S. Almeida, "Flow updating: fault-tolerant aggregation for dynamic
    networks", J. Parallel Distrib. Comput. (2015); weights: L. Xiao, S. Boyd, S. Lall, "A scheme for
    robust distributed sensor fusion based on average consensus", IPSN 2005.
    """

    name: ClassVar[str] = "consensus"
    contract: ClassVar[str] = "survivors"
    contracts: ClassVar[Mapping[str, str]] = {"method=chebyshev": "restart"}

    method: Method = field(
        default="metropolis",
        metadata={
            "help": "how to average: metropolis bears every death, chebyshev needs the fewest rounds, "
            "push-sum goes along arcs, choco sends little, pairwise waits for nobody",
        },
    )
    tolerance: float = field(
        default=1e-12,
        metadata={"help": "largest relative difference between nodes; 0: do not stop early"},
    )
    iterations: int = field(default=10000, metadata={"help": "end without agreement after this many"})
    codec: str = field(
        default="none",
        metadata={"help": "method=choco: none, float32, float16, bfloat16, int8 or top-k:SHARE"},
    )
    gamma: float = field(
        default=0.0,
        metadata={"help": "method=choco: step of the averaging, up to 1; 0: what suits the codec"},
    )

    def __post_init__(self) -> None:
        if self.tolerance != 0 and not 1e-15 <= self.tolerance <= 1:
            raise ValueError(f"tolerance must be 0 or between 1e-15 and 1, not {self.tolerance:g}")
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, not {self.iterations}")
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma must be from 0 to 1, not {self.gamma:g}")
        find_codec(self.codec)
        if self.method != "choco" and (self.codec != "none" or self.gamma):
            raise ValueError(f"codec and gamma are for method=choco, not for method={self.method}")

    @property
    def bears_loss(self) -> bool:
        """Whether messages may be lost on the way (`fedd.testing`)."""
        return self.method == "push-sum"

    def predict(self, ctx: RunContext) -> dict[str, float | int | str | bool | Mapping[str, float]]:
        """`rounds_predicted`, or questions of each node, `iterations` at most; of metropolis about.

        Of metropolis on other weights than Metropolis's nothing: it has its own. Raises InvalidParameter as
        `run` does where the method and the topology do not fit.
        """
        if self.method == "metropolis" and ctx.graph.rule != "metropolis":
            refuse_directed(ctx, self.method)
            return {}
        needed = self._needed(ctx)
        rounds = self.iterations if needed is None else min(needed, self.iterations)
        return {"rounds_predicted": rounds}

    def _needed(self, ctx: RunContext) -> int | None:
        match self.method:
            case "metropolis":
                return metropolis_rounds(ctx, self.tolerance)
            case "lazy":
                return lazy_rounds(ctx, self.tolerance)
            case "chebyshev":
                return chebyshev_rounds(ctx, self.tolerance)
            case "push-sum":
                return push_sum_rounds(ctx, self.tolerance)
            case "pairwise":
                refuse_directed(ctx, self.method)
                return needed_questions(ctx.graph, self.tolerance)
            case _:
                codec = find_codec(self.codec)
                return choco_rounds(ctx, self.tolerance, codec, self.gamma or default_gamma(codec))

    async def run(self, ctx: RunContext) -> Message:
        """Average until agreed."""
        start = numbers(ctx.input)
        if self.method == "metropolis":
            refuse_directed(ctx, self.method)
            agreement = await ctx.ledger(start).agree(tolerance=self.tolerance, iterations=self.iterations)
            return plain(agreement.value)
        value = await self._averaged(ctx, np.atleast_1d(start))
        return plain(value.reshape(start.shape))

    async def _averaged(self, ctx: RunContext, start: FloatArray) -> FloatArray:
        tolerance, iterations = self.tolerance, self.iterations
        match self.method:
            case "lazy":
                return await lazy(ctx, start, tolerance, iterations)
            case "chebyshev":
                return await chebyshev(ctx, start, tolerance, iterations)
            case "push-sum":
                return await push_sum(ctx, start, tolerance, iterations)
            case "pairwise":
                return await pairwise(ctx, start, tolerance, iterations)
            case _:
                return await choco(ctx, start, tolerance, iterations, self.codec, self.gamma)
