"""Every way to divide samples gives each of them to exactly one device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api import InvalidParameter
from fedd_learners.digits import load_digits, split_digits
from fedd_learners.partition import by_label, by_share, dirichlet, iid

LABELS = np.arange(200) % 10


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_complete(parts: list[Any], samples: int) -> None:
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(samples))
    assert all(np.array_equal(part, np.sort(part)) for part in parts)


@given(st.integers(1, 12), st.integers(0, 1000), st.floats(0.3, 10))
@settings(max_examples=40, deadline=None)
def test_nothing_is_lost_and_nothing_given_twice(devices: int, seed: int, alpha: float) -> None:
    for parts in (
        iid(200, devices, rng(seed)),
        by_share(200, [1.0 + index for index in range(devices)], rng(seed)),
        dirichlet(LABELS, devices, alpha, rng(seed)),
        by_label(LABELS, devices, 10, rng(seed)),
    ):
        assert len(parts) == devices
        assert_complete(parts, 200)
        assert min(len(part) for part in parts) >= 1


def test_the_same_generator_gives_the_same_parts() -> None:
    for divide in (
        lambda g: iid(50, 4, g),
        lambda g: dirichlet(LABELS, 4, 0.5, g),
        lambda g: by_label(LABELS, 5, 4, g),
        lambda g: by_share(50, [1, 2], g),
    ):
        first, again, other = (np.concatenate(divide(rng(seed))).tolist() for seed in (1, 1, 2))
        assert first == again != other


def test_iid_parts_have_equal_sizes() -> None:
    assert sorted(len(part) for part in iid(203, 4, rng())) == [50, 51, 51, 51]


def test_shares_are_kept_to_one_sample() -> None:
    assert [len(part) for part in by_share(201, [50, 30, 20], rng())] == [101, 60, 40]
    assert [len(part) for part in by_share(3, [1, 1, 1], rng())] == [1, 1, 1]


def test_a_small_alpha_skews_labels_and_a_large_one_does_not() -> None:
    def classes(alpha: float) -> float:
        parts = dirichlet(LABELS, 10, alpha, rng())
        return float(np.mean([len(np.unique(LABELS[part])) for part in parts]))

    assert classes(0.1) < 5
    assert classes(100.0) > 8
    assert min(len(part) for part in dirichlet(LABELS, 10, 0.1, rng(), at_least=3)) >= 3


def test_two_classes_each() -> None:
    parts = by_label(LABELS, 5, 2, rng())
    assert [sorted(np.unique(LABELS[part])) for part in parts] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert [len(part) for part in parts] == [40] * 5
    shared = by_label(LABELS, 10, 2, rng())
    assert_complete(shared, 200)
    assert sorted(np.unique(LABELS[shared[5]])) == [0, 1]
    assert [len(part) for part in shared] == [20] * 10


@pytest.mark.parametrize(
    ("divide", "said"),
    [
        (lambda: iid(3, 4, rng()), "3 samples for 4 devices"),
        (lambda: iid(3, 0, rng()), "3 samples for 0 devices"),
        (lambda: by_share(10, [1.0, -1.0], rng()), "not all positive"),
        (lambda: by_share(10, [1.0, float("nan")], rng()), "not all positive"),
        (lambda: by_share(10, [1.0, 1e-9], rng()), "is none"),
        (lambda: dirichlet(LABELS, 4, 0.0, rng()), "alpha must be above 0"),
        (lambda: dirichlet(LABELS, 4, 1e-3, rng(), at_least=49), "no draw of"),
        (lambda: by_label(LABELS, 4, 2, rng()), "cannot hold 10 classes"),
        (lambda: by_label(LABELS, 4, 11, rng()), "11 classes each"),
        (lambda: by_label(LABELS, 4, 0, rng()), "0 classes each"),
    ],
)
def test_what_cannot_be_divided(divide: Any, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        divide()


def test_the_digits_are_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    model_selection = pytest.importorskip("sklearn.model_selection")
    theirs, ours = datasets.load_digits(), load_digits()
    assert np.array_equal(ours.x, theirs.data / 16)
    assert np.array_equal(ours.y, theirs.target)
    assert (ours.x.shape, ours.x.dtype, ours.y.dtype) == ((1797, 64), np.float64, np.int64)
    train, test = split_digits()
    split = model_selection.train_test_split(theirs.data / 16, theirs.target, test_size=360, random_state=42)
    for mine, other in zip((train.x, test.x, train.y, test.y), split, strict=True):
        assert np.array_equal(mine, other)
    assert len(train.y) == 1437
