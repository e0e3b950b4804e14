"""Weighted means of arrays, the same bits everywhere: elementwise operations of IEEE 754 in one order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedd.api import PeerId
from fedd_aggregators.arithmetic import all_finite

if TYPE_CHECKING:
    from fedd.api.types import Array

BLOCK = 1 << 15
"""Numbers that are averaged at a time: float64 of them and of a product stay in a processor's cache."""


def weighted_mean(pieces: Sequence[Array], weights: Sequence[int]) -> Array:
    """sum(weight * piece) / sum(weights), in float64 and in the order given, in the pieces' own type.

    The weights are divided by what divides them all first.
    """
    found: Array = np.empty(pieces[0].shape, pieces[0].dtype)
    put_mean([np.ascontiguousarray(piece).reshape(-1) for piece in pieces], weights, found.reshape(-1))
    return found


def put_mean(rows: Sequence[Array], weights: Sequence[int], into: Array) -> bool:
    """`weighted_mean` of arrays of one dimension, written into another; whether all sums are finite."""
    finite = True
    total = np.empty(min(BLOCK, into.size))
    room = np.empty_like(total)
    alike = math.gcd(*weights)  # equal weights are ones, which need no multiplication
    shares = [weight // alike for weight in weights]
    divisor = sum(shares)
    halves = divisor & (divisor - 1) == 0  # then the reciprocal is exact, and multiplying gives the same bits
    for begin in range(0, into.size, BLOCK):
        end = min(begin + BLOCK, into.size)
        sums, product = total[: end - begin], room[: end - begin]
        _put_share(rows[0][begin:end], shares[0], sums)
        for row, share in zip(rows[1:], shares[1:], strict=True):
            _put_share(row[begin:end], share, product)
            sums += product
        finite = finite and all_finite(sums)
        if halves:
            sums *= 1.0 / divisor
        else:
            sums /= float(divisor)
        into[begin:end] = sums
    return finite


def _put_share(row: Array, share: int, into: Array) -> None:
    if share == 1:
        into[:] = row
    else:
        np.multiply(row, float(share), out=into, dtype=np.float64)


def mean_of_whole(
    given: Mapping[PeerId, Sequence[Array]], weights: Mapping[PeerId, int], weighted: int
) -> list[Array]:
    """What `MeanSpread` would have given: the same bits, since it is the same arithmetic."""
    by_samples = [weights[peer] for peer in given]
    return [
        weighted_mean(arrays, by_samples if index < weighted else [1] * len(given))
        for index, arrays in enumerate(zip(*given.values(), strict=True))
    ]
