"""The same bits everywhere: sums in an order that the length alone decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd_aggregators.arithmetic import (
    BLOCK,
    all_finite,
    back,
    blocks,
    distance,
    fold,
    squared_distance,
    state_type,
    weighted_mean,
)

floats = st.floats(-1e6, 1e6)


def folded(values: list[float]) -> float:
    """`fold` with Python's own additions, one by one."""
    while len(values) > 1:
        half = (len(values) + 1) // 2
        rest = values[half:]
        values = [a + b for a, b in zip(values, rest, strict=False)] + values[len(rest) : half]
    return values[0] if values else 0.0


@settings(max_examples=100, deadline=None)
@given(st.lists(floats, max_size=70))
def test_a_sum_has_the_bits_of_additions_one_by_one(values: list[float]) -> None:
    given_values = np.array(values)
    assert fold(given_values).hex() == folded(values).hex()
    np.testing.assert_array_equal(given_values, values)  # and nothing was written over
    assert fold(given_values) == pytest.approx(math.fsum(values), abs=1e-6)


def test_a_sum_does_not_depend_on_how_the_array_lies_in_memory() -> None:
    values = np.random.default_rng(1).normal(size=(37, 91))
    assert fold(values) == fold(np.asfortranarray(values)) == fold(values[:, ::1].copy())


def test_norms_and_distances_run_over_all_arrays() -> None:
    left = [np.array([3.0, 0.0], np.float32), np.array([[4]], np.int8)]
    right = [np.zeros(2, np.float32), np.array([[-8]], np.int8)]
    assert squared_distance(left, [0 * array for array in left]) == 25
    assert distance(left, right) == math.sqrt(9 + 144)


def test_float16_does_not_overflow_in_a_square() -> None:
    assert squared_distance([np.full(4, 60000, np.float16)], [np.zeros(4, np.float16)]) == 4 * 60000.0**2


def test_a_weighted_mean() -> None:
    means = weighted_mean([[np.array([1.0, 2.0])], [np.array([4.0, 8.0])]], [1, 2])
    np.testing.assert_allclose(means[0], [3.0, 6.0], rtol=1e-15)


def test_one_alone_is_its_own_mean_to_the_bit() -> None:
    values = np.random.default_rng(2).normal(size=1000).astype(np.float32)
    assert weighted_mean([[values]], [17])[0].astype(np.float32).tobytes() == values.tobytes()


def test_whole_numbers_are_rounded_and_stay_in_their_range() -> None:
    like = np.zeros(4, np.uint8)
    assert back(np.array([1.6, -3.0, 255.4, 1e9]), like).tolist() == [2, 0, 255, 255]
    assert back(np.array([1.5]), np.zeros(1, np.float16)).dtype == np.float16


def test_states_have_float32_at_least() -> None:
    kinds = {np.float16: np.float32, np.float32: np.float32, np.float64: np.float64, np.int64: np.float64}
    for kind, expected in kinds.items():
        assert state_type(np.zeros(1, kind)) == expected


def test_blocks_cover_an_array_once() -> None:
    parts = [np.arange(BLOCK + 3, dtype=np.float32).reshape(1, -1) + shift for shift in (0, 1)]
    seen = [(where, values.shape) for where, values in blocks(parts)]
    assert seen == [(slice(0, BLOCK), (2, BLOCK)), (slice(BLOCK, 2 * BLOCK), (2, 3))]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("scale", [1.0, 3e4])
@pytest.mark.parametrize("shape", [(), (1,), (40, 7), (0, 3)])
def test_a_value_that_is_not_finite_is_found_wherever_it_is(
    dtype: str, scale: float, shape: tuple[int, ...]
) -> None:
    values = np.full(shape, scale, dtype)
    assert all_finite(values)
    for at in {0, values.size // 2, values.size - 1} if values.size else ():
        for bad in (np.nan, np.inf, -np.inf):
            wrong = values.copy()
            wrong.reshape(-1)[at] = bad
            assert not all_finite(wrong)
            assert not all_finite(wrong.T)
            apart = np.frombuffer(b"x" + wrong.tobytes(), dtype, wrong.size, offset=1)
            assert not all_finite(apart)


def test_large_values_are_finite_though_their_squares_are_not() -> None:
    for dtype in (np.float32, np.float64):
        values = np.full(1000, np.finfo(dtype).max / 2, dtype)
        with np.errstate(all="raise"):
            assert all_finite(values)
        values[77] = np.nan
        assert not all_finite(values)


def test_whole_numbers_are_finite() -> None:
    assert all_finite(np.arange(9))
