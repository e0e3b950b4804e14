"""What a learner is: a device's own model and data, as algorithms see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from fedd.api.types import Message

if TYPE_CHECKING:
    import numpy as np

    from fedd.api.types import Array


@dataclass(frozen=True)
class TrainResult:
    """What a training did.

    `num_samples` counts the samples that this device trains on (each once, however many epochs), `steps` the
    steps made, `step` is the size of each (0 when the learner has none, as with sklearn).
    """

    num_samples: int
    steps: int
    step: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)


class Learner(Protocol):
    """A dataclass with a name; its fields are the learner's options in `[inputs.NAME]` of this device.

    Fields have a type of bool, int, float or str (or a Literal of strings) and a default, as an
    algorithm's. `prepare` is called once, before anything else. `parameters`, `load`, `train` and
    `evaluate` are needed by all algorithms that learn; `gradient` and `objective` by those that optimise,
    and `correction`, `proximal` and `step` of `train` by SCAFFOLD, K-GT and FedProx: a learner without
    them is refused by those algorithms, and the error says what it lacks.

    Everything but `gradient` and `objective` is called in a thread, one call at a time.
    """

    name: ClassVar[str]

    def prepare(self, data: Message, rng: np.random.Generator) -> None:
        """Take this device's data (what the input's file, value or command gave) and the run's randomness.

        Raises InvalidMessage when the data is not what this learner learns from, saying what is wrong.
        """
        ...

    def parameters(self) -> list[Array]:
        """A copy of the model: arrays whose shapes and types never change."""
        ...

    def load(self, parameters: Sequence[Array]) -> None:
        """Replace the model by arrays like those that `parameters` returns."""
        ...

    def train(
        self,
        *,
        epochs: int = 0,
        steps: int = 0,
        step: float | None = None,
        correction: Sequence[Array] | None = None,
        proximal: float = 0.0,
    ) -> TrainResult:
        """Train on this device's data: `epochs` passes over it, or `steps` minibatches (one of the two).

        `step` is the step size, the learner's own option when None. `correction` is added to every
        gradient (arrays like the parameters). `proximal` adds `proximal * (w - w_start)` to every
        gradient, w_start the model at the time of the call.
        """
        ...

    def gradient(self, *, batch: int = 0) -> list[Array]:
        """The gradient of `objective` at the present model, exact (batch 0) or on so many random samples."""
        ...

    def objective(self) -> float:
        """The value of what is minimised here: at the present model, on all training data of this device."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Measure the present model, on this device's test data if it has any: `loss`, `accuracy`, ..."""
        ...


class RunLearner(Protocol):
    """This device's learner as a run lends it (`RunContext.learner`)."""

    @property
    def name(self) -> str:
        """Of the learner's class."""
        ...

    def require(self, *abilities: str) -> None:
        """Raise InvalidParameter unless this learner has all of these.

        They are gradient, objective, correction, proximal and step. Call it at the beginning of
        `Algorithm.run`, so that a run fails before its first round.
        """
        ...

    def parameters(self) -> list[Array]:
        """A copy of the model."""
        ...

    def load(self, parameters: Sequence[Array]) -> None:
        """Replace the model. Raises InvalidMessage when shape or type differ or a value is not finite."""
        ...

    def gradient(self, *, batch: int = 0) -> list[Array]:
        """See `Learner.gradient`. On the spot: for models whose gradient takes milliseconds."""
        ...

    def objective(self) -> float:
        """See `Learner.objective`."""
        ...

    async def train(
        self,
        *,
        epochs: int = 0,
        steps: int = 0,
        step: float | None = None,
        correction: Sequence[Array] | None = None,
        proximal: float = 0.0,
    ) -> TrainResult:
        """See `Learner.train`. In a thread; a stopped run does not wait for its end.

        Raises PluginFailed when the learner raises, or when it returns no TrainResult.
        """
        ...

    async def evaluate(self) -> dict[str, float]:
        """See `Learner.evaluate`. In a thread."""
        ...
