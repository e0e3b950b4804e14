"""What learners with a gradient have in common: their data, minibatches and the steps of training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fedd.api import InvalidParameter, Message, TrainResult
from fedd_learners.samples import Samples, check_share, check_step, read_samples, split_off

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = list[NDArray[Any]]


@dataclass
class GradientLearner(ABC):
    """Minibatch gradient descent on an objective f(w) = loss over this device's samples + l2 / 2 |w|^2.

    Update of each step: w <- w - step (g + correction + proximal (w - w_start)), g the mean gradient over a
    minibatch. Minibatches go through a random order of the samples, drawn anew after each pass (random
    reshuffling), and on through calls of `train`.
    """

    dtype: ClassVar[type[np.floating[Any]]] = np.float64

    step: float = field(default=0.1, metadata={"help": "step size of training"})
    batch: int = field(default=0, metadata={"help": "samples of a training step; 0 takes all of them"})
    l2: float = field(default=0.0, metadata={"help": "weight of the penalty l2 / 2 |w|^2"})
    test: float = field(
        default=0.0,
        metadata={"help": "share of the samples kept for evaluation, if no test samples are given"},
    )
    target: str = field(default="", metadata={"help": "column of the targets (default: the last)"})

    def __post_init__(self) -> None:
        check_step("step", self.step)
        if self.batch < 0:
            raise InvalidParameter(f"batch must be 0 or more, not {self.batch}", field="batch")
        if not 0 <= self.l2 < float("inf"):
            raise InvalidParameter(f"l2 must be 0 or more, not {self.l2:g}", field="l2")
        check_share("test", self.test)

    @abstractmethod
    def _start(self) -> Arrays:
        """The model at first; raises InvalidMessage when the samples' targets do not fit."""

    @abstractmethod
    def _loss_and_gradient(self, samples: Samples) -> tuple[float, Arrays]:
        """Mean loss over the samples at the present model and its gradient, both without the penalty."""

    @abstractmethod
    def _measure(self, samples: Samples) -> dict[str, float]:
        """`loss` and what else tells how good the present model is on these samples."""

    @abstractmethod
    def _penalised(self) -> list[bool]:
        """Which arrays of the model the penalty is for."""

    def _label_counts(self) -> dict[str, float]:
        """How many training samples each class has, as `samples_of.CLASS`; empty without classes."""
        return {}

    def prepare(self, data: Message, rng: np.random.Generator) -> None:
        """Take the samples. Raises InvalidMessage when they are none; see `read_samples` for their forms."""
        train, test = read_samples(data, self.target, self.dtype)
        if test is None:
            train, test = split_off(train, self.test, rng)
        self._train = train
        self._test = test
        self._rng = rng
        self._order = np.empty(0, np.intp)
        self._at = 0
        self._model: Arrays = self._start()

    def parameters(self) -> Arrays:
        """A copy of the model."""
        return [array.copy() for array in self._model]

    def load(self, parameters: Sequence[NDArray[Any]]) -> None:
        """Replace the model."""
        self._model = [np.array(array, self.dtype) for array in parameters]

    def train(
        self,
        *,
        epochs: int = 0,
        steps: int = 0,
        step: float | None = None,
        correction: Sequence[NDArray[Any]] | None = None,
        proximal: float = 0.0,
    ) -> TrainResult:
        """Make `steps` steps, or as many as `epochs` passes need; `loss` is the mean over the last pass."""
        size = len(self._train) if self.batch == 0 else min(self.batch, len(self._train))
        a_pass = -(-len(self._train) // size)
        steps = steps or epochs * a_pass
        length = self.step if step is None else step
        anchor = self.parameters() if proximal else []
        total = 0.0
        last = min(a_pass, steps)
        for made, batch in enumerate(self._batches(size, steps)):
            loss, gradient = self._penalised_gradient(batch)
            for index, (weights, slope) in enumerate(zip(self._model, gradient, strict=True)):
                if correction is not None:
                    slope = slope + correction[index]
                if proximal:
                    slope = slope + proximal * (weights - anchor[index])
                weights -= (length * slope).astype(self.dtype, copy=False)
            if made >= steps - last:
                total += loss
        return TrainResult(len(self._train), steps, length, {"loss": total / last, **self._label_counts()})

    def gradient(self, *, batch: int = 0) -> Arrays:
        """The gradient of the objective, exact or on `batch` samples drawn without replacement."""
        samples = self._train
        if 0 < batch < len(samples):
            samples = samples.rows(self._rng.choice(len(samples), batch, replace=False))
        return self._penalised_gradient(samples)[1]

    def objective(self) -> float:
        """Mean loss over all training samples of this device, and the penalty."""
        return self._penalised_gradient(self._train)[0]

    def evaluate(self) -> dict[str, float]:
        """`loss` (without the penalty) and more on the test samples, on the training samples without any."""
        return self._measure(self._test if self._test is not None else self._train)

    def _penalised_gradient(self, samples: Samples) -> tuple[float, Arrays]:
        loss, gradient = self._loss_and_gradient(samples)
        if self.l2:
            for index, held in enumerate(self._penalised()):
                if held:
                    weights = self._model[index]
                    loss += self.l2 / 2 * float(np.sum(weights * weights))
                    gradient[index] = gradient[index] + self.l2 * weights
        return loss, gradient

    def _batches(self, size: int, steps: int) -> Iterator[Samples]:
        if size == len(self._train):
            for _ in range(steps):
                yield self._train
            return
        for _ in range(steps):
            if self._at >= len(self._order):
                self._order = self._rng.permutation(len(self._train))
                self._at = 0
            chosen = self._order[self._at : self._at + size]
            self._at += size
            yield self._train.rows(chosen)
