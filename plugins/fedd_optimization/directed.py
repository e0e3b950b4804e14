"""Tracking on directed graphs: iterates are pulled, trackers are pushed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedd.api import Message, PeerId, RunContext
from fedd_optimization.iteration import Iteration, Iterative, first_and_second, joined
from fedd_optimization.mixing import swap
from fedd_optimization.outlook import Theory

if TYPE_CHECKING:
    from fedd_optimization.vectors import Vector


@dataclass(frozen=True)
class PushPull(Iterative):
    """Push-Pull: gradient tracking where messages go one way only, to the exact optimum.

    Update: x(k+1) = R (x(k) - a y(k)), y(k+1) = C y(k) + g(x(k+1)) - g(x(k)), y(0) = g(x(0)). R has rows
    that sum to one: the mean of one's own and what came in; C columns that do: a node splits its tracker
    evenly among itself and those it sends to. Message: x - a y, and the share of y.
    Rate: linear to the exact optimum for a small enough step on smooth strongly convex objectives, on
    strongly connected graphs; no node needs to know more than to how many it sends.
    A death: the tracker is the gradient minus the books of what was pushed and what came. A gone
    neighbour's entries are deleted, so the survivors' trackers sum to their gradients, and they end at the
    survivors' optimum as long as their graph is strongly connected.

    Source: S. Pu, W. Shi, J. Xu, A. Nedic, "Push-pull gradient methods for distributed optimization in
    networks", IEEE Trans. Automatic Control 66 (2021), equation (3), in its combine-after-step form.
    """

    name: ClassVar[str] = "push-pull"
    contract: ClassVar[str] = "survivors"
    both_ways: ClassVar[bool] = False

    batch: int = field(default=0, metadata={"help": "samples of a gradient, 0: all of the device"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 0:
            raise ValueError(f"batch must be 0 or more, not {self.batch}")

    def theory(self) -> Theory:
        """Of the run's own arcs."""
        return Theory(push_pull=True)

    def message_bytes(self, x: Vector) -> int:
        """Iterate and share of the tracker."""
        return 2 * x.nbytes

    async def run(self, ctx: RunContext) -> Message:
        """Iterate."""
        iteration = Iteration(ctx, self, *self.abilities)
        x = await iteration.begin()
        iteration.predict(x)
        size = iteration.layout.size
        pulled, pushed = first_and_second(size)
        tracker = iteration.gradient(x, self.batch)
        books = iteration.books()
        for _ in iteration.steps():
            to = ctx.out_neighbors
            share = tracker / (1 + len(to))
            sent = joined(x - self.step * tracker, share)
            iteration.count(sent.nbytes * len(to))
            heard = {peer: other for peer, (_, other) in (await swap(ctx, sent, self.name)).items()}
            x = sent[pulled].copy()
            for other in heard.values():
                x += other[pulled]
            x /= 1 + len(heard)
            given: dict[PeerId, Vector] = dict.fromkeys(to, share)
            for peer, other in heard.items():
                given[peer] = given[peer] - other[pushed] if peer in given else -other[pushed]
            books.book(given)
            iteration.settle(books)
            gradient = iteration.gradient(x, self.batch)
            tracker = gradient - books.total
            norm = float(np.linalg.norm(tracker))
            await iteration.end_step(x, gradient, heard.values(), sent, tracker_norm=norm)
        return await iteration.finish(x)
