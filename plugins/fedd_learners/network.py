"""Softmax regression and small multilayer perceptrons in NumPy, with exact gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from fedd.api import InvalidParameter
from fedd_learners.descent import GradientLearner
from fedd_learners.samples import Samples, class_count, count_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedd_learners.descent import Arrays

MAX_WIDTH = 1 << 16
"""Of a hidden layer: what is larger is no small network."""


@dataclass
class _Network(GradientLearner):
    """Fully connected layers with a softmax over classes and the cross-entropy as loss.

    The model is [W1 (d, h1), b1 (h1,), W2 (h1, h2), b2 (h2,), ...]; the penalty is on the Ws.
    """

    classes: int = field(
        default=0, metadata={"help": "how many classes there are on all members; 0: as many as here"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes < 0 or self.classes == 1 or self.classes > MAX_WIDTH:
            raise InvalidParameter(
                f"classes must be 0, or 2 to {MAX_WIDTH}, not {self.classes}", field="classes"
            )

    def _widths(self) -> list[int]:
        """Of the hidden layers."""
        return []

    def _activate(self, values: NDArray[Any]) -> NDArray[Any]:
        activated: NDArray[Any] = np.maximum(values, 0)
        return activated

    def _slope(self, activated: NDArray[Any]) -> NDArray[Any]:
        """The activation's derivative, from its value."""
        return activated > 0

    def _weights(self, rng: np.random.Generator, rows: int, columns: int) -> NDArray[Any]:
        return np.zeros((rows, columns))

    def _start(self) -> Arrays:
        count = class_count(self._train, self.classes)
        if self._test is not None:
            class_count(self._test, count)
        rng = np.random.default_rng(getattr(self, "seed", 0))
        sizes = [self._train.x.shape[1], *self._widths(), count]
        model: Arrays = []
        for rows, columns in pairwise(sizes):
            model.append(self._weights(rng, rows, columns).astype(self.dtype))
            model.append(np.zeros(columns, self.dtype))
        return model

    def _penalised(self) -> list[bool]:
        return [True, False] * (len(self._model) // 2)

    def _forward(self, x: NDArray[Any]) -> tuple[Arrays, NDArray[Any]]:
        """(what enters each layer, log-probabilities (n, classes))."""
        entering = [x]
        layers = list(zip(self._model[::2], self._model[1::2], strict=True))
        for weights, bias in layers[:-1]:
            entering.append(self._activate(entering[-1] @ weights + bias))
        weights, bias = layers[-1]
        scores = entering[-1] @ weights + bias
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return entering, scores

    def _loss_and_gradient(self, samples: Samples) -> tuple[float, Arrays]:
        entering, scores = self._forward(samples.x)
        rows, labels = np.arange(len(samples)), samples.y.astype(np.intp)
        loss = -float(scores[rows, labels].mean(dtype=np.float64))
        back = np.exp(scores)
        back[rows, labels] -= 1
        back /= len(samples)
        gradient: Arrays = []
        for index in range(len(entering) - 1, -1, -1):
            gradient[:0] = [entering[index].T @ back, back.sum(axis=0)]
            if index:
                back = (back @ self._model[2 * index].T) * self._slope(entering[index])
        return loss, gradient

    def _label_counts(self) -> dict[str, float]:
        return count_labels(self._train)

    def _measure(self, samples: Samples) -> dict[str, float]:
        scores = self._forward(samples.x)[1]
        labels = samples.y.astype(np.intp)
        loss = -float(scores[np.arange(len(samples)), labels].mean(dtype=np.float64))
        return {"loss": loss, "accuracy": float((scores.argmax(axis=1) == labels).mean())}


@dataclass
class Softmax(_Network):
    """Softmax regression: mean cross-entropy + l2 / 2 |W|^2, from zero; float64, full gradients.

    Convex. Data: x (n, d) and y (n,) with classes 0, 1, 2, ... A device that has not seen all classes needs
    `classes`.
    """

    name: ClassVar[str] = "softmax"


@dataclass
class Mlp(_Network):
    """A multilayer perceptron with softmax output; float64, full gradients.

    The first weights are N(0, 2 / fan-in) (K. He et al., "Delving deep into rectifiers", ICCV 2015), drawn
    from `seed`, so that all members begin with the same model.
    """

    name: ClassVar[str] = "mlp"
    hidden: str = field(default="32", metadata={"help": "sizes of the hidden layers, as in 64,32"})
    activation: Literal["relu", "tanh"] = field(default="relu", metadata={"help": "of the hidden layers"})
    seed: int = field(default=0, metadata={"help": "of the first weights, the same on all members"})

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            good = all(0 < width <= MAX_WIDTH for width in self._widths())
        except ValueError:
            good = False
        if not good or self.seed < 0:
            name, value = ("seed", self.seed) if good else ("hidden", self.hidden)
            raise InvalidParameter(f"{name} must not be {value!r}", hint="as in 64,32", field=name)

    def _widths(self) -> list[int]:
        return [int(part) for part in self.hidden.split(",")]

    def _weights(self, rng: np.random.Generator, rows: int, columns: int) -> NDArray[Any]:
        weights: NDArray[Any] = rng.standard_normal((rows, columns)) * np.sqrt(2 / rows)
        return weights

    def _activate(self, values: NDArray[Any]) -> NDArray[Any]:
        if self.activation == "relu":
            return super()._activate(values)
        activated: NDArray[Any] = np.tanh(values)
        return activated

    def _slope(self, activated: NDArray[Any]) -> NDArray[Any]:
        if self.activation == "relu":
            return super()._slope(activated)
        slope: NDArray[Any] = 1 - activated * activated
        return slope


@dataclass
class NumpySoftmax(Softmax):
    """Softmax regression for federated learning: `softmax` in float32, with minibatches of 32."""

    name: ClassVar[str] = "numpy-softmax"
    dtype: ClassVar[type[np.floating[Any]]] = np.float32
    batch: int = field(default=32, metadata={"help": "samples of a training step; 0 takes all of them"})


@dataclass
class NumpyMlp(Mlp):
    """A multilayer perceptron for federated learning: `mlp` in float32, with minibatches of 32."""

    name: ClassVar[str] = "numpy-mlp"
    dtype: ClassVar[type[np.floating[Any]]] = np.float32
    batch: int = field(default=32, metadata={"help": "samples of a training step; 0 takes all of them"})
