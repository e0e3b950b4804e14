"""What every contribution must pass before it is aggregated: a bad one hurts its sender alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedd.api import Contribution, InvalidParameter, PeerId
from fedd_aggregators.arithmetic import all_finite, distance

if TYPE_CHECKING:
    from fedd.api.types import Array

MAX_SAMPLES = 2**53
"""What float64 holds exactly, of one member or of a mean over many. What one member may claim is for the
algorithm to bound (`max_samples` of learning), because it sees the claims before they are added up."""

MIN_FOR_NORMS = 3
"""The median of two lengths lies between them: nobody could be told from the other."""


def flaw(model: Sequence[Array], contribution: Contribution) -> str:
    """Why this contribution does not fit the round's model, empty when it does.

    Looks at the number of arrays, their shapes and types, whether all values are finite, those of the extras
    too, and whether the number of samples is one to `MAX_SAMPLES`.
    """
    samples = contribution.num_samples
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer):
        return f"its number of samples is no whole number: {samples!r:.40}"
    if not 1 <= samples <= MAX_SAMPLES:
        return f"it says that it trained on {samples} samples, not on 1 to {MAX_SAMPLES}"
    if len(contribution.model) != len(model):
        return f"it has {len(contribution.model)} arrays, the model {len(model)}"
    for index, (mine, theirs) in enumerate(zip(model, contribution.model, strict=True)):
        if not isinstance(theirs, np.ndarray):
            return f"array {index} is no array"
        if theirs.shape != mine.shape:
            return f"array {index} has the shape {theirs.shape}, the model's {mine.shape}"
        if theirs.dtype != mine.dtype:
            return f"array {index} is {theirs.dtype}, the model's {mine.dtype}"
    for name, arrays in (("array", contribution.model), ("extra array", contribution.extra)):
        for index, array in enumerate(arrays):
            if not _is_finite(array):
                return f"{name} {index} holds a value that is not finite"
    return ""


def screen(
    model: Sequence[Array], contributions: Sequence[Contribution], *, max_norm: float = 0.0
) -> tuple[list[Contribution], dict[PeerId, str]]:
    """(the contributions that may be aggregated, who was left out and why), both in the order given.

    With `max_norm` above 0, of at least three, those are left out too whose update (their model less the
    round's) is longer than `max_norm` times the median of all lengths.
    """
    kept: list[Contribution] = []
    left_out: dict[PeerId, str] = {}
    for contribution in contributions:
        why = flaw(model, contribution)
        if why:
            left_out[contribution.member] = why
        else:
            kept.append(contribution)
    if max_norm > 0 and len(kept) >= MIN_FOR_NORMS:
        lengths = [distance(each.model, model) for each in kept]
        most = max_norm * median(lengths)
        for each, length in zip(tuple(kept), lengths, strict=True):
            if length > most:
                left_out[each.member] = f"its update is {length:.4g} long, the most allowed is {most:.4g}"
        kept = [each for each in kept if each.member not in left_out]
    return kept, left_out


def screened(
    name: str,
    model: Sequence[Array],
    contributions: Sequence[Contribution],
    *,
    at_least: int = 1,
    max_norm: float = 0.0,
) -> tuple[list[Contribution], dict[PeerId, str]]:
    """`screen`, and InvalidParameter when fewer than `at_least` are left for the aggregator `name`."""
    kept, left_out = screen(model, contributions, max_norm=max_norm)
    if len(kept) < at_least:
        why = "; ".join(f"{member}: {reason}" for member, reason in left_out.items())
        raise InvalidParameter(
            f"{name} needs {at_least} contributions, there are {len(kept)}",
            hint=f"left out: {why}" if why else "let more members train, or let it bear fewer liars",
            field="byzantine" if at_least > 1 else "",
        )
    return kept, left_out


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else ordered[half - 1] / 2 + ordered[half] / 2


def check_max_norm(max_norm: float) -> None:
    """Raise ValueError for an option that is neither 0 (no bound) nor a factor of 1 or more."""
    if max_norm != 0 and not (1 <= max_norm < math.inf):
        raise ValueError(f"max_norm must be 0 or a factor of at least 1, not {max_norm:g}")


def _is_finite(array: Array) -> bool:
    return isinstance(array, np.ndarray) and (
        array.dtype.kind in "iu" or (array.dtype.kind == "f" and all_finite(array))
    )
