"""SCAFFOLD: control variates that take the members' drift out of their training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedd.api import Aggregate, Contribution, InvalidParameter, LocalTraining, TrainResult
from fedd_aggregators.arithmetic import back, state_type
from fedd_aggregators.averaging import as_model, mean_of
from fedd_aggregators.screens import screened

if TYPE_CHECKING:
    from fedd.api.types import Array


@dataclass(frozen=True)
class Scaffold:
    """FedAvg with control variates: c estimates everybody's gradient, c_i this member's own.

    Every gradient g of a member's training becomes g - c_i + c. After K steps of size eta from x to y_i:
    c_i' = c_i - c + (x - y_i) / (K eta) (option II of the paper), and with d_i = c_i' - c_i

        x' = x + rate (mean of y_i - x),    c' = c + participation * mean of d_i.

    Both means are weighted by the samples, as FedAvg's is: then they belong to the same objective, the mean
    over all samples. (The paper's are unweighted, over members of equal size.) `participation` is the
    paper's |S| / N. d_i travels as n_i d_i and n_i, because extras are averaged without weights.

    It needs a learner with a step size and corrections: plain stochastic gradient descent.

    Source: S. P. Karimireddy, S. Kale, M. Mohri, S. Reddi, S. Stich, A. T. Suresh, "SCAFFOLD: stochastic
    controlled averaging for federated learning", ICML 2020, algorithm 1.
    """

    name: ClassVar[str] = "scaffold"
    mean: ClassVar[bool] = True
    rate: float = field(default=1.0, metadata={"help": "how far to go towards the mean of the models"})
    participation: float = field(default=1.0, metadata={"help": "share of the members that train in a round"})

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 10:
            raise ValueError(f"rate must be above 0 and at most 10, not {self.rate:g}")
        if not 0 < self.participation <= 1:
            raise ValueError(f"participation must be above 0 and at most 1, not {self.participation:g}")

    def start(self, model: Sequence[Array]) -> list[Array]:
        """c = 0: an array for each of the model's."""
        return [np.zeros(array.shape, state_type(array)) for array in model]

    def aggregate(
        self, model: Sequence[Array], contributions: Sequence[Contribution], state: Sequence[Array]
    ) -> Aggregate:
        """The new model and the new c. Raises InvalidParameter when nothing usable came."""
        kept, left_out = screened(self.name, model, contributions)
        wrong = {each.member: why for each in kept if (why := self._flaw(model, each))}
        kept = [each for each in kept if each.member not in wrong]
        left_out.update(wrong)
        if not kept:
            raise InvalidParameter(
                f"{self.name} needs a contribution with control variates, there is none",
                hint="; ".join(f"{member}: {why}" for member, why in left_out.items()),
            )
        means = mean_of(kept)
        moved = [old + self.rate * (mean - old) for mean, old in zip(means, model, strict=True)]
        samples = sum(float(each.extra[-1][0]) for each in kept)
        control: list[Array] = []
        for index, c in enumerate(state):
            change = np.zeros(c.shape, np.float64)
            for each in kept:
                change += each.extra[index]
            control.append((c + self.participation / samples * change).astype(c.dtype))
        return Aggregate(as_model(moved, model), control, left_out)

    def before(self, model: Sequence[Array], state: Sequence[Array], own: Sequence[Array]) -> LocalTraining:
        """The correction c - c_i."""
        mine = own or self.start(model)
        return LocalTraining(
            correction=[
                back(np.subtract(c, c_i, dtype=np.float64), old)
                for c, c_i, old in zip(state, mine, model, strict=True)
            ]
        )

    def after(
        self,
        model: Sequence[Array],
        trained: Sequence[Array],
        result: TrainResult,
        state: Sequence[Array],
        own: Sequence[Array],
    ) -> tuple[list[Array], list[Array]]:
        """(c_i', [n_i d_i ..., n_i]).

        Raises InvalidParameter when the learner names no step size or made no step.
        """
        if result.steps < 1 or not result.step > 0:
            raise InvalidParameter(
                f"scaffold needs steps and their size, the learner made {result.steps} of {result.step:g}",
                hint="use a learner that trains by gradient descent, such as numpy-mlp",
            )
        kept: list[Array] = []
        extras: list[Array] = []
        scale = result.steps * result.step
        for x, y, c, c_i in zip(model, trained, state, own or self.start(model), strict=True):
            gradient = np.subtract(x, y, dtype=np.float64) / scale
            change = gradient - c
            kept.append((c_i + change).astype(c.dtype))
            extras.append((result.num_samples * (kept[-1] - c_i.astype(np.float64))).astype(c.dtype))
        return kept, [*extras, np.array([result.num_samples], np.float64)]

    def _flaw(self, model: Sequence[Array], contribution: Contribution) -> str:
        """Why the extras are none of `after`, empty when they are."""
        extra = contribution.extra
        shapes = [*(array.shape for array in model), (1,)]
        if [array.shape for array in extra] != shapes:
            return f"its control variates have the shapes {[array.shape for array in extra]!r:.120}"
        if not extra[-1][0] > 0:
            return "its control variates are of no samples"
        return ""
