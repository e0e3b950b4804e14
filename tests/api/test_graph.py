"""What a spectrum says about averaging."""

from __future__ import annotations

import math

from fedd.api import Spectrum


def test_rounds_follow_from_the_second_eigenvalue() -> None:
    half = Spectrum(0.5, 0.5, 0.0)
    assert half.gap == 0.5
    assert half.rounds(2.0**-10) == 10
    assert half.rounds(0.9) == 1  # no less than one
    assert Spectrum(1.0, 1.0, -1.0).rounds(0.1) == math.inf
    assert Spectrum(0.0, 0.0, 0.0, period=3).rounds(0.1) == 3
