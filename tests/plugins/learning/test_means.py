"""Means of arrays: the bits of the formula, however they are made."""

from __future__ import annotations

import numpy as np
import pytest

from fedd_learning.means import BLOCK, put_mean, weighted_mean


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([5, 1, 7], [5, 1, 7]),
        ([30, 6, 42], [5, 1, 7]),
        ([9, 9, 9], [1, 1, 1]),
        ([1, 2, 1], [1, 2, 1]),
        ([7, 7], [1, 1]),
        ([12], [1]),
    ],
)
def test_it_is_made_in_blocks_of_which_nothing_is_seen(
    dtype: str, weights: list[int], shares: list[int]
) -> None:
    rng = np.random.default_rng(3)
    rows = [rng.normal(size=2 * BLOCK + 5).astype(dtype) for _ in weights]
    found = weighted_mean(rows, weights)
    sums = rows[0].astype(np.float64) * shares[0]
    for row, share in zip(rows[1:], shares[1:], strict=True):
        sums = sums + row.astype(np.float64) * share
    assert found.dtype == rows[0].dtype
    assert found.tobytes() == (sums / sum(shares)).astype(dtype).tobytes()


@pytest.mark.parametrize("at", [0, BLOCK + 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weights", [[4, 4], [1, 2]])
def test_a_value_that_is_not_finite_is_seen(at: int, bad: float, weights: list[int]) -> None:
    rows = [np.ones(BLOCK + 5, np.float32) for _ in weights]
    room = np.empty(BLOCK + 5, np.float32)
    assert put_mean(rows, weights, room)
    rows[1][at] = bad
    assert not put_mean(rows, weights, room)


def test_whole_numbers_have_a_mean_too() -> None:
    assert weighted_mean([np.int32([[4, 9]]), np.int32([[8, 9]])], [3, 3]).tolist() == [[6, 9]]
