"""Samples from whatever an input holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedd.api import InvalidMessage
from fedd_learners.samples import MAX_COUNTED, Samples, count_labels, read_samples

X = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


@pytest.mark.parametrize(
    "data",
    [
        {"x": X, "y": [0, 1, 0]},
        {"A": np.array(X, np.float32), "b": np.array([[0], [1], [0]])},
        {"a": [1, 3, 5], "b": [2, 4, 6], "c": [0, 1, 0]},
        [[1, 2, 0], [3, 4, 1], [5, 6, 0]],
        np.array([[1, 2, 0], [3, 4, 1], [5, 6, 0]], np.int16),
    ],
    ids=["pair", "system", "columns", "lists", "array"],
)
def test_every_form_of_a_table(data: Any) -> None:
    train, test = read_samples(data, "", np.float64)
    assert train.x.tolist() == X
    assert train.y.tolist() == [0, 1, 0]
    assert train.x.dtype == train.y.dtype == np.float64
    assert len(train) == 3
    assert test is None


def test_a_named_column_is_the_target() -> None:
    train, _ = read_samples({"a": [0, 1], "b": [2, 4], "c": [3, 5]}, "a", np.float32)
    assert train.x.tolist() == [[2, 3], [4, 5]]
    assert train.y.tolist() == [0, 1]
    assert train.x.dtype == np.float32
    train, _ = read_samples({"x": [0, 1], "y": [2, 4]}, "x", np.float32)
    assert train.y.tolist() == [0, 1]


def test_one_feature_and_test_samples() -> None:
    train, test = read_samples({"x": [1, 2], "y": [0, 1], "x_test": [[3]], "y_test": [1]}, "", np.float64)
    assert train.x.shape == (2, 1)
    assert test is not None
    assert (test.x.tolist(), test.y.tolist()) == ([[3.0]], [1.0])


@pytest.mark.parametrize(
    ("data", "target", "said"),
    [
        (None, "", "it has no data"),
        (5.0, "", "has the shape ()"),
        ([1, 2], "", "has the shape (2,)"),
        ([[1], [2]], "", "has the shape (2, 1)"),
        ([[1, 2], [3]], "", "differ in length"),
        ([["a", "b"]], "", "not numbers"),
        ("text", "", "not numbers"),
        ([[1, 2]], "b", "there is no column 'b'"),
        ({"a": [1], "b": [2]}, "c", "there is no column 'c'"),
        ({"b": [2]}, "", "no features"),
        ({"a": [1], "b": [2, 3]}, "", "no column as long"),
        ({"a": [[1]], "b": [2]}, "", "no column as long"),
        ({"x": X, "y": [0, 1]}, "", "(3, 2) and y (2,)"),
        ({"x": [], "y": []}, "", "a sample and a feature"),
        ({"x": [[[1]]], "y": [1]}, "", "must be (samples, features)"),
        ({"x": X, "y": [[0, 1]] * 3}, "", "y (3, 2)"),
        ({"x": X, "y": [0, 1, 0], "x_test": X}, "", "x_test stands alone"),
        ({"x": X, "y": [0, 1, 0], "x_test": [[1]], "y_test": [0]}, "", "x_test has 1 features and x has 2"),
        ({"x": [[1, float("nan")]], "y": [1]}, "", "x, row 1, column 2: no finite number"),
        ({"x": [[1], [2]], "y": [1, float("inf")]}, "", "y, row 2: no finite number"),
    ],
)
def test_what_is_no_table_of_samples(data: Any, target: str, said: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        read_samples(data, target, np.float64)
    assert said in str(caught.value)


def test_samples_are_counted_by_class() -> None:
    assert count_labels(Samples(np.zeros((3, 1)), np.array([2.0, 0.0, 2.0]))) == {
        "samples_of.0": 1,
        "samples_of.2": 2,
    }
    many = Samples(np.zeros((MAX_COUNTED + 1, 1)), np.arange(MAX_COUNTED + 1.0))
    assert count_labels(many) == {}
