"""Rounds of federated learning in one process, without a network: aggregators and learners alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedd.api import Aggregator, Contribution, InvalidParameter, Learner
from fedd_learners import NumpyMlp, NumpySoftmax
from fedd_learners.digits import CLASSES, Digits, split_digits
from fedd_learners.partition import dirichlet, iid

NODES = 10
ROUNDS = 60


@dataclass(frozen=True)
class Experiment:
    """Ten nodes, the digits (1437 for training, 360 for testing), 60 rounds of one epoch.

    `model` is "softmax" or "mlp" (64-32-10); `split` is "dirichlet" (0.1) or "iid". The first `liars` members
    send x - 4 (their update): reversed and times four.
    """

    model: str = "softmax"
    split: str = "dirichlet"
    liars: int = 0
    rounds: int = ROUNDS
    step: float = 0.1
    epochs: int = 1

    def accuracy(self, aggregator: Aggregator, seed: int) -> float:
        """On the test samples, of the last round's model."""
        train, test = split_digits()
        learners = self._learners(train, seed)
        model: Sequence[Any] = learners[0].parameters()
        state = aggregator.start(model)
        own: list[list[Any]] = [[] for _ in learners]
        for _ in range(self.rounds):
            contributions = []
            for index, learner in enumerate(learners):
                learner.load(model)
                wanted = aggregator.before(model, state, own[index])
                result = learner.train(
                    epochs=self.epochs, correction=wanted.correction, proximal=wanted.proximal
                )
                trained = learner.parameters()
                own[index], extra = aggregator.after(model, trained, result, state, own[index])
                if index < self.liars:
                    trained = [old - 4 * (new - old) for old, new in zip(model, trained, strict=True)]
                contributions.append(Contribution(f"n{index:02d}", trained, result.num_samples, extra))
            try:
                aggregate = aggregator.aggregate(model, contributions, state)
            except InvalidParameter:  # nobody has sent a finite model: the mean has gone for good
                break
            model, state = aggregate.model, aggregate.state
        judge = self._learner(seed)
        judge.prepare({"x": train.x, "y": train.y, "x_test": test.x, "y_test": test.y}, _rng(seed, "judge"))
        judge.load(model)
        return judge.evaluate()["accuracy"]

    def mean_accuracy(self, aggregator: Callable[[], Aggregator], seeds: Sequence[int] = (1, 2, 3)) -> float:
        """The mean over so many partitions and orders of the samples."""
        return float(np.mean([self.accuracy(aggregator(), seed) for seed in seeds]))

    def _learner(self, seed: int) -> Learner:
        if self.model == "softmax":
            return NumpySoftmax(step=self.step, classes=CLASSES)
        return NumpyMlp(step=self.step, classes=CLASSES, seed=seed)

    def _learners(self, train: Digits, seed: int) -> list[Learner]:
        rng = np.random.default_rng(seed)
        parts = iid(len(train.y), NODES, rng) if self.split == "iid" else dirichlet(train.y, NODES, 0.1, rng)
        learners = []
        for index, part in enumerate(parts):
            learner = self._learner(seed)
            learner.prepare({"x": train.x[part], "y": train.y[part]}, _rng(seed, f"learner {index}"))
            learners.append(learner)
        return learners


def _rng(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, *name.encode()])
