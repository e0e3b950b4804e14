"""Arithmetic that gives the same bits on every machine.

All members of a round must compute the same model, whatever their processors. Elementwise operations of
IEEE 754 numbers do; a dot product of a linear-algebra library does not, because it adds in an order that the
processor's vector width decides and may fuse multiplications with additions. So here are elementwise
operations only, in float64, and sums in an order that the length alone decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fedd.api.types import Array, FloatArray

BLOCK = 1 << 16
"""Coordinates looked at together where all members' are needed at once: of ten members 5 MiB."""


def back(values: FloatArray, like: Array) -> Array:
    """float64 values in the type of `like`; for whole numbers the nearest one."""
    if like.dtype.kind in "iu":
        limits = np.iinfo(like.dtype)
        values = np.clip(np.rint(values), float(limits.min), float(limits.max))
    return values.astype(like.dtype)


def state_type(like: Array) -> np.dtype[Any]:
    """In which type a state beside an array is kept: float32 at least, float64 for whole numbers."""
    return np.result_type(like.dtype, np.float32)


def fold(values: FloatArray) -> float:
    """The sum of float64 values, by adding the second half to the first until one is left."""
    flat = values.reshape(-1)
    while flat.size > 1:
        half = (flat.size + 1) // 2
        shorter = flat.size - half
        flat, rest = flat[:half].copy(), flat[half:]
        flat[:shorter] += rest
    return float(flat[0]) if flat.size else 0.0


def all_finite(array: Array) -> bool:
    """Whether every value is finite.

    The sum of all squares is finite only if every value is, and a linear-algebra library has it four times
    sooner. Where it is not, the values may be large only: then each is looked at. Nothing is read out of the
    sum, so in which order it was taken does not matter.
    """
    if array.dtype.char in "fd" and array.flags.c_contiguous and array.flags.aligned:
        with np.errstate(all="ignore"):
            if math.isfinite(np.vdot(array, array)):
                return True
    return bool(np.isfinite(array).all())


def squared_distance(left: Sequence[Array], right: Sequence[Array]) -> float:
    """The sum of all squared differences between two models; infinite where a square is too large."""
    total = 0.0
    with np.errstate(over="ignore"):
        for a, b in zip(left, right, strict=True):
            total += fold(np.square(np.subtract(a, b, dtype=np.float64)))
    return total


def distance(left: Sequence[Array], right: Sequence[Array]) -> float:
    """The Euclidean distance between two models."""
    return math.sqrt(squared_distance(left, right))


def weighted_mean(models: Sequence[Sequence[Array]], weights: Sequence[float]) -> list[FloatArray]:
    """sum_i w_i x_i / sum_i w_i, array by array, in float64, added in the order given."""
    total = math.fsum(weights)
    means: list[FloatArray] = []
    for parts in zip(*models, strict=True):
        mean = np.zeros(parts[0].shape, np.float64)
        for weight, part in zip(weights, parts, strict=True):
            mean += np.multiply(part, weight / total, dtype=np.float64)
        means.append(mean)
    return means


def blocks(parts: Sequence[Array]) -> Iterator[tuple[slice, FloatArray]]:
    """One array of several members in blocks: (where, float64 values of shape (members, coordinates))."""
    flat = [part.reshape(-1) for part in parts]
    for begin in range(0, flat[0].size, BLOCK):
        where = slice(begin, begin + BLOCK)
        yield where, np.stack([part[where] for part in flat]).astype(np.float64)
