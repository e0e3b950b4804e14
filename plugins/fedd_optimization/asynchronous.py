"""Descent without rounds: pairs of nodes average whenever one of them asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedd.api import InvalidMessage, Message, NotConnected, PeerId, RunContext
from fedd_optimization import bounds
from fedd_optimization.iteration import Iteration, Iterative
from fedd_optimization.mixing import pieces
from fedd_optimization.outlook import Theory

if TYPE_CHECKING:
    from fedd_optimization.vectors import Vector


@dataclass(frozen=True)
class ADPSGD(Iterative):
    """AD-PSGD: asynchronous descent, where nobody waits for anybody but the one it asked.

    Update of a node, at its own pace: g = gradient at x; ask a random neighbour for its iterate z, while
    it moves to the pair's mean; x <- x + (z - x)/2 - a g. Message: the iterate, and the other's in answer,
    in parts of 4 MiB, each a question of its own.
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

    def theory(self) -> Theory:
        """Of all nodes' mean: old gradients bear no larger step."""
        return Theory(bounds.MEAN)

    def messages(self, neighbors: int) -> int:
        """One neighbour is asked; as many ask, on average."""
        return min(neighbors, 1)

    async def run(self, ctx: RunContext) -> Message:
        """Iterate."""
        iteration = Iteration(ctx, self, *self.abilities)
        iteration.needs_both_ways()
        pair = _Pair()
        ctx.on_ask(self.name, pair.asked)
        pair.x = await iteration.begin()
        iteration.predict(pair.x)
        choose = ctx.rng(self.name)
        for _ in iteration.steps():
            gradient = iteration.gradient(pair.x, self.batch)
            sent, heard = await self._meet(ctx, iteration, choose, pair)
            pair.x = pair.x - self.step * gradient
            await iteration.end_step(pair.x, gradient, heard, sent)
        await ctx.merge(self.iterations, max, "end")  # until all have made theirs
        return await iteration.finish(pair.x)

    async def _meet(
        self, ctx: RunContext, iteration: Iteration, choose: np.random.Generator, pair: _Pair
    ) -> tuple[Vector, list[Vector]]:
        """Average with a random neighbour, part by part; return what went there and what came.

        Nothing comes when it is gone or not ready; the parts that were averaged before stay so at both ends.
        """
        near = sorted(ctx.neighbors)
        sent = pair.x.copy()
        if not near:
            return sent, []
        peer = near[int(choose.integers(len(near)))]
        heard = []
        for part in pieces(sent.size, sent.itemsize):
            mine = pair.x[part].copy()
            iteration.count(mine.nbytes)
            try:
                theirs = await ctx.ask(
                    peer, [part.start, mine], self.name, read=partial(_like_or_nothing, mine)
                )
            except NotConnected:
                return sent, []
            if theirs is None:
                return sent, []
            pair.move(part, (theirs - mine) / 2)
            sent[part] = mine
            heard.append(theirs)
        return sent, [np.concatenate(heard)]


class _Pair:
    """This node's iterate, which others average with while it waits."""

    def __init__(self) -> None:
        self.x: Vector = np.zeros(0)

    def move(self, part: slice, by: Vector) -> None:
        """Add to a part of the iterate, in a new array: the old one may be on its way to somebody."""
        self.x = self.x.copy()
        self.x[part] += by

    def asked(self, peer: PeerId, message: Message) -> Message:
        """Move to the mean of both and tell what was here before; None before the start."""
        if not self.x.size:
            return None
        match message:
            case [int(start), theirs]:
                part = next(
                    (each for each in pieces(self.x.size, self.x.itemsize) if each.start == start), None
                )
                if part is not None:
                    mine = self.x[part].copy()
                    self.move(part, (_like(mine, peer, theirs) - mine) / 2)
                    return mine
        raise InvalidMessage(f"{peer} sent something else than a part of its iterate")


def _like_or_nothing(mine: Vector, peer: PeerId, answer: Message) -> Vector | None:
    return None if answer is None else _like(mine, peer, answer)


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
