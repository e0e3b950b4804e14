"""Spectral gaps equal the published closed forms; predictions follow from them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedd.api import InvalidParameter, Spectrum
from fedd.core.graph import Graph
from fedd.core.mixing import mixing_matrix
from fedd.core.topology import build
from fedd.worker.spectrum import graph_spectrum

SIZES = range(4, 65)


def spectrum(name: str, count: int) -> Spectrum:
    return graph_spectrum(build(name, [f"p{i:04d}" for i in range(count)], 0))


@pytest.mark.parametrize("count", SIZES)
def test_ring_star_and_complete(count: int) -> None:
    """Ring: 2/3 (1 - cos(2 pi / n)); star: 1/n; complete: 1, with Metropolis weights."""
    ring = 2 / 3 * (1 - math.cos(2 * math.pi / count))
    assert spectrum("ring", count).gap == pytest.approx(ring, abs=1e-12)
    assert spectrum("star", count).gap == pytest.approx(1 / count, abs=1e-12)
    assert spectrum("complete", count).gap == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("dimension", range(2, 7))
def test_hypercube(dimension: int) -> None:
    """2 / (d + 1) on 2^d nodes."""
    assert spectrum("hypercube", 2**dimension).gap == pytest.approx(2 / (dimension + 1), abs=1e-12)


@pytest.mark.parametrize("count", SIZES)
def test_exponential(count: int) -> None:
    """2 / (1 + ceil(log2 n)) for even n, more for odd (Ying et al., NeurIPS 2021, proposition 1)."""
    published = 2 / (1 + math.ceil(math.log2(count)))
    gap = spectrum("directed-exponential", count).gap
    if count % 2:
        assert gap > published + 1e-6
    else:
        assert gap == pytest.approx(published, abs=1e-12)


@pytest.mark.parametrize("count", SIZES)
def test_the_symmetric_exponential_graph_is_a_circulant(count: int) -> None:
    """Its eigenvalues are (1 + sum of cos(2 pi k s / n) over its steps s) / (1 + degree)."""
    steps = {s for power in range((count - 1).bit_length()) for s in (1 << power, count - (1 << power))}
    values = [
        (1 + sum(math.cos(2 * math.pi * k * s / count) for s in steps)) / (1 + len(steps))
        for k in range(1, count)
    ]
    found = spectrum("exponential", count)
    assert found.second == pytest.approx(max(abs(value) for value in values), abs=1e-12)
    assert found.upper == pytest.approx(max(values), abs=1e-12)
    assert found.lower == pytest.approx(min(values), abs=1e-12)


@pytest.mark.parametrize("count", [4, 8, 16, 32, 64])
def test_one_peer_exponential_is_exact_after_its_period(count: int) -> None:
    found = spectrum("one-peer-exponential", count)
    assert (found.second, found.gap) == (0.0, 1.0)
    assert found.period == found.rounds(1e-6) == math.log2(count)


def test_one_peer_exponential_of_six_is_not_exact() -> None:
    found = spectrum("one-peer-exponential", 6)
    assert 0 < found.second < 1
    graph = build("one-peer-exponential", [f"p{i}" for i in range(6)], 0)
    state = np.arange(6.0)
    spreads = []
    for round in range(300):
        state = np.array(mixing_matrix(graph, round)) @ state
        spreads.append(np.ptp(state))
    assert (spreads[44] / spreads[14]) ** (1 / 30) == pytest.approx(found.second, rel=5e-3)


def test_rules_of_weights() -> None:
    ring = [2 / 3 * math.cos(2 * math.pi * k / 8) + 1 / 3 for k in range(1, 8)]
    assert spectrum("ring@uniform", 8).upper == pytest.approx(max(ring))
    lazy = spectrum("ring@lazy", 8)
    assert lazy.upper == pytest.approx((1 + max(ring)) / 2)
    assert lazy.lower == pytest.approx((1 + min(ring)) / 2)


def test_edges_of_ones_own() -> None:
    symmetric = graph_spectrum(build("edges:undirected\na,b,0.25", ["a", "b"], 0))
    assert (symmetric.second, symmetric.upper, symmetric.lower) == pytest.approx((0.5, 0.5, 0.5))
    # A doubly stochastic matrix need not be symmetric: here, a third of the way round a triangle.
    rows = "a,b,.4\nb,a,.2\nb,c,.4\nc,b,.2\nc,a,.4\na,c,.2"
    skew = graph_spectrum(build(f"edges:{rows}", ["a", "b", "c"], 0))
    assert skew.second == pytest.approx(
        abs(0.4 + 0.4 * np.exp(2j * np.pi / 3) + 0.2 * np.exp(-2j * np.pi / 3))
    )
    assert (skew.upper, skew.lower) == (skew.second, -skew.second)
    assert symmetric.symmetric
    assert not skew.symmetric


def test_predictions() -> None:
    assert spectrum("ring", 32).rounds(1e-6) == 1072
    assert spectrum("complete", 8).rounds(1e-6) == 1
    assert spectrum("ring", 1) == Spectrum(0.0, 0.0, 0.0, 1)
    assert Spectrum(0.5, 0.5, 0.0).rounds(2.0**-10) == 10
    assert Spectrum(1.0, 1.0, -1.0).rounds(0.1) == math.inf
    assert Spectrum(0.5, 0.5, 0.0).rounds(0.9) == 1


def test_too_many_members_are_refused() -> None:
    members = tuple(f"p{i:04d}" for i in range(1025))
    with pytest.raises(InvalidParameter, match="1024"):
        graph_spectrum(Graph(members, frozenset()))
