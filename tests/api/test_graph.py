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


def test_chebyshev_needs_about_the_root_of_the_rounds() -> None:
    slow = Spectrum(0.99, 0.99, -0.99)
    assert (slow.rounds(1e-6), slow.chebyshev_rounds(1e-6)) == (1375, 103)
    assert Spectrum(0.5, 0.5, 0.5).chebyshev_rounds(1e-6) == 2  # one eigenvalue: one round, but for rounding
    assert Spectrum(1.0, 1.0, -1.0).chebyshev_rounds(1e-6) is None
    assert Spectrum(0.5, 0.5, -0.5, symmetric=False).chebyshev_rounds(1e-6) is None
