"""What the demo draws."""

from __future__ import annotations

import math

from fedd.demo.picture import BARS, Trace, sparkline


def test_a_falling_residual_falls_evenly_in_orders_of_magnitude() -> None:
    assert sparkline([10.0**-k for k in range(8)]) == BARS[::-1]


def test_zero_lies_on_the_ground_and_nothing_is_nothing() -> None:
    assert sparkline([1.0, 1e-3, 0.0]) == BARS[-1] + BARS[0] * 2
    assert sparkline([0.0, 0.0]) == BARS[0] * 2
    assert sparkline([]) == ""


def test_many_values_share_a_column() -> None:
    line = sparkline([1.0 / (k + 1) for k in range(1000)], width=20)
    assert len(line) <= 20
    assert line[0] == BARS[-1]


def test_a_trace_takes_in_progress_of_either_form() -> None:
    trace = Trace("regression")
    trace.add({"kind": "progress", "round": 3, "members": 5, "residual": 0.5})
    trace.add({"kind": "progress", "round": 4, "members": ["a", "b"], "residual": math.inf})
    trace.add({"kind": "result"})
    assert (trace.round, trace.members, trace.residuals) == (4, 2, [0.5])
