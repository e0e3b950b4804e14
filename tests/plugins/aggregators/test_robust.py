"""What bears members that send anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plugins.aggregators.members import contribution, model_like, points

from fedd.api import Aggregator, InvalidParameter
from fedd_aggregators import (
    CenteredClipping,
    CoordinateMedian,
    GeometricMedian,
    Krum,
    MultiKrum,
    TrimmedMean,
)
from fedd_aggregators.arithmetic import BLOCK

SIX = [(1, 10), (2, 20), (3, 30), (4, 40), (100, -100), (2.4, 24)]


def result(aggregator: Aggregator, rows: Any) -> list[float]:
    members = points(rows)
    model = model_like(members)
    values: list[float] = aggregator.aggregate(model, members, aggregator.start(model)).model[0].tolist()
    return values


def test_krum_of_the_six_points() -> None:
    """The three nearest count: 16.16 + 101 + 101 for (2, 20), 16.16 + 36.36 + 197.96 for (2.4, 24)."""
    assert result(Krum(byzantine=1), SIX) == [2, 20]


def test_krum_by_the_definition() -> None:
    """The scores by plain loops over all pairs."""
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(9, 5)).astype(np.float32)
    scores = []
    for i in range(9):
        squares = sorted(float(np.sum((rows[i] - rows[j]) ** 2)) for j in range(9) if j != i)
        scores.append(sum(squares[: 9 - 3 - 2]))
    assert result(Krum(byzantine=3), rows) == rows[int(np.argmin(scores))].tolist()
    best = np.sort(np.argsort(scores)[:6])
    np.testing.assert_allclose(result(MultiKrum(byzantine=3), rows), rows[best].mean(axis=0), rtol=1e-6)
    best = np.sort(np.argsort(scores)[:2])
    np.testing.assert_allclose(
        result(MultiKrum(byzantine=3, keep=2), rows), rows[best].mean(axis=0), rtol=1e-6
    )


def test_krum_says_whom_it_left_out() -> None:
    members = points(SIX)
    left_out = Krum().aggregate(model_like(members), members, []).left_out
    assert sorted(left_out) == ["n00", "n02", "n03", "n04", "n05"]
    assert "number 6 of 6" in left_out["n04"]
    many = MultiKrum().aggregate(model_like(members), members, []).left_out
    assert list(many) == ["n04"]


def test_of_equal_scores_the_first_member_wins() -> None:
    members = points([(0.0,), (1.0,), (2.0,), (3.0,), (4.0,)])
    left_out = Krum(byzantine=1).aggregate(model_like(members), members, []).left_out
    assert "n01" not in left_out  # scores 5, 2, 2, 2, 5


@pytest.mark.parametrize(
    ("aggregator", "least"),
    [(Krum(byzantine=2), 7), (MultiKrum(byzantine=2), 7), (TrimmedMean(byzantine=2), 5)],
)
def test_too_few_contributions_are_refused(aggregator: Aggregator, least: int) -> None:
    rows = [(float(index),) for index in range(least)]
    result(aggregator, rows)
    why = f"^{aggregator.name} needs {least} contributions, there are {least - 1}"
    with pytest.raises(InvalidParameter, match=why) as info:
        result(aggregator, rows[:-1])
    assert info.value.field == "byzantine"


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_the_median_is_numpys(count: int) -> None:
    rows = np.random.default_rng(count).normal(size=(count, 40)).astype(np.float32)
    np.testing.assert_allclose(result(CoordinateMedian(), rows), np.median(rows, axis=0), rtol=1e-6)


def test_the_median_of_a_large_model_goes_block_by_block() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(3, BLOCK // 2)).astype(np.float32) for _ in range(5)]
    members = [contribution(index, array) for index, array in enumerate(arrays)]
    median = CoordinateMedian().aggregate(model_like(members), members, []).model[0]
    np.testing.assert_array_equal(median, np.median(arrays, axis=0))


def test_the_trimmed_mean_leaves_the_ends_of_every_coordinate_out() -> None:
    rows = [(1.0, 90.0), (2.0, 1.0), (3.0, 2.0), (4.0, 3.0), (-70.0, 4.0)]
    assert result(TrimmedMean(byzantine=1), rows) == [2.0, 3.0]
    assert result(TrimmedMean(byzantine=2), rows) == [2.0, 3.0]
    assert result(TrimmedMean(byzantine=0), rows) == [-12.0, 20.0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-10, 10, width=32), min_size=5, max_size=9),
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=2),
)
def test_two_liars_do_not_leave_the_range_of_the_honest(honest: list[float], lies: list[float]) -> None:
    rows = [(value,) for value in [*lies, *honest]]
    for aggregator in (CoordinateMedian(), TrimmedMean(byzantine=2), Krum(byzantine=2)):
        if len(rows) < 7 and isinstance(aggregator, Krum):
            continue
        (value,) = result(aggregator, rows)
        assert min(honest) <= value <= max(honest)


def test_the_geometric_median_of_a_triangle_and_of_a_majority() -> None:
    corners = [(0.0, 0.0), (1.0, 0.0), (0.5, np.sqrt(0.75))]
    np.testing.assert_allclose(result(GeometricMedian(), corners), [0.5, np.sqrt(0.75) / 3], atol=1e-4)
    most = [(2.0, 1.0)] * 4 + [(1e6, -1e6)] * 3
    np.testing.assert_allclose(result(GeometricMedian(iterations=200), most), [2.0, 1.0], atol=1e-3)
    assert result(GeometricMedian(), [(7.0, 8.0)] * 3) == [7.0, 8.0]
    assert result(GeometricMedian(), [(7.0, 8.0)]) == [7.0, 8.0]
    once = 2 + 0.003 / 4.003 * (1e6 - 2)  # three weights of a thousandth beside four
    assert result(GeometricMedian(iterations=1), most)[0] == pytest.approx(once)


@pytest.mark.parametrize("huge", [3e38, 1e200, -1.7e308])
@pytest.mark.parametrize(
    "aggregator",
    [
        CoordinateMedian(),
        TrimmedMean(byzantine=3),
        Krum(byzantine=3),
        MultiKrum(byzantine=3),
        GeometricMedian(),
        CenteredClipping(),
        CenteredClipping(max_norm=2.0),
    ],
    ids=str,
)
def test_no_number_is_large_enough_to_overflow(aggregator: Aggregator, huge: float) -> None:
    rows = [(huge, -huge)] * 3 + [(1.0 + index / 100, 2.0) for index in range(7)]
    members = [contribution(index, np.array(row)) for index, row in enumerate(rows)]
    model = [np.array([0.9, 1.9])]
    found = aggregator.aggregate(model, members, aggregator.start(model)).model[0]
    assert np.abs(found - [1.03, 2.0]).max() < 0.3, found


def test_a_majority_that_is_far_too_large_is_no_crash() -> None:
    members = [contribution(index, np.array([value])) for index, value in enumerate([1e300, -1e300, 1.0])]
    assert GeometricMedian().aggregate([np.zeros(1)], members, []).model[0].shape == (1,)


def test_the_geometric_median_has_the_smallest_sum_of_distances() -> None:
    rows = np.random.default_rng(5).normal(size=(7, 3)).astype(np.float32)
    found = np.array(result(GeometricMedian(iterations=300), rows))

    def total(point: Any) -> float:
        return float(np.linalg.norm(rows - point, axis=1).sum())

    for shift in np.vstack([np.eye(3), -np.eye(3)]) * 1e-2:
        assert total(found) <= total(found + shift)


def test_centered_clipping_by_hand() -> None:
    """Updates 1, 1 and 100 around 0, radius 2: (1 + 1 + 2) / 3; the next round begins there."""
    members = points([(1.0,), (1.0,), (100.0,)])
    aggregator = CenteredClipping(radius=2.0, iterations=1)
    model = model_like(members)
    first = aggregator.aggregate(model, members, aggregator.start(model))
    assert first.model[0] == pytest.approx(4 / 3)
    assert first.state[0] == pytest.approx(4 / 3)
    second = aggregator.aggregate(model, members, first.state)
    assert second.model[0] == pytest.approx(4 / 3 + (-1 / 3 - 1 / 3 + 2) / 3)


def test_centered_clipping_finds_its_radius_and_bears_equal_models() -> None:
    assert result(CenteredClipping(iterations=50), [(1.0,)] * 4 + [(1e6,)] * 2)[0] == pytest.approx(
        1, abs=0.1
    )
    assert result(CenteredClipping(), [(0.0,)] * 3) == [0.0]


def test_a_screen_by_length_saves_what_clipping_would_keep() -> None:
    rows = [(1.0,), (1.2,), (0.8,), (1.1,), (-40.0,)]
    clipped = result(CenteredClipping(radius=1.0), rows)[0]
    screened = result(CenteredClipping(radius=1.0, max_norm=3.0), rows)[0]
    assert abs(screened - 1.025) < 0.01 < abs(clipped - 1.025)


@pytest.mark.parametrize(
    ("make", "blamed"),
    [
        (lambda: Krum(byzantine=-1), "byzantine"),
        (lambda: TrimmedMean(byzantine=1001), "byzantine"),
        (lambda: MultiKrum(keep=-1), "keep"),
        (lambda: MultiKrum(byzantine=-1), "byzantine"),
        (lambda: CoordinateMedian(max_norm=0.5), "max_norm"),
        (lambda: GeometricMedian(iterations=0), "iterations"),
        (lambda: GeometricMedian(smoothing=0), "smoothing"),
        (lambda: CenteredClipping(radius=-1), "radius"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Callable[[], object], blamed: str) -> None:
    with pytest.raises(ValueError, match=blamed):
        make()
