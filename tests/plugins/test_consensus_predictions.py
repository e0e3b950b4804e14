"""How many rounds each method of averaging foresees, and how many it then makes."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from fedd.api import InvalidParameter
from fedd.core.topology import build
from fedd.testing import Federation
from fedd.worker.context import RunStart
from fedd.worker.prediction import of_algorithm
from fedd_consensus import AverageConsensus

NAMES = [f"node-{number:02d}" for number in range(8)]
VALUES: list[Any] = [float(number) for number in range(8)]


def foreseen(algorithm: AverageConsensus, topology: str) -> Any:
    start = RunStart("r", NAMES[0], build(topology, NAMES, 0), 1, 0, 5, 100_000)
    return trio.run(of_algorithm, algorithm, start, lambda: (VALUES[0], None), None)


@pytest.mark.parametrize(
    ("more", "topology"),
    [
        ({"method": "lazy"}, "ring"),
        ({"method": "chebyshev"}, "ring"),
        ({"method": "push-sum"}, "directed-ring"),
        ({"method": "choco", "codec": "int8"}, "ring"),
        ({"method": "choco", "codec": "top-k:0.5", "gamma": 0.4}, "ring"),
    ],
)
def test_rounds_are_foreseen_to_the_last(more: dict[str, Any], topology: str) -> None:
    algorithm = AverageConsensus(tolerance=1e-6, **more)
    found = foreseen(algorithm, topology)
    assert set(found) == {"rounds_predicted"}
    results = Federation(8, topology=topology).run(algorithm, VALUES)
    closing = 4 if algorithm.method == "chebyshev" else 0  # the diameter, in runs that may have epochs
    assert results[0].rounds == found["rounds_predicted"] + closing


@pytest.mark.parametrize("topology", ["ring", "hypercube", "complete"])
def test_the_ledgers_rounds_are_foreseen_to_two_windows(topology: str) -> None:
    algorithm = AverageConsensus(tolerance=1e-6)
    found = foreseen(algorithm, topology)
    (result, *_) = Federation(8, topology=topology).run(algorithm, VALUES)
    assert abs(result.rounds - found["rounds_predicted"]) <= 2 * 7


def test_a_fixed_number_and_a_bound_are_foreseen_as_they_are() -> None:
    for method in ("metropolis", "lazy", "chebyshev", "push-sum", "choco", "pairwise"):
        exactly = AverageConsensus(method=method, tolerance=0, iterations=17)
        assert foreseen(exactly, "ring") == {"rounds_predicted": 17}
    assert foreseen(AverageConsensus(iterations=3), "ring") == {"rounds_predicted": 3}
    questions = foreseen(AverageConsensus(method="pairwise", tolerance=1e-6), "complete")
    assert 10 < questions["rounds_predicted"] < 200


def test_what_does_not_fit_is_refused_and_other_weights_are_not_foreseen() -> None:
    for method in ("metropolis", "lazy", "chebyshev", "choco", "pairwise"):
        with pytest.raises(InvalidParameter, match="both ways"):
            foreseen(AverageConsensus(method=method), "directed-ring")
    assert foreseen(AverageConsensus(), "ring@lazy") == {}
    turns = AverageConsensus(method="choco", codec="none", gamma=1.0)
    with pytest.raises(InvalidParameter, match="never converges"):
        foreseen(turns, "edges:undirected\n" + "\n".join(f"{a},{b},0.5" for a, b in _pairs()))


def _pairs() -> list[tuple[str, str]]:
    """A ring of eight without weight on the nodes themselves: it swings for ever."""
    return [(NAMES[number], NAMES[(number + 1) % 8]) for number in range(8)]
