"""scikit-learn's incremental models as learners."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from fedd.api import InvalidParameter, Message, PluginFailed, TrainResult
from fedd_learners.samples import (
    Samples,
    check_share,
    check_sizes,
    check_step,
    class_count,
    count_labels,
    read_samples,
    split_off,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

WARM = "logistic-regression"
"""The model that learns by `fit` with a warm start."""


@dataclass
class SklearnModel:
    """A scikit-learn model that goes on from the model it was given, by `partial_fit` or a warm start.

    `logistic-regression` has no `partial_fit`: each training is a `fit` of some iterations of L-BFGS over all
    samples with `warm_start`, and a step is an iteration. The others take minibatches.

    Its model is scikit-learn's own arrays: coefficients and intercepts. scikit-learn takes neither a step
    size nor a correction nor a proximal term, so it is for the aggregators that need none of them.
    """

    name: ClassVar[str] = "sklearn"

    model: Literal["sgd-classifier", "logistic-regression", "mlp-classifier", "sgd-regressor"] = field(
        default="sgd-classifier",
        metadata={"help": "linear with log loss (by SGD or L-BFGS), a perceptron, or a linear regression"},
    )
    classes: int = field(
        default=0, metadata={"help": "how many classes there are on all members; 0: as many as here"}
    )
    batch: int = field(default=32, metadata={"help": "samples of a training step; 0 takes all of them"})
    rate: float = field(default=0.01, metadata={"help": "initial learning rate"})
    l2: float = field(default=0.0001, metadata={"help": "scikit-learn's alpha"})
    hidden: str = field(default="32", metadata={"help": "sizes of the mlp-classifier's hidden layers"})
    seed: int = field(default=0, metadata={"help": "of the first weights, the same on all members"})
    test: float = field(
        default=0.0,
        metadata={"help": "share of the samples kept for evaluation, if no test samples are given"},
    )
    target: str = field(default="", metadata={"help": "column of the targets (default: the last)"})

    def __post_init__(self) -> None:
        check_sizes(classes=self.classes, batch=self.batch, seed=self.seed, l2=self.l2)
        check_step("rate", self.rate)
        check_share("test", self.test)
        widths = self.hidden.split(",")
        if not all(width.strip().isdecimal() and int(width) > 0 for width in widths):
            raise InvalidParameter(f"hidden must not be {self.hidden!r}", hint="as in 64,32", field="hidden")

    def prepare(self, data: Message, rng: np.random.Generator) -> None:
        """Take the samples and build the model.

        Raises InvalidMessage when the data is no samples, PluginFailed without scikit-learn.
        """
        train, test = read_samples(data, self.target, np.float64)
        if test is None:
            train, test = split_off(train, self.test, rng)
        self._train = train
        self._test = test
        self._rng = rng
        self._labels: NDArray[np.float64] | None = None
        if self.model != "sgd-regressor":
            count = class_count(train, self.classes)
            if test is not None:
                class_count(test, count)
            self._labels = np.arange(float(count))
        self._estimator = self._build()

    def parameters(self) -> list[NDArray[Any]]:
        """A copy of the coefficients and intercepts, layer by layer."""
        return [np.array(array, np.float64) for array in self._arrays()]

    def load(self, parameters: Sequence[NDArray[Any]]) -> None:
        """Write these arrays into the model's own, which its optimiser holds too."""
        for own, given in zip(self._arrays(), parameters, strict=True):
            own[...] = given

    def train(self, *, epochs: int = 0, steps: int = 0) -> TrainResult:
        """Go on with minibatches of a random order of the samples, or with iterations over all of them."""
        samples = len(self._train)
        if self.model == WARM:
            steps = steps or epochs
            self._estimator.set_params(max_iter=steps)
            self._fit(self._train)
            return self._result(steps)
        size = min(self.batch or samples, samples)
        a_pass = -(-samples // size)
        steps = steps or epochs * a_pass
        order = np.empty(0, np.intp)
        for made in range(steps):
            at = made % a_pass
            if at == 0:
                order = self._rng.permutation(samples)
            self._fit(self._train.rows(order[at * size : (at + 1) * size]))
        return self._result(steps)

    def _result(self, steps: int) -> TrainResult:
        counts = {} if self._labels is None else count_labels(self._train)
        return TrainResult(len(self._train), steps, metrics={**self._measure(self._train), **counts})

    def evaluate(self) -> dict[str, float]:
        """`loss` and `accuracy` (of a regression `r2`), on the test samples if there are any."""
        return self._measure(self._test if self._test is not None else self._train)

    def _build(self) -> Any:
        try:
            linear_model: Any = importlib.import_module("sklearn.linear_model")
            neural_network: Any = importlib.import_module("sklearn.neural_network")
        except ImportError as error:
            raise PluginFailed(
                f"scikit-learn is needed and cannot be imported: {error}",
                hint="install the package scikit-learn beside fedd",
            ) from None
        linear = {"alpha": self.l2, "learning_rate": "constant", "eta0": self.rate, "random_state": self.seed}
        if self.model == "sgd-classifier":
            estimator = linear_model.SGDClassifier(loss="log_loss", **linear)
        elif self.model == "sgd-regressor":
            estimator = linear_model.SGDRegressor(**linear)
        elif self.model == WARM:
            # Its loss is a sum over the samples and C weighs it: this makes l2 what alpha is for the others.
            c = 1 / (self.l2 * len(self._train)) if self.l2 else np.inf
            estimator = linear_model.LogisticRegression(C=c, warm_start=True, max_iter=1)
        else:
            estimator = neural_network.MLPClassifier(
                tuple(int(width) for width in self.hidden.split(",")),
                solver="sgd",
                alpha=self.l2,
                learning_rate_init=self.rate,
                random_state=self.seed,
            )
        self._estimator = estimator
        # One step makes scikit-learn allocate its arrays. On a zero sample, and then undone, so that all
        # members begin with the same model whatever their data.
        blank = Samples(np.zeros((1, self._train.x.shape[1])), np.zeros(1))
        self._fit(blank)
        if self.model != "mlp-classifier":
            for array in self._arrays():
                array[...] = 0
        return estimator

    def _fit(self, samples: Samples) -> None:
        if self.model == WARM and self._labels is not None:
            # A sample of no weight for each class: `fit` knows no classes but those in the data.
            labels = self._labels
            x = np.concatenate([samples.x, np.zeros((len(labels), samples.x.shape[1]))])
            weights = np.concatenate([np.ones(len(samples)), np.zeros(len(labels))])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it has not converged is meant
                self._estimator.fit(x, np.concatenate([samples.y, labels]), weights)
        elif self._labels is None:
            self._estimator.partial_fit(samples.x, samples.y)
        else:
            self._estimator.partial_fit(samples.x, samples.y, classes=self._labels)

    def _arrays(self) -> list[NDArray[Any]]:
        if self.model == "mlp-classifier":
            pairs = zip(self._estimator.coefs_, self._estimator.intercepts_, strict=True)
            return [array for pair in pairs for array in pair]
        return [self._estimator.coef_, self._estimator.intercept_]

    def _measure(self, samples: Samples) -> dict[str, float]:
        if self._labels is None:
            residual = self._estimator.predict(samples.x) - samples.y
            spread = float(np.var(samples.y))
            loss = float(residual @ residual) / len(samples)
            return {"loss": loss / 2, **({"r2": 1 - loss / spread} if spread > 0 else {})}
        chances = self._estimator.predict_proba(samples.x)
        own = chances[np.arange(len(samples)), samples.y.astype(np.intp)]
        right = chances.argmax(axis=1) == samples.y
        return {
            "loss": -float(np.log(np.maximum(own, 1e-15)).mean()),
            "accuracy": float(right.mean()),
        }
