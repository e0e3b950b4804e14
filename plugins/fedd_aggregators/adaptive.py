"""FedAdam, FedYogi and FedAdagrad: the mean update as a gradient for an adaptive optimiser."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedd.api import Aggregate, Contribution
from fedd_aggregators.arithmetic import state_type
from fedd_aggregators.averaging import Plain, as_model, mean_of
from fedd_aggregators.screens import screened

if TYPE_CHECKING:
    from fedd.api.types import Array, FloatArray


@dataclass(frozen=True)
class Adaptive(Plain, ABC):
    """The frame of algorithm 2 of the paper; `second_moment` is where the three differ.

    With d = (mean of the models, weighted by their samples) - x, element by element:

        m' = beta1 m + (1 - beta1) d,   v' = second_moment(v, d^2),   x' = x + rate m' / (sqrt(v') + tau).

    Starts from m = 0 and v = tau^2. Its state are all m, then all v, in float32 at least. No bias
    correction, as in the paper.

    Source: S. Reddi, Z. Charles, M. Zaheer, Z. Garrett, K. Rush, J. Konecny, S. Kumar, H. B. McMahan,
    "Adaptive federated optimization", ICLR 2021, algorithm 2.
    """

    name: ClassVar[str] = ""
    mean: ClassVar[bool] = True
    rate: float = field(default=0.03, metadata={"help": "step size of the optimiser"})
    beta1: float = field(default=0.9, metadata={"help": "how much of the past updates stays"})
    tau: float = field(default=1e-3, metadata={"help": "keeps small updates small: degree of adaptivity"})

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate must be above 0, not {self.rate:g}")
        if not 0 <= self.beta1 < 1:
            raise ValueError(f"beta1 must be at least 0 and below 1, not {self.beta1:g}")
        if not 0 < self.tau < math.inf:
            raise ValueError(f"tau must be above 0, not {self.tau:g}")

    @abstractmethod
    def second_moment(self, v: FloatArray, squares: FloatArray) -> FloatArray:
        """v' from v and d^2."""

    def start(self, model: Sequence[Array]) -> list[Array]:
        """m = 0 and v = tau^2."""
        first = [np.zeros(array.shape, state_type(array)) for array in model]
        second = [np.full(array.shape, self.tau**2, state_type(array)) for array in model]
        return [*first, *second]

    def aggregate(
        self, model: Sequence[Array], contributions: Sequence[Contribution], state: Sequence[Array]
    ) -> Aggregate:
        """One step of the optimiser. Raises InvalidParameter when no contribution passes the screens."""
        kept, left_out = screened(self.name, model, contributions)
        count = len(model)
        moved: list[FloatArray] = []
        first: list[Array] = []
        second: list[Array] = []
        for mean, x, m, v in zip(mean_of(kept), model, state[:count], state[count:], strict=True):
            update = mean - x
            momentum = self.beta1 * m.astype(np.float64) + (1 - self.beta1) * update
            moment = self.second_moment(v.astype(np.float64), update * update)
            moved.append(x + self.rate * momentum / (np.sqrt(moment) + self.tau))
            first.append(momentum.astype(m.dtype))
            second.append(moment.astype(v.dtype))
        return Aggregate(as_model(moved, model), [*first, *second], left_out)


@dataclass(frozen=True)
class FedAdam(Adaptive):
    """Adam on the mean update: v' = beta2 v + (1 - beta2) d^2.

    Source: see `Adaptive`.
    """

    name: ClassVar[str] = "fedadam"
    beta2: float = field(default=0.99, metadata={"help": "how much of the past squares stays"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta2(self.beta2)

    def second_moment(self, v: FloatArray, squares: FloatArray) -> FloatArray:
        """Forget exponentially."""
        return self.beta2 * v + (1 - self.beta2) * squares


@dataclass(frozen=True)
class FedYogi(Adaptive):
    """Yogi on the mean update: v' = v - (1 - beta2) d^2 sign(v - d^2), so that v changes slowly.

    Source: see `Adaptive`.
    """

    name: ClassVar[str] = "fedyogi"
    beta2: float = field(default=0.99, metadata={"help": "how slowly v follows the squares"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta2(self.beta2)

    def second_moment(self, v: FloatArray, squares: FloatArray) -> FloatArray:
        """Additive, by the sign of the difference."""
        return np.asarray(v - (1 - self.beta2) * squares * np.sign(v - squares))


@dataclass(frozen=True)
class FedAdagrad(Adaptive):
    """Adagrad on the mean update: v' = v + d^2. The paper's beta1 is 0.

    Source: see `Adaptive`.
    """

    name: ClassVar[str] = "fedadagrad"
    rate: float = field(default=0.1, metadata={"help": "step size of the optimiser"})
    beta1: float = field(default=0.0, metadata={"help": "how much of the past updates stays"})

    def second_moment(self, v: FloatArray, squares: FloatArray) -> FloatArray:
        """Forget nothing."""
        return v + squares


def check_beta2(beta2: float) -> None:
    """Raise ValueError unless it is a share of the past."""
    if not 0 <= beta2 < 1:
        raise ValueError(f"beta2 must be at least 0 and below 1, not {beta2:g}")
