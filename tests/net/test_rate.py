from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.net.rate import ByteRate


def test_a_burst_is_free_and_the_rest_waits() -> None:
    rate = ByteRate(1000, 500)
    assert rate.take(500, 10.0) == 0
    assert rate.take(250, 10.0) == pytest.approx(0.25)
    assert rate.take(250, 10.0) == pytest.approx(0.5)  # in the order of taking
    assert rate.take(100, 10.6) == 0  # 600 bytes are paid for
    assert rate.take(0, 99.0) == 0


def test_what_was_not_used_is_saved_up_to_the_burst() -> None:
    rate = ByteRate(1000, 500)
    rate.take(500, 0.0)
    assert rate.take(500, 1000.0) == 0
    assert rate.take(1, 1000.0) > 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 5000)), max_size=50))
def test_who_waits_keeps_the_rate(steps: list[tuple[float, int]]) -> None:
    rate, now, passed = ByteRate(1000, 2000), 0.0, 0
    for pause_s, size in steps:
        now += pause_s
        now += rate.take(size, now)
        passed += size
        assert passed <= 2000 + 1000 * now + 1e-6


def test_the_present_rate_is_that_of_the_last_second() -> None:
    rate = ByteRate(1000, 500)
    assert rate.present(0.0) == 0
    rate.take(300, 0.5)
    assert rate.present(0.9) == 0
    rate.take(200, 0.9)
    assert rate.present(1.5) == 500
    rate.take(10, 1.6)
    assert rate.present(2.4) == 500
    assert rate.present(2.5) == 10
    assert rate.present(9.0) == 0
