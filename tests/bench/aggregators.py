"""What the aggregators reach on the digits: the tables of docs/reference/aggregators.md.

    python tests/bench/aggregators.py [--seeds 1 2 3]

Ten members in one process, without a network: 60 rounds of one epoch each, step 0.1, minibatches of 32.
Prints one JSON document a line: the mean over the seeds and its parts, and the seconds of an aggregation.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins"), str(ROOT / "tests")]

from plugins.aggregators.rounds import Experiment

from fedd.api import Aggregator, Contribution
from fedd_aggregators import (
    CenteredClipping,
    CoordinateMedian,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedProx,
    FedYogi,
    GeometricMedian,
    Krum,
    MultiKrum,
    Scaffold,
    TrimmedMean,
)

MEANS: tuple[Aggregator, ...] = (FedAvg(), FedProx(), Scaffold(), FedAdam(), FedYogi(), FedAdagrad())
ROBUST: tuple[Aggregator, ...] = (
    CoordinateMedian(),
    TrimmedMean(byzantine=3),
    Krum(byzantine=3),
    MultiKrum(byzantine=3),
    GeometricMedian(),
    CenteredClipping(),
)
WEIGHTS = 10**6
"""Of the model in the timing."""


def reached(case: str, experiment: Experiment, aggregator: Aggregator, seeds: Sequence[int]) -> None:
    parts = [experiment.accuracy(aggregator, seed) for seed in seeds]
    mean = round(float(np.mean(parts)), 3)
    print(json.dumps({"case": case, "aggregator": str(aggregator), "accuracy": mean, "seeds": parts}))


def seconds(aggregator: Aggregator) -> float:
    """Of one aggregation of ten models of a million float32."""
    rng = np.random.default_rng(0)
    model = [np.zeros(WEIGHTS, np.float32)]
    count = 1 if aggregator.mean else 10
    extra = [np.zeros(WEIGHTS, np.float32), np.ones(1)] if aggregator.name == "scaffold" else []
    contributions = [
        Contribution(f"n{index}", [rng.normal(size=WEIGHTS).astype(np.float32)], 100, extra)
        for index in range(count)
    ]
    state = aggregator.start(model)
    begin = time.perf_counter()
    aggregator.aggregate(model, contributions, state)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    seeds = parser.parse_args().seeds
    for aggregator in MEANS:
        for model in ("softmax", "mlp"):
            reached(f"dirichlet {model}", Experiment(model), aggregator, seeds)
    for aggregator in (FedAvg(), *ROBUST):
        reached("three liars", Experiment("mlp", "iid", liars=3), aggregator, seeds)
        reached("nobody lies", Experiment("mlp", "iid"), aggregator, seeds)
    for aggregator in (*MEANS, *ROBUST):
        print(
            json.dumps({"case": "seconds", "aggregator": aggregator.name, "s": round(seconds(aggregator), 3)})
        )


if __name__ == "__main__":
    main()
