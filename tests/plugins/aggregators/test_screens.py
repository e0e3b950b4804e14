"""A bad contribution hurts its sender alone, and the result says why."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from plugins.aggregators.members import contribution

from fedd.api import Contribution, InvalidParameter
from fedd_aggregators import MAX_SAMPLES, FedAvg, fedd_register_aggregators, screen
from fedd_aggregators.screens import median

MODEL = [np.zeros((2, 2), np.float32), np.zeros(3, np.float32)]


def good(index: int, value: float = 1.0) -> Contribution:
    return contribution(index, np.full((2, 2), value, np.float32), np.full(3, value, np.float32))


def changed(**changes: Any) -> Contribution:
    sound = good(0)
    fields = {"member": sound.member, "model": sound.model, "num_samples": 1, "extra": (), **changes}
    return Contribution(**fields)


BAD = {
    "has 1 arrays, the model 2": changed(model=[MODEL[0]]),
    "array 0 has the shape (4,), the model's (2, 2)": changed(model=[np.zeros(4, np.float32), MODEL[1]]),
    "array 1 is float64, the model's float32": changed(model=[MODEL[0], np.zeros(3)]),
    "array 1 is no array": changed(model=[MODEL[0], [0, 0, 0]]),
    "array 0 holds a value that is not finite": changed(
        model=[np.array([[1, np.nan], [1, 1]], np.float32), MODEL[1]]
    ),
    "extra array 0 holds a value that is not finite": changed(extra=[np.array([np.inf])]),
    "trained on 0 samples": changed(num_samples=0),
    "trained on -3 samples": changed(num_samples=-3),
    f"trained on {MAX_SAMPLES + 1} samples": changed(num_samples=MAX_SAMPLES + 1),
    "no whole number: True": changed(num_samples=True),
    "no whole number: 1.5": changed(num_samples=1.5),
}


@pytest.mark.parametrize("why", BAD)
@pytest.mark.parametrize("cls", fedd_register_aggregators(), ids=lambda cls: cls.name)
def test_the_bad_one_is_left_out_with_its_reason(cls: Any, why: str) -> None:
    aggregator = cls()
    extra = [*aggregator.start(MODEL), np.ones(1)] if cls.name == "scaffold" else []
    others = [Contribution(f"n{i:02d}", good(i).model, 1, extra) for i in range(1, 7)]
    state = aggregator.start(MODEL)
    without = aggregator.aggregate(MODEL, others, state)
    withal = aggregator.aggregate(MODEL, [BAD[why], *others], state)
    assert why in withal.left_out["n00"]
    assert [array.tobytes() for array in withal.model] == [array.tobytes() for array in without.model]
    assert [array.tobytes() for array in withal.state] == [array.tobytes() for array in without.state]


@pytest.mark.parametrize("cls", fedd_register_aggregators(), ids=lambda cls: cls.name)
def test_with_nothing_left_it_refuses_and_says_who_was_left_out(cls: Any) -> None:
    aggregator = cls()
    with pytest.raises(InvalidParameter, match="needs") as caught:
        aggregator.aggregate(MODEL, [changed(num_samples=0)], aggregator.start(MODEL))
    assert "n00: it says that it trained on 0 samples" in str(caught.value)


def test_those_far_away_are_left_out_when_asked_for() -> None:
    members = [good(0, 1.0), good(1, 1.1), good(2, -9.0), good(3, 0.9)]
    assert screen(MODEL, members)[1] == {}
    kept, left_out = screen(MODEL, members, max_norm=3)
    assert [each.member for each in kept] == ["n00", "n01", "n03"]
    assert re.fullmatch(r"its update is 23\.81 long, the most allowed is 8\.33\d?", left_out["n02"]), left_out


def test_two_cannot_be_told_apart_by_their_lengths() -> None:
    kept, left_out = screen(MODEL, [good(0, 1.0), good(1, 1e9)], max_norm=1.5)
    assert (len(kept), left_out) == (2, {})


def test_the_order_stays() -> None:
    members = [good(3), changed(num_samples=0), good(1)]
    assert [each.member for each in screen(MODEL, members)[0]] == ["n03", "n01"]


def test_a_numpy_integer_counts_samples() -> None:
    assert FedAvg().aggregate(MODEL, [changed(num_samples=np.int64(4))], []).left_out == {}


def test_the_median_of_an_even_number_lies_between() -> None:
    assert (median([3.0, 1.0, 2.0]), median([4.0, 1.0, 2.0, 3.0])) == (2.0, 2.5)
