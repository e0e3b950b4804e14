"""One iteration of D-SGD and of gradient tracking on a network of 67,074 parameters, beside NVFlare.

    python tests/bench/optimization.py [--nodes 4] [--only fedd|nvflare] [--torch SPEC]

fedd's daemons and NVFlare's simulator train the same network on the same two moons (128 samples a node,
minibatches of 64) on a ring, in one run. Prints one JSON document for each algorithm and system, and one
with the ratios for each algorithm.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import numpy as np
import nvflare_case
import nvflare_training
from consensus import sampled, time_iterations
from federation.daemons import federation
from sklearn.datasets import make_moons

ITERATIONS = 200
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dsgd": ("TimedDGD", {"batch": 64}),
    "gradient-tracking": ("TimedGT", {"batch": 64, "zero_start": True}),
}
TARGETS = {"iteration": 5.0, "memory": 3.0}


def measure_fedd(algorithm: str, nodes: int, repeat: int, data: Path) -> dict[str, Any]:
    """Run a ring of real daemons `repeat` times: seconds an iteration, MiB a daemon with its worker."""
    config = f'[inputs.moons]\nlearner = "numpy-mlp"\nfile = "{data}"\nhidden = "256,256"\n'
    parameters = {"iterations": ITERATIONS, "step": 0.01, "start": "model", "history": 0}
    body = {
        "algorithm": algorithm,
        "parameters": {**parameters, **CASES[algorithm][1]},
        "input": "moons",
        "topology": "ring",
    }
    with federation(nodes, configs=[config] * nodes) as fed, sampled(fed) as sizes:
        steps = [time_iterations(fed, body) for _ in range(repeat)]
    took_s, rounds = (sum(column) for column in zip(*steps, strict=True))
    return {
        "iteration_s": took_s / rounds,
        "node_mib": sizes["rss"] / 2**20,
        "node_pss_mib": sizes["pss"] / 2**20,
        "iterations": rounds,
    }


def main() -> int:
    """Entry point; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4, help="size of the ring")
    parser.add_argument("--repeat", type=int, default=3, help="runs of fedd")
    parser.add_argument("--only", choices=["fedd", "nvflare"], help="measure one of them")
    parser.add_argument("--torch", default="torch", help="what pip installs as PyTorch")
    cache = Path.home() / ".cache" / "fedd-bench" / "nvflare"
    parser.add_argument("--environment", type=Path, default=cache, help="NVFlare's virtual environment")
    options = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory(prefix="fedd-bench-") as scratch:
        data = Path(scratch) / "moons.npz"
        x, y = make_moons(n_samples=128, noise=0.1, random_state=0)
        np.savez(data, x=x, y=y.astype(float))
        for algorithm, (executor, _) in CASES.items():
            figures: dict[str, dict[str, Any]] = {}
            if options.only != "nvflare":
                figures["fedd"] = measure_fedd(algorithm, options.nodes, options.repeat, data)
            if options.only != "fedd":
                python = nvflare_case.make_environment(options.environment, options.torch)
                figures["nvflare"] = nvflare_training.measure(python, executor, options.nodes, 60, data)
            case = f"{algorithm}, ring of {options.nodes}"
            for system, numbers in figures.items():
                print(json.dumps({"case": case, "system": system, **numbers}), flush=True)
            verdict = compare(figures)
            print(json.dumps({"case": case, **verdict}), flush=True)
            good = good and all(verdict["met"].values())
    return 0 if good else 1


def compare(figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """How many times less time and memory fedd needs, and whether that is enough."""
    verdict: dict[str, Any] = {"met": {}}
    if len(figures) == 2:
        ours, theirs = figures["fedd"], figures["nvflare"]
        verdict["iteration"] = theirs["iteration_s"] / ours["iteration_s"]
        verdict["memory"] = theirs["node_mib"] / ours["node_mib"]
        verdict["met"] = {key: verdict[key] >= least for key, least in TARGETS.items()}
    return verdict


if __name__ == "__main__":
    sys.exit(main())
