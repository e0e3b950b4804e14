"""This member's own training: what its learner makes of a model, and when it may do so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from fedd.api import Aggregator, Message, RunLearner, TrainResult
from fedd_aggregators.arithmetic import all_finite
from fedd_learning.layout import Layout
from fedd_learning.messages import ModelTrained

if TYPE_CHECKING:
    from fedd.api.types import Array
    from fedd_learning import Learning

LABEL = "samples_of."
"""A training's metric of this name and a label counts the samples of that label on this device."""
AHEAD_S = 0.1
"""A training that takes no longer may begin before all have agreed on its model. A longer one would keep what
the last round came to from being seen and stored, and would be lost should the others hold another model."""
MAX_DOUBT = 6
"""Training ahead in vain sends a part of the training twice. Each time adds 2 to a member's doubt, each time
that it was of use takes 1: where others never do it, it is tried three times."""


@dataclass(frozen=True)
class Training:
    """A training on the model with `digest`, after `round` rounds.

    `arrays` are what was trained and what the aggregator adds, none when nothing is offered; `own` is what
    the aggregator keeps on this device, if the training gets into the round's model.
    """

    round: int
    digest: str
    offer: ModelTrained
    arrays: Sequence[Array]
    own: Sequence[Array]


class Trainer:
    """The device's learner as a run of learning uses it."""

    def __init__(self, algorithm: Learning, learner: RunLearner, aggregator: Aggregator) -> None:
        self._algorithm = algorithm
        self._learner = learner
        self._aggregator = aggregator
        self._loaded: list[Array] | None = None
        """The model that the learner has, None when it has made something else of it."""
        self._took_s = math.inf
        self._doubt = 0

    def first_model(self) -> list[Array]:
        """What the learner begins with."""
        self._loaded = self._learner.parameters()
        return self._loaded

    def check(self, model: Sequence[Array], state: Sequence[Array], own: Sequence[Array]) -> None:
        """Raise InvalidParameter unless the learner can do what the aggregator will ask of it."""
        needed = self._aggregator.before(model, state, own)
        abilities = ["correction"] if needed.correction is not None else []
        abilities += ["proximal"] if needed.proximal else []
        abilities += ["step"] if self._algorithm.step else []
        self._learner.require(*abilities)

    def load(self, model: list[Array]) -> None:
        """Give the learner this model, unless it has it."""
        if self._loaded is not model:
            self._learner.load(model)
            self._loaded = model

    async def evaluate(self, model: list[Array]) -> dict[str, float]:
        """What the learner measures of this model."""
        self.load(model)
        return await self._learner.evaluate()

    @property
    def may_go_ahead(self) -> bool:
        """Whether it is worth while to train on a model on which not all have agreed yet."""
        return self._took_s <= AHEAD_S and self._doubt < MAX_DOUBT

    def went_ahead(self, *, in_vain: bool) -> None:
        """It trained ahead: in vain unless all hold the same model and the whole train set did."""
        self._doubt = self._doubt + 2 if in_vain else max(0, self._doubt - 1)

    async def train(
        self, round: int, digest: str, model: list[Array], state: Sequence[Array], own: Sequence[Array]
    ) -> Training:
        """Train on this model."""
        self.load(model)
        begun = trio.current_time()
        extra = self._aggregator.before(model, state, own)
        given = {"epochs": self._algorithm.epochs} if not self._algorithm.steps else {}
        result = await self._learner.train(
            **given,
            steps=self._algorithm.steps,
            step=self._algorithm.step or None,
            correction=extra.correction,
            proximal=extra.proximal,
        )
        self._loaded = None
        self._took_s = trio.current_time() - begun
        trained = self._learner.parameters()
        own_next, extras = self._aggregator.after(model, trained, result, state, own)
        arrays = [*trained, *extras]
        if not all(map(all_finite, arrays)):
            offer = ModelTrained(round, 0, reason="its training diverged: the model is not finite")
            return Training(round, digest, offer, [], own_next)
        offer = ModelTrained(round, result.num_samples, Layout.of(extras).text, _labels(result))
        return Training(round, digest, offer, arrays, own_next)


def _labels(result: TrainResult) -> Message:
    """{label: samples of it on this device}, as far as the learner counts them."""
    return {
        name.removeprefix(LABEL): int(count)
        for name, count in result.metrics.items()
        if name.startswith(LABEL)
    }
