"""What all iterative methods share: parameters, the start, gradients of the device's learner, metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from fedd.api import InvalidMessage, InvalidParameter, Message, PeerId, RunContext
from fedd_optimization.growth import Growth
from fedd_optimization.mixing import Books, Heard, mix, swap
from fedd_optimization.outlook import Metrics, Theory, foresee
from fedd_optimization.vectors import Layout

if TYPE_CHECKING:
    from fedd_optimization.vectors import Vector

CHECKPOINTS = 100
"""A run is kept this many times: what a new epoch loses is at most a hundredth of it."""

_LARGEST = {4: 1e18, 8: 1e150}
"""By bytes an element: the square of an iterate, which a loss takes, is still a number."""


@dataclass(frozen=True)
class Iterative:
    """Parameters of every method here."""

    joinable: ClassVar[bool] = True
    abilities: ClassVar[tuple[str, ...]] = ("gradient",)
    """What the learner must have, beside an objective for the metrics."""
    both_ways: ClassVar[bool] = True
    """Whether transfers need a way back."""

    iterations: int = field(default=1000, metadata={"help": "how many, on every node"})
    step: float = field(default=0.01, metadata={"help": "step size, larger than 0"})
    start: Literal["zero", "model", "first"] = field(
        default="zero",
        metadata={"help": "first iterate: zero, this device's model, or the model of the lowest peer id"},
    )
    history: int = field(
        default=1, metadata={"help": "report the iterate's metrics every so many iterations, 0: never"}
    )

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, not {self.iterations}")
        if not 0 < self.step < float("inf"):
            raise ValueError(f"step must be a finite number larger than 0, not {self.step:g}")
        if self.history < 0:
            raise ValueError(f"history must be 0 or more, not {self.history}")

    def theory(self) -> Theory:
        """What is known of the method's step sizes and its rate."""
        return Theory()

    def messages(self, neighbors: int) -> int:
        """How many messages a node sends in an iteration."""
        return neighbors

    def message_bytes(self, x: Vector) -> int:
        """What the arrays of a message take for an iterate like `x`."""
        return x.nbytes

    def predict(self, ctx: RunContext) -> Metrics:
        """What `foresee` says, at the first iterate as far as this device knows it.

        Raises InvalidParameter as `run` would before its first exchange.
        """
        iteration = Iteration(ctx, self, *self.abilities)
        if self.both_ways:
            iteration.needs_both_ways()
        return foresee(ctx, self, iteration.gradient, iteration.nearest_start())


class Iteration:
    """One node's run of an iterative method, from its start to its answer."""

    def __init__(self, ctx: RunContext, settings: Iterative, *abilities: str) -> None:
        """Raises InvalidParameter when the run's input is no learner, or one without `abilities`.

        Metrics need the ability objective.
        """
        self.ctx = ctx
        self.learner = ctx.learner
        self.learner.require(*abilities, *(("objective",) if settings.history else ()))
        model = self.learner.parameters()
        self.layout = Layout(model)
        self.tag: str = getattr(type(settings), "name", "")
        self._settings = settings
        self._model = self.layout.pack(model)
        self._done = 0
        self._bytes_sent = 0
        self._left: set[PeerId] = set()
        self._growth = Growth(len(ctx.members))
        ctx.on_leave(lambda peer, reason: self._left.add(peer))

    async def begin(self) -> Vector:
        """This node's first iterate.

        In a later epoch the iterate that was kept last, and for a node that has none the iterate of the
        node that is furthest; everybody then goes on from the largest count of iterations.
        """
        match self._settings.start:
            case "zero":
                x = np.zeros_like(self._model)
            case "model":
                x = self._model
            case "first":
                order = -self.ctx.members.index(self.ctx.me)
                _, x = await self._furthest(order, self._model)
        if self.ctx.epoch > 1:
            mine, done = self._restored(x)
            known = x if mine is None else mine
            self._done, theirs = await self._furthest(done, known)
            x = theirs if mine is None else mine
        return np.array(x)

    def predict(self, x: Vector) -> None:
        """Report what `foresee` says; not without a history, or after a restart."""
        if self._settings.history and not self._done:
            self.ctx.report(**foresee(self.ctx, self._settings, self.gradient, x))

    def nearest_start(self) -> Vector:
        """The first iterate without asking anybody: that of another device is taken for this one's model."""
        return np.zeros_like(self._model) if self._settings.start == "zero" else self._model.copy()

    def steps(self) -> Iterator[int]:
        """Count the iterations that are left."""
        while self._done < self._settings.iterations:
            yield self._done
            self._done += 1

    def gradient(self, x: Vector, batch: int = 0) -> Vector:
        """The gradient of this device's objective at `x`: exact, or on `batch` random samples."""
        self.load(x)
        return self.layout.pack(self.learner.gradient(batch=batch))

    def load(self, x: Vector) -> None:
        """Make `x` the learner's model. Raises InvalidParameter when it is beyond all bounds: it diverged."""
        if not (np.abs(x) <= _LARGEST[x.dtype.itemsize]).all():
            raise self._diverged()
        self.learner.load(self.layout.unpack(x))

    def _watch(self, number: int, size: float, slope: float) -> None:
        """Tell once that the iteration grows; raise when it grew beyond return."""
        match self._growth.judge(size, slope):
            case "diverged":
                raise self._diverged()
            case "grows":
                self.ctx.report(
                    warning=f"seems to diverge since iteration {number}: the gradient and the iterate are "
                    f"a thousand times as large as in the beginning; take a smaller step than "
                    f"{self._settings.step:g}"
                )

    def _diverged(self) -> InvalidParameter:
        return InvalidParameter(
            f"the iterate of {self.ctx.me} diverged in iteration {self._done + 1}",
            field="step",
            hint=f"take a smaller step than {self._settings.step:g}",
        )

    def books(self) -> Books:
        """Empty books for vectors like the iterate."""
        return Books(self.layout.size, self.layout.dtype)

    def settle(self, books: Books) -> None:
        """After an exchange: delete the entries of those who are no neighbours any more."""
        ctx = self.ctx
        if ctx.graph.period == 1:
            self._left.update(set(books.peers).difference(ctx.in_neighbors, ctx.out_neighbors))
        books.delete(self._left)

    async def mix(self, vector: Vector, *, agreed: bool = False) -> dict[PeerId, Heard]:
        """`mixing.mix`, counting its bytes."""
        self.count(vector.nbytes * len(self.ctx.out_neighbors))
        return await mix(self.ctx, vector, self.tag, agreed=agreed)

    def needs_both_ways(self) -> None:
        """Raise InvalidParameter on a directed graph: transfers need a way back."""
        if self.ctx.graph.directed:
            raise InvalidParameter(
                f"{self.tag} needs a graph whose edges go both ways",
                hint="push-pull is gradient tracking on directed graphs; dgd and dsgd bear them too",
                field="topology",
            )

    def count(self, sent_bytes: int) -> None:
        """Add to the bytes that this node's vectors took."""
        self._bytes_sent += sent_bytes

    async def end_step(
        self, x: Vector, gradient: Vector, heard: Iterable[Vector], sent: Vector, **more: float
    ) -> None:
        """Keep the new iterate `x` now and then; report on the one whose `gradient` was just taken.

        The learner still holds that one. `sent` is what this node gave beside what it `heard`; the largest
        distance between them, over the iterate's part, is the disagreement. Reports a `warning` when the
        iteration seems to diverge; raises InvalidParameter when it did.
        """
        number = self._done + 1
        settings = self._settings
        slope = float(np.linalg.norm(gradient))
        self._watch(number, float(np.linalg.norm(x)), slope)
        if settings.history and (number % settings.history == 0 or number == settings.iterations):
            size = self.layout.size
            far = max((float(np.linalg.norm(each[:size] - sent[:size])) for each in heard), default=0.0)
            self.ctx.report(
                iteration=number,
                objective=self.learner.objective(),
                gradient_norm=slope,
                disagreement=far,
                bytes=self._bytes_sent,
                **more,
            )
        if number % max(1, settings.iterations // CHECKPOINTS) == 0:
            await self.ctx.checkpoint({"x": x, "done": number})

    async def finish(self, x: Vector) -> Message:
        """Load the last iterate, report what the learner measures of it, and return it.

        One array when the model is one array, else the list of its arrays.
        """
        self.load(x)
        self.ctx.report(**await self.learner.evaluate())
        arrays: list[Message] = [*self.layout.unpack(x)]
        return arrays[0] if len(arrays) == 1 else arrays

    def _restored(self, like: Vector) -> tuple[Vector | None, int]:
        match self.ctx.restored:
            case {"x": np.ndarray() as x, "done": int(done)} if x.shape == like.shape and done > 0:
                return x.astype(like.dtype), done
        return None, -1

    async def _furthest(self, order: int, vector: Vector) -> tuple[int, Vector]:
        """The vector of the node with the largest `order`, the lowest peer id among equals.

        Takes len(members) - 1 exchanges of vectors, so that everybody in the component has it.
        """
        ctx = self.ctx
        best: tuple[int, int] = (order, -ctx.members.index(ctx.me))
        for _ in range(len(ctx.members) - 1):
            self.count(vector.nbytes * len(ctx.out_neighbors))
            for other, theirs in (await swap(ctx, vector, "start", [*best], _order)).values():
                if other > best:
                    best, vector = other, theirs
        return max(best[0], 0), vector


def _order(peer: PeerId, header: Any) -> tuple[int, int]:
    match header:
        case [int(other), int(index)]:
            return other, index
    raise InvalidMessage(f"{peer} sent something else than the start of a run")


def vectors(heard: dict[PeerId, Heard]) -> list[Vector]:
    """What the neighbours sent."""
    return [each.vector for each in heard.values()]


def first_and_second(size: int) -> tuple[slice, slice]:
    """The parts of a vector that carries two of `size` behind each other."""
    return slice(0, size), slice(size, 2 * size)


def joined(first: Vector, second: Vector) -> Any:
    """Two vectors behind each other."""
    return np.concatenate((first, second))
