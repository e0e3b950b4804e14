"""Linear models with exact gradients: least squares, ridge and logistic regression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedd.api import InvalidMessage, Message
from fedd_learners.descent import GradientLearner
from fedd_learners.samples import Samples

if TYPE_CHECKING:
    from fedd_learners.descent import Arrays


@dataclass
class _Linear(GradientLearner):
    """A vector of weights, and with `intercept` a constant that is not penalised."""

    intercept: bool = field(default=False, metadata={"help": "add a constant, which is not penalised"})

    def _start(self) -> Arrays:
        weights = [np.zeros(self._train.x.shape[1])]
        return [*weights, np.zeros(1)] if self.intercept else weights

    def _penalised(self) -> list[bool]:
        return [True, False][: len(self._model)]

    def _predicted(self, samples: Samples) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        found = samples.x @ self._model[0]
        return found + self._model[1] if self.intercept else found

    def _chained(self, samples: Samples, slopes: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Arrays:
        """The gradient from the loss's slope at each prediction, already divided by the sample count."""
        gradient = [samples.x.T @ slopes]
        return [*gradient, np.array([slopes.sum()])] if self.intercept else gradient


@dataclass
class LeastSquares(_Linear):
    """Least squares: f(x) = |Ax - b|^2 / (2m) + l2 / 2 |x|^2 over this device's m rows, from x = 0.

    Data: a .npz file with A (m, d) and b (m,), or a table whose last column is b. The gradient is
    A^T (Ax - b) / m + l2 x, its Lipschitz constant the largest eigenvalue of A^T A / m + l2.
    """

    name: ClassVar[str] = "least-squares"

    def _loss_and_gradient(self, samples: Samples) -> tuple[float, Arrays]:
        residual = self._predicted(samples) - samples.y
        return float(residual @ residual) / (2 * len(samples)), self._chained(
            samples, residual / len(samples)
        )

    def _measure(self, samples: Samples) -> dict[str, float]:
        residual = self._predicted(samples) - samples.y
        loss = float(residual @ residual) / (2 * len(samples))
        spread = float(np.var(samples.y))
        return {"loss": loss, **({"r2": 1 - 2 * loss / spread} if spread > 0 else {})}


@dataclass
class Ridge(LeastSquares):
    """Ridge regression: least squares with a penalty, 0.1 / 2 |x|^2 unless l2 says otherwise."""

    name: ClassVar[str] = "ridge"
    l2: float = field(default=0.1, metadata={"help": "weight of the penalty l2 / 2 |w|^2"})


@dataclass
class Logistic(_Linear):
    """Logistic regression with two classes, 0 and 1 (or -1 and 1), from w = 0.

    f(w) = mean of log(1 + exp(-s a^T w)) + l2 / 2 |w|^2 with s = 1 for class 1, else -1. Convex, with the
    Lipschitz constant of its gradient at most a quarter of the largest eigenvalue of A^T A / m, plus l2.
    """

    name: ClassVar[str] = "logistic"
    l2: float = field(default=0.1, metadata={"help": "weight of the penalty l2 / 2 |w|^2"})

    def prepare(self, data: Message, rng: np.random.Generator) -> None:
        """Take the samples; targets become signs."""
        super().prepare(data, rng)
        self._train = _signed(self._train)
        self._test = None if self._test is None else _signed(self._test)

    def _loss_and_gradient(self, samples: Samples) -> tuple[float, Arrays]:
        margins = samples.y * self._predicted(samples)
        # log(1 + exp(-m)), and 1 / (1 + exp(m)) = exp(-m - log(1 + exp(-m))), neither of which overflows
        losses = np.logaddexp(0.0, -margins)
        slopes = -samples.y * np.exp(-margins - losses) / len(samples)
        return float(losses.mean()), self._chained(samples, slopes)

    def _measure(self, samples: Samples) -> dict[str, float]:
        margins = samples.y * self._predicted(samples)
        right = (margins > 0) | ((margins == 0) & (samples.y > 0))
        return {"loss": float(np.logaddexp(0.0, -margins).mean()), "accuracy": float(right.mean())}


def _signed(samples: Samples) -> Samples:
    """The same samples with targets -1 and 1. Raises InvalidMessage for other classes than two."""
    found = {float(label) for label in np.unique(samples.y)}
    if not (found <= {0.0, 1.0} or found <= {-1.0, 1.0}):
        shown = ", ".join(f"{label:g}" for label in sorted(found)[:5])
        raise InvalidMessage(
            f"the targets are {shown}",
            hint="logistic tells 0 from 1 (or -1 from 1); softmax knows more classes",
        )
    return Samples(samples.x, np.where(samples.y > 0, 1.0, -1.0))
