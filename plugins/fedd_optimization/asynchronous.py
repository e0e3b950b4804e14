"""Descent without rounds: pairs of nodes average whenever one of them asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedd.api import InvalidMessage, Message, NotConnected, PeerId, RunContext
from fedd_optimization.iteration import Iteration, Iterative

if TYPE_CHECKING:
    from fedd_optimization.vectors import Vector


@dataclass(frozen=True)
class ADPSGD(Iterative):
    """AD-PSGD: asynchronous descent, where nobody waits for anybody but the one it asked.

    Update of a node, at its own pace: g = gradient at x; ask a random neighbour for its iterate z, while
    it moves to the pair's mean; x <- x + (z - x)/2 - a g. Message: the iterate, and the other's in answer.
    What two nodes give each other is equal, so averaging keeps the sum of all iterates, also when one
    of them is asked while it waits. Rate: O(1/sqrt(T)) in all nodes' steps together, as parallel SGD's,
    when no gradient is too old; with a constant step it ends in a neighbourhood of the optimum.
    Steps of fast nodes count as much as those of slow ones. A node that has made its iterations goes on
    answering until all have.
    A death: no memory; a question to the dead is not answered, the step is made without. Which
    averages took place depends on timing: results are not the same bits in every repetition.

    Source: X. Lian, W. Zhang, C. Zhang, J. Liu, "Asynchronous decentralized parallel stochastic gradient
    descent", ICML 2018, algorithm 1.
    """

    name: ClassVar[str] = "ad-psgd"
    contract: ClassVar[str] = "survivors"
    joinable: ClassVar[bool] = False  # members join between exchanges, of which there are none before the end

    batch: int = field(default=32, metadata={"help": "samples of a gradient, 0: all of the device"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 0:
            raise ValueError(f"batch must be 0 or more, not {self.batch}")

    async def run(self, ctx: RunContext) -> Message:
        """Iterate."""
        iteration = Iteration(ctx, self, "gradient")
        iteration.needs_both_ways()
        pair = _Pair()
        ctx.on_ask(self.name, pair.asked)
        pair.x = await iteration.begin()
        choose = ctx.rng(self.name)
        for _ in iteration.steps():
            gradient = iteration.gradient(pair.x, self.batch)
            sent = pair.x
            answer = await self._ask(ctx, iteration, choose, sent)
            if answer is not None:
                pair.x = pair.x + (answer - sent) / 2
            pair.x = pair.x - self.step * gradient
            await iteration.end_step(pair.x, gradient, [] if answer is None else [answer], sent)
        await ctx.merge(self.iterations, max, "end")  # until all have made theirs
        return await iteration.finish(pair.x)

    async def _ask(
        self, ctx: RunContext, iteration: Iteration, choose: np.random.Generator, sent: Vector
    ) -> Vector | None:
        """The iterate of a random neighbour, None when it is gone or not ready."""
        near = sorted(ctx.neighbors)
        if not near:
            return None
        peer = near[int(choose.integers(len(near)))]
        iteration.count(sent.nbytes)
        try:
            answer = await ctx.ask(peer, sent, self.name)
        except NotConnected:
            return None
        return None if answer is None else _like(sent, peer, answer)


class _Pair:
    """This node's iterate, which others average with while it waits."""

    def __init__(self) -> None:
        self.x: Vector = np.zeros(0)

    def asked(self, peer: PeerId, message: Message) -> Message:
        """Move to the mean of both and tell what was here before; None before the start."""
        if not self.x.size:
            return None
        mine = self.x
        self.x = mine + (_like(mine, peer, message) - mine) / 2
        return mine


def _like(mine: Vector, peer: PeerId, theirs: Message) -> Vector:
    match theirs:
        case np.ndarray() as other if (
            other.shape == mine.shape and other.dtype == mine.dtype and np.isfinite(other).all()
        ):
            return other
    raise InvalidMessage(
        f"{peer} sent something else than a finite iterate of {mine.size} values of {mine.dtype}",
        hint="give all members learners with models of one shape and type",
    )
