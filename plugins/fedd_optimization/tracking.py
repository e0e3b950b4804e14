"""Gradient tracking: methods that carry an estimate of everybody's mean gradient, with books of its mass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedd.api import Message, RunContext
from fedd_optimization import bounds, modes
from fedd_optimization.iteration import Iteration, Iterative, first_and_second, joined, vectors
from fedd_optimization.mixing import combine
from fedd_optimization.outlook import Theory

if TYPE_CHECKING:
    from fedd_optimization.vectors import Vector


@dataclass(frozen=True)
class _Tracking(Iterative):
    """The iteration of gradient tracking; what becomes of the tracker is the subclass's."""

    batch: int = field(default=0, metadata={"help": "samples of a gradient, 0: all of the device"})
    zero_start: bool = field(
        default=False,
        metadata={"help": "start the tracker from zero as NVFlare does, not from the first gradient"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 0:
            raise ValueError(f"batch must be 0 or more, not {self.batch}")

    def message_bytes(self, x: Vector) -> int:
        """Iterate and tracker."""
        return 2 * x.nbytes

    def _direction(self, size: int, dtype: np.dtype[np.floating]) -> _Direction:
        return _Direction()

    async def run(self, ctx: RunContext) -> Message:
        """Iterate."""
        iteration = Iteration(ctx, self, *self.abilities)
        iteration.needs_both_ways()
        x = await iteration.begin()
        iteration.predict(x)
        size = iteration.layout.size
        iterate, tracked = first_and_second(size)
        direction = self._direction(size, iteration.layout.dtype)
        tracker = np.zeros_like(x) if self.zero_start else iteration.gradient(x, self.batch)
        books = iteration.books()
        for _ in iteration.steps():
            sent = joined(x, tracker)
            heard = await iteration.mix(sent, agreed=True)
            x = combine(x, heard, iterate) - self.step * direction.of(tracker)
            books.transfer(tracker, heard, tracked)
            iteration.settle(books)
            gradient = iteration.gradient(x, self.batch)
            tracker = gradient - books.total
            norm = float(np.linalg.norm(tracker))
            await iteration.end_step(x, gradient, vectors(heard), sent, tracker_norm=norm)
        return await iteration.finish(x)


class _Direction:
    """Down the tracker itself."""

    def of(self, tracker: Vector) -> Vector:
        """The direction to step against."""
        return tracker


@dataclass(frozen=True)
class GradientTracking(_Tracking):
    """Gradient tracking: every node follows an estimate of the mean gradient, and all reach the optimum.

    Update: x(k+1) = W x(k) - a y(k), y(k+1) = W y(k) + g(x(k+1)) - g(x(k)), y(0) = g(x(0)).
    Message: iterate and tracker. Rate: linear to the exact optimum with a constant step, small enough,
    on smooth strongly convex objectives; the trackers always sum to the gradients' sum.
    A death: the tracker is the gradient minus the books of its transfers. A gone neighbour's entry is
    deleted, so the survivors' trackers sum to their gradients, and they end at the survivors' optimum.

    Source: A. Nedic, A. Olshevsky, W. Shi, "Achieving geometric convergence for distributed optimization
    over time-varying graphs" (DIGing), SIAM J. Optim. 27 (2017); with minibatches: S. Pu, A. Nedic,
    "Distributed stochastic gradient tracking methods", Math. Programming 187 (2021).
    """

    name: ClassVar[str] = "gradient-tracking"
    contract: ClassVar[str] = "survivors"

    def theory(self) -> Theory:
        """Of exact gradients; minibatches end in a neighbourhood of the same limit."""
        return Theory(bounds.TRACKING, modes.TRACKING)


@dataclass(frozen=True)
class GTAdam(_Tracking):
    """GTAdam: gradient tracking whose step is scaled by moments of the tracker, as Adam's.

    Update: m(k+1) = b1 m(k) + (1 - b1) y(k), v(k+1) = min(b2 v(k) + (1 - b2) y(k)^2, cap),
    x(k+1) = W x(k) - a m(k+1) / sqrt(v(k+1) + epsilon), or epsilon beside the root as Adam has it; the
    tracker y as in gradient tracking. No correction of the moments' start.
    Message: iterate and tracker. Rate: linear to the exact optimum for a small enough step on smooth
    strongly convex objectives.
    A death: as gradient tracking; the moments are this node's own and fade.

    Source: G. Carnevale, F. Farina, I. Notarnicola, G. Notarstefano, "GTAdam: gradient tracking with
    adaptive momentum for distributed online optimization", IEEE Trans. Control of Network Systems 10
    (2023).
    """

    name: ClassVar[str] = "gtadam"
    contract: ClassVar[str] = "survivors"

    beta1: float = field(default=0.9, metadata={"help": "memory of the first moment, from 0, below 1"})
    beta2: float = field(default=0.999, metadata={"help": "memory of the second moment, from 0, below 1"})
    epsilon: float = field(
        default=1e-8,
        metadata={"help": "keeps the divisor from 0: with a small one, steps stay large near the optimum"},
    )
    epsilon_in_root: bool = field(
        default=True,
        metadata={"help": "sqrt(v + epsilon) as published and in NVFlare, else sqrt(v) + epsilon"},
    )
    cap: float = field(default=1e6, metadata={"help": "largest second moment, as published and in NVFlare"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 and below 1, not {getattr(self, name):g}")
        if not self.epsilon > 0 or not self.cap > 0:
            raise ValueError(f"epsilon and cap must be larger than 0, not {self.epsilon:g} and {self.cap:g}")

    def theory(self) -> Theory:
        """None: the step is scaled by what the tracker was."""
        return Theory(why="the moments scale each step, so no bound on it follows from the curvature")

    def _direction(self, size: int, dtype: np.dtype[np.floating]) -> _Direction:
        return _Moments(self, size, dtype)


class _Moments(_Direction):
    """Down the first moment, scaled by the second."""

    def __init__(self, settings: GTAdam, size: int, dtype: np.dtype[np.floating]) -> None:
        self._settings = settings
        self._first = np.zeros(size, dtype=dtype)
        self._second = np.zeros(size, dtype=dtype)

    def of(self, tracker: Vector) -> Vector:
        """The direction to step against."""
        s = self._settings
        self._first = s.beta1 * self._first + (1 - s.beta1) * tracker
        self._second = np.minimum(s.beta2 * self._second + (1 - s.beta2) * tracker**2, s.cap)
        if s.epsilon_in_root:
            return self._first / np.sqrt(self._second + s.epsilon)
        return self._first / (np.sqrt(self._second) + s.epsilon)


@dataclass(frozen=True)
class KGT(Iterative):
    """K-GT: several local steps between two exchanges, each corrected by what the others see.

    Update: from x(t), `local_steps` times y <- y - a (g(y; minibatch) + c(t)); d = x(t) - y,
    z = d / (local_steps a); c(t+1) = c(t) - z + W z; x(t+1) = W (x(t) - s d), s the mixing step.
    c starts at zero. Minibatches are the learner's own. Message: x - s d and z.
    Rate: linear to the exact optimum with exact gradients on strongly convex objectives; without the
    drift that local steps on unlike data have.
    A death: c is minus the books of its transfers and sums to zero over all nodes; a gone neighbour's
    entry is deleted, so it sums to zero over the survivors, and they end at the survivors' optimum.

    Source: Y. Liu, T. Lin, A. Koloskova, S. U. Stich, "Decentralized gradient tracking with local steps",
    Optimization Methods and Software (2024), algorithm 1, with the correction started from zero.
    """

    name: ClassVar[str] = "k-gt"
    contract: ClassVar[str] = "survivors"
    abilities: ClassVar[tuple[str, ...]] = ("correction", "step")

    local_steps: int = field(default=5, metadata={"help": "steps between two exchanges"})
    mixing_step: float = field(default=1.0, metadata={"help": "share of the local progress that counts"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.local_steps < 1:
            raise ValueError(f"local_steps must be at least 1, not {self.local_steps}")
        if not 0 < self.mixing_step <= 1:
            raise ValueError(f"mixing_step must be larger than 0 and at most 1, not {self.mixing_step:g}")

    def theory(self) -> Theory:
        """Of exact gradients; minibatches end in a neighbourhood of the same limit."""
        return Theory(modes=modes.local_tracking(self.local_steps, self.mixing_step))

    def message_bytes(self, x: Vector) -> int:
        """Iterate and slope."""
        return 2 * x.nbytes

    async def run(self, ctx: RunContext) -> Message:
        """Iterate."""
        iteration = Iteration(ctx, self, *self.abilities)
        iteration.needs_both_ways()
        x = await iteration.begin()
        iteration.predict(x)
        iterate, tracked = first_and_second(iteration.layout.size)
        books = iteration.books()
        correction = np.zeros_like(x)
        for _ in iteration.steps():
            iteration.load(x)
            await iteration.learner.train(
                steps=self.local_steps, step=self.step, correction=iteration.layout.unpack(correction)
            )
            progress = x - iteration.layout.pack(iteration.learner.parameters())
            slope = progress / (self.local_steps * self.step)
            moved = x - self.mixing_step * progress
            sent = joined(moved, slope)
            heard = await iteration.mix(sent, agreed=True)
            x = combine(moved, heard, iterate)
            books.transfer(slope, heard, tracked)
            iteration.settle(books)
            correction = -books.total
            await iteration.end_step(x, slope, vectors(heard), sent)
        return await iteration.finish(x)
