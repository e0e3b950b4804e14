"""One iteration of consensus on one float: fedd's daemons beside NVFlare's simulator, in one run.

    python tests/bench/consensus.py [--nodes 4 8] [--only fedd|nvflare] [--torch SPEC]

Prints one JSON document for each case and system, and one with the ratios for each case. NVFlare gets a
virtual environment of its own, made on the first call (`--environment`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import nvflare_case
from federation.daemons import Federation, federation
from processes import children_of, pss_bytes, rss_bytes

from fedd.control.client import Client, path_of

ITERATIONS = 400
"""Of fedd in one run: a second or two, of which the workers' start is no part."""

TARGETS = {"iteration": 10.0, "memory": 3.0, "first_iteration_s": 2.0}


def measure_fedd(nodes: int, repeat: int) -> dict[str, Any]:
    """Run a ring of real daemons `repeat` times.

    `iteration_s` is the time between the first and the last progress that a member told of, over the rounds
    between them, of all runs together. `first_iteration_s` is the wall time of a whole `fedctl run` with one
    iteration, from exec to exit, so more than was asked for: the median. `node_mib` is the largest mean size
    of a daemon with its worker.
    """
    with federation(nodes) as fed:
        fed.set_inputs([float(i) ** 0.5 for i in range(nodes)])
        first = []
        for _ in range(repeat):
            started = time.monotonic()
            command = ("run", "consensus", "iterations=1", "--input", "x", "--topology", "ring")
            fed[0].ctl(*command).ok()
            first.append(time.monotonic() - started)
        with sampled(fed) as sizes:
            steps = [time_iterations(fed) for _ in range(repeat)]
    took_s, rounds = (sum(column) for column in zip(*steps, strict=True))
    return {
        "iteration_s": took_s / rounds,
        "first_iteration_s": statistics.median(first),
        "node_mib": sizes["rss"] / 2**20,
        "node_pss_mib": sizes["pss"] / 2**20,
        "iterations": rounds,
    }


LONG_RUN: dict[str, Any] = {
    "algorithm": "consensus",
    "parameters": {"tolerance": 0, "iterations": ITERATIONS},
    "input": "x",
    "topology": "ring",
}


def time_iterations(fed: Federation, body: dict[str, Any] = LONG_RUN) -> tuple[float, int]:
    """Seconds and rounds between the first and the last progress of a run that goes on for long."""
    with Client(str(fed[0].socket)) as client:
        run_id = client.request("POST", "/v1/runs", body)["run_id"]
    seen: list[tuple[float, int]] = []
    for item in Client(str(fed[0].socket)).stream("GET", path_of("runs", run_id, "watch")):
        if item["kind"] == "progress" and item["round"] > 0:
            seen.append((time.monotonic(), item["round"]))
        elif item["kind"] == "result" and item["state"] != "finished":
            raise RuntimeError(f"the run {item['state']}: {item.get('error')}")
    steps = [later for earlier, later in itertools.pairwise(seen) if later[1] > earlier[1]]
    if not steps:
        raise RuntimeError("the run ended before its progress was seen")
    (begin_s, begin), (end_s, end) = seen[0], steps[-1]
    return end_s - begin_s, end - begin


@contextmanager
def sampled(fed: Federation) -> Iterator[dict[str, int]]:
    """The largest mean size of a node's processes, seen every quarter of a second in the block."""
    sizes = {"rss": 0, "pss": 0}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            pids = [pid for daemon in fed for pid in (daemon.pid, *children_of(daemon.pid))]
            sizes["rss"] = max(sizes["rss"], sum(map(rss_bytes, pids)) // len(fed))
            sizes["pss"] = max(sizes["pss"], sum(map(pss_bytes, pids)) // len(fed))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield sizes
    finally:
        over.set()
        thread.join()


def main() -> int:
    """Entry point; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[4, 8], help="sizes of the rings")
    parser.add_argument("--repeat", type=int, default=10, help="runs of fedd")
    parser.add_argument("--only", choices=["fedd", "nvflare"], help="measure one of them")
    parser.add_argument("--torch", default="torch", help="what pip installs as PyTorch")
    cache = Path.home() / ".cache" / "fedd-bench" / "nvflare"
    parser.add_argument("--environment", type=Path, default=cache, help="NVFlare's virtual environment")
    options = parser.parse_args()
    good = True
    for nodes in options.nodes:
        figures: dict[str, dict[str, Any]] = {}
        if options.only != "nvflare":
            figures["fedd"] = measure_fedd(nodes, options.repeat)
        if options.only != "fedd":
            python = nvflare_case.make_environment(options.environment, options.torch)
            figures["nvflare"] = nvflare_case.measure(python, nodes, iterations=60)
        for system, numbers in figures.items():
            print(json.dumps({"case": f"ring of {nodes}", "system": system, **numbers}), flush=True)
        verdict = compare(figures)
        print(json.dumps({"case": f"ring of {nodes}", **verdict}), flush=True)
        good = good and all(verdict["met"].values())
    return 0 if good else 1


def compare(figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """How many times less time and memory fedd needs, and whether that is enough."""
    verdict: dict[str, Any] = {"met": {}}
    if "fedd" in figures:
        verdict["met"]["first_iteration_s"] = (
            figures["fedd"]["first_iteration_s"] <= TARGETS["first_iteration_s"]
        )
    if len(figures) == 2:
        ours, theirs = figures["fedd"], figures["nvflare"]
        verdict["iteration"] = theirs["iteration_s"] / ours["iteration_s"]
        verdict["memory"] = theirs["node_mib"] / ours["node_mib"]
        for key in ("iteration", "memory"):
            verdict["met"][key] = verdict[key] >= TARGETS[key]
    return verdict


if __name__ == "__main__":
    sys.exit(main())
