"""The demo's reference is exact, and agrees with other people's least squares."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from fedd.demo import least_squares, table
from fedd.demo.table import Table


def small_table(rows: list[tuple[int, ...]]) -> Table:
    columns = tuple(f"c{k}" for k in range(len(rows[0])))
    return Table(columns, tuple(tuple(Fraction(value) for value in row) for row in rows))


def test_it_agrees_with_scikit_learn_on_the_whole_table() -> None:
    whole = table.load()
    model = least_squares.fit(whole)
    numbers = np.array([[float(value) for value in row] for row in whole.rows])
    known = LinearRegression().fit(numbers[:, :-1], numbers[:, -1])
    assert float(model.intercept) == pytest.approx(known.intercept_, rel=1e-10)
    assert [float(slope) for slope in model.slopes] == pytest.approx(list(known.coef_), rel=1e-9)
    assert model.r2(whole) == pytest.approx(known.score(numbers[:, :-1], numbers[:, -1]), abs=1e-12)
    assert model.r2(whole) == pytest.approx(0.518, abs=5e-4)


def test_alone_the_five_owners_explain_about_0_44() -> None:
    whole = table.load()
    ridge = Fraction(3, 10)
    scores = [
        least_squares.fit(share, Fraction(0) if len(share.rows) >= 11 else ridge).r2(whole)
        for share in table.split(whole, 5)
    ]
    assert sum(scores) / 5 == pytest.approx(0.44, abs=5e-3)
    assert max(scores) < 0.518


@given(
    st.lists(st.tuples(*[st.integers(-50, 50)] * 3), min_size=5, max_size=12),
    st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(-9, 9), st.integers(-9, 9)),
)
@settings(max_examples=50, deadline=None)
def test_a_plane_is_found_exactly(points: list[tuple[int, ...]], plane: tuple[int, ...]) -> None:
    outcome = [(*p, plane[0] + sum(c * x for c, x in zip(plane[1:], p, strict=True))) for p in points]
    centred = np.array(points, float) - np.mean(points, axis=0)
    if np.linalg.matrix_rank(centred) < 3:
        return
    model = least_squares.fit(small_table(outcome))
    assert (model.intercept, *model.slopes) == plane


def test_the_residuals_are_orthogonal_to_every_column() -> None:
    share = table.split(table.load(), 5)[2]
    model = least_squares.fit(share)
    left = [
        row[-1] - model.intercept - sum(s * x for s, x in zip(model.slopes, row[:-1], strict=True))
        for row in share.rows
    ]
    assert sum(left) == 0
    for k in range(10):
        assert sum(e * row[k] for e, row in zip(left, share.rows, strict=True)) == 0


def test_dependent_columns_need_the_ridge() -> None:
    twins = small_table([(1, 1, 3), (2, 2, 5), (3, 3, 8)])
    with pytest.raises(ZeroDivisionError):
        least_squares.fit(twins)
    ridged = least_squares.fit(twins, Fraction(1, 10))
    assert ridged.slopes[0] == ridged.slopes[1] > 0


def test_a_column_without_variance_gets_no_slope_under_the_ridge() -> None:
    model = least_squares.fit(small_table([(7, 1, 2), (7, 2, 4), (7, 3, 6)]), Fraction(1, 100))
    assert model.slopes[0] == 0


def test_the_error_is_relative_to_the_largest_coefficient() -> None:
    model = least_squares.Model(Fraction(-200), (Fraction(1), Fraction(2)))
    given = {"intercept": -200.0, "a": 1.0, "b": 2.5}
    assert model.error_of(given, ("a", "b")) == 0.0025
