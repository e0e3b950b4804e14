"""Aggregators that bear members who send anything: medians, trimmed means, Krum, clipping.

None of them looks at the number of samples, because a liar chooses it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedd.api import Aggregate, Contribution, PeerId
from fedd_aggregators.arithmetic import blocks, distance, squared_distance, state_type, weighted_mean
from fedd_aggregators.averaging import Plain, as_model
from fedd_aggregators.screens import check_max_norm, median, screened

if TYPE_CHECKING:
    from fedd.api.types import Array, FloatArray

MAX_BYZANTINE = 1000
"""More liars than a federation has members."""

_NORM_HELP = "leave out updates longer than this many times the median one; 0: none"
_LIARS_HELP = "how many members may send anything"


@dataclass(frozen=True)
class Robust(Plain):
    """What the robust ones have in common: everybody's model is needed, and a screen by length."""

    name: ClassVar[str] = ""
    mean: ClassVar[bool] = False
    max_norm: float = field(default=0.0, metadata={"help": _NORM_HELP})

    def __post_init__(self) -> None:
        check_max_norm(self.max_norm)

    def screened(
        self, model: Sequence[Array], contributions: Sequence[Contribution], at_least: int = 1
    ) -> tuple[list[Contribution], dict[PeerId, str]]:
        """Those that pass the screens. Raises InvalidParameter for fewer than `at_least`."""
        return screened(self.name, model, contributions, at_least=at_least, max_norm=self.max_norm)


@dataclass(frozen=True)
class CoordinateMedian(Robust):
    """The median of the models, coordinate by coordinate; of an even number the mean of the middle two.

    Right as long as more than half of the contributions are honest.

    Source: D. Yin, Y. Chen, K. Ramchandran, P. Bartlett, "Byzantine-robust distributed learning: towards
    optimal statistical rates", ICML 2018, definition 1.
    """

    name: ClassVar[str] = "median"

    def aggregate(
        self, model: Sequence[Array], contributions: Sequence[Contribution], state: Sequence[Array]
    ) -> Aggregate:
        """The median. Raises InvalidParameter when no contribution passes the screens."""
        kept, left_out = self.screened(model, contributions)
        return Aggregate(as_model(coordinate_median(kept), model), [], left_out)


@dataclass(frozen=True)
class TrimmedMean(Robust):
    """The mean of each coordinate without its `byzantine` smallest and largest values.

    Needs more than twice as many contributions as liars.

    Source: as `CoordinateMedian`, definition 2.
    """

    name: ClassVar[str] = "trimmed-mean"
    byzantine: int = field(default=1, metadata={"help": _LIARS_HELP})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_byzantine(self.byzantine)

    def aggregate(
        self, model: Sequence[Array], contributions: Sequence[Contribution], state: Sequence[Array]
    ) -> Aggregate:
        """The trimmed mean. Raises InvalidParameter for fewer than 2 byzantine + 1 contributions."""
        kept, left_out = self.screened(model, contributions, 2 * self.byzantine + 1)
        means = middle_mean(kept, self.byzantine, len(kept) - self.byzantine)
        return Aggregate(as_model(means, model), [], left_out)


@dataclass(frozen=True)
class MultiKrum(Robust):
    """The mean of the `keep` models that lie nearest to their nearest others (all but `byzantine` when 0).

    A model's score is the sum of its *squared* distances to its n - f - 2 nearest others, of n contributions
    with f liars among them. The lowest scores win; of equal ones that of the member who is sorted first.

    Source: P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer, "Machine learning with adversaries:
    Byzantine tolerant gradient descent", NeurIPS 2017, sections 4 and 5; n >= 2f + 3 is its proposition 1.
    """

    name: ClassVar[str] = "multi-krum"
    byzantine: int = field(default=1, metadata={"help": _LIARS_HELP})
    keep: int = field(default=0, metadata={"help": "models in the mean; 0: all but so many as may lie"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_byzantine(self.byzantine)
        if self.keep < 0:
            raise ValueError(f"keep must be 0 or more, not {self.keep}")

    def aggregate(
        self, model: Sequence[Array], contributions: Sequence[Contribution], state: Sequence[Array]
    ) -> Aggregate:
        """The mean of the best. Raises InvalidParameter for fewer than 2 byzantine + 3 contributions."""
        kept, left_out = self.screened(model, contributions, 2 * self.byzantine + 3)
        keep = self.keep or len(kept) - self.byzantine
        return best_of(model, kept, left_out, self.byzantine, keep)


@dataclass(frozen=True)
class Krum(Robust):
    """The one model that lies nearest to its nearest others.

    See `MultiKrum`, of which this is the case of one.

    Source: as `MultiKrum`, section 4.
    """

    name: ClassVar[str] = "krum"
    byzantine: int = field(default=1, metadata={"help": _LIARS_HELP})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_byzantine(self.byzantine)

    def aggregate(
        self, model: Sequence[Array], contributions: Sequence[Contribution], state: Sequence[Array]
    ) -> Aggregate:
        """The best. Raises InvalidParameter for fewer than 2 byzantine + 3 contributions."""
        kept, left_out = self.screened(model, contributions, 2 * self.byzantine + 3)
        return best_of(model, kept, left_out, self.byzantine, 1)


@dataclass(frozen=True)
class GeometricMedian(Robust):
    """The point with the smallest sum of distances to the models, by the smoothed Weiszfeld algorithm.

    z' = sum_i w_i x_i / sum_i w_i with w_i = 1 / max(nu, |z - x_i|), from the coordinate median on, which no
    minority can send off to infinity. nu is `smoothing` times the median distance between z and the models,
    so that it fits models of any size. Ends after `iterations`, or when z moves by less than a millionth of
    that distance. All members count the same.

    Source: K. Pillutla, S. M. Kakade, Z. Harchaoui, "Robust aggregation for federated learning", IEEE
    Trans. Signal Processing 70 (2022), algorithm 2.
    """

    name: ClassVar[str] = "geometric-median"
    iterations: int = field(default=50, metadata={"help": "steps of Weiszfeld's algorithm at most"})
    smoothing: float = field(default=1e-3, metadata={"help": "bound on a weight, in median distances"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_iterations(self.iterations)
        if not 0 < self.smoothing <= 1:
            raise ValueError(f"smoothing must be above 0 and at most 1, not {self.smoothing:g}")

    def aggregate(
        self, model: Sequence[Array], contributions: Sequence[Contribution], state: Sequence[Array]
    ) -> Aggregate:
        """The geometric median. Raises InvalidParameter when no contribution passes the screens."""
        kept, left_out = self.screened(model, contributions)
        models = [each.model for each in kept]
        center = coordinate_median(kept)
        for _ in range(self.iterations):
            distances = [distance(each, center) for each in models]
            scale = median(distances) or max(distances)
            if not 0 < scale < math.inf:
                break
            weights = [1 / max(self.smoothing * scale, each) for each in distances]
            before, center = center, weighted_mean(models, weights)
            if distance(before, center) < 1e-6 * scale:
                break
        return Aggregate(as_model(center, model), [], left_out)


@dataclass(frozen=True)
class CenteredClipping(Robust):
    """The mean of updates that are clipped around a center, a few times, the center being the last result.

    With updates d_i = x_i - x and v the aggregated update of the round before:
    v' = v + sum_i (d_i - v) min(1, radius / |d_i - v|) / n, `iterations` times; then x' = x + v'. A radius of
    0 stands for the median of |d_i - v|, each time anew, so that it fits models of any size. A liar moves
    the result by radius / n at most, each time.

    Source: S. P. Karimireddy, L. He, M. Jaggi, "Learning from history for Byzantine robust optimization",
    ICML 2021, algorithm 2.
    """

    name: ClassVar[str] = "centered-clipping"
    radius: float = field(default=0.0, metadata={"help": "clip updates here; 0: at the median distance"})
    iterations: int = field(default=3, metadata={"help": "how often to clip anew"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_iterations(self.iterations)
        if not 0 <= self.radius < math.inf:
            raise ValueError(f"radius must be 0 or more, not {self.radius:g}")

    def start(self, model: Sequence[Array]) -> list[Array]:
        """v = 0: an array for each of the model's."""
        return [np.zeros(array.shape, state_type(array)) for array in model]

    def aggregate(
        self, model: Sequence[Array], contributions: Sequence[Contribution], state: Sequence[Array]
    ) -> Aggregate:
        """The new model and v'. Raises InvalidParameter when no contribution passes the screens."""
        kept, left_out = self.screened(model, contributions)
        center = [np.add(x, v, dtype=np.float64) for x, v in zip(model, state, strict=True)]
        for _ in range(self.iterations):
            distances = [distance(each.model, center) for each in kept]
            radius = self.radius or median(distances)
            shares = [min(1.0, radius / each) / len(kept) if each else 0.0 for each in distances]
            center = [
                sum((share * (part - c) for share, part in zip(shares, parts, strict=True)), c)
                for c, *parts in zip(center, *(each.model for each in kept), strict=True)
            ]
        update: list[Array] = [(c - x).astype(v.dtype) for c, x, v in zip(center, model, state, strict=True)]
        return Aggregate(as_model(center, model), update, left_out)


def coordinate_median(contributions: Sequence[Contribution]) -> list[FloatArray]:
    """The median of each coordinate by itself; of an even number the mean of the two in the middle."""
    count = len(contributions)
    return middle_mean(contributions, (count - 1) // 2, count // 2 + 1)


def middle_mean(contributions: Sequence[Contribution], low: int, high: int) -> list[FloatArray]:
    """The mean of the sorted values number `low` up to `high` (excluded), of each coordinate by itself."""
    means: list[FloatArray] = []
    for parts in zip(*(each.model for each in contributions), strict=True):
        flat = np.empty(parts[0].size, np.float64)
        for where, values in blocks(parts):
            values.sort(axis=0)
            total = values[low].copy()
            for row in values[low + 1 : high]:
                total += row
            flat[where] = total / (high - low)
        means.append(flat.reshape(parts[0].shape))
    return means


def best_of(
    model: Sequence[Array],
    contributions: Sequence[Contribution],
    left_out: dict[PeerId, str],
    byzantine: int,
    keep: int,
) -> Aggregate:
    """The mean of the `keep` models with the lowest scores; says of the others that they were left out."""
    models = [each.model for each in contributions]
    scores = krum_scores(models, byzantine)
    order = sorted(range(len(models)), key=lambda index: (scores[index], index))
    for place, index in enumerate(order[keep:], keep + 1):
        left_out[contributions[index].member] = (
            f"its distance to the others is number {place} of {len(models)}: "
            f"the score is {scores[index]:.4g}, the best {scores[order[0]]:.4g}"
        )
    chosen = [models[index] for index in sorted(order[:keep])]
    return Aggregate(as_model(weighted_mean(chosen, [1.0] * len(chosen)), model), [], left_out)


def krum_scores(models: Sequence[Sequence[Array]], byzantine: int) -> list[float]:
    """Each model's sum of squared distances to its n - byzantine - 2 nearest others."""
    count = len(models)
    squares = [[0.0] * count for _ in range(count)]
    for i in range(count):
        for j in range(i):
            squares[i][j] = squares[j][i] = squared_distance(models[i], models[j])
    nearest = count - byzantine - 2
    return [math.fsum(sorted(row[:i] + row[i + 1 :])[:nearest]) for i, row in enumerate(squares)]


def check_byzantine(byzantine: int) -> None:
    """Raise ValueError unless it is a number of liars."""
    if not 0 <= byzantine <= MAX_BYZANTINE:
        raise ValueError(f"byzantine must be between 0 and {MAX_BYZANTINE}, not {byzantine}")


def check_iterations(iterations: int) -> None:
    """Raise ValueError unless it is 1 to 1000: every member of the round waits for them."""
    if not 1 <= iterations <= 1000:
        raise ValueError(f"iterations must be between 1 and 1000, not {iterations}")
