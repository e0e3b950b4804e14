"""A round of learning without any training: fedd's daemons beside P2PFL's nodes, in one run.

    python tests/bench/learning.py [--cases 2x10000 4x10000 2x1000000] [--only fedd plain p2pfl p2pfl-tuned]
                                   [--attempts 5]
    python tests/bench/learning.py --memory

Prints one JSON document for each case and system, and one with the ratios for each case. `plain` sends the
bytes of fedd's round over fedd's links without daemons, workers and messages. `p2pfl` has its default
settings, `p2pfl-tuned` its waiting cut to the limit; it gets a virtual environment of its own, made on the
first call (`--environment`). Its nodes may lose each other and not end: each failure is printed, and it is
tried `--attempts` times; `attempts` in its document says at which it ended. `--memory` lets four daemons
share a model of 100 MB and prints the largest size of a daemon and of its worker.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import p2pfl_case
import plain_links
from federation.daemons import Federation, federation, result_of
from federation.plugged import plugged
from processes import children_of, rss_bytes

TARGETS = {10_000: 15.0, 1_000_000: 15.0, 10_000_000: 5.0}
"""How many times less than P2PFL's a round may take, by the model's size."""
MEMORY_TARGET = 4.0
PLAIN_TARGET = 3.0
"""How many times longer than its bytes alone a round may take."""
SYSTEMS = ("fedd", "plain", "p2pfl", "p2pfl-tuned")
ROUNDS = 12
LARGE = 25_000_000
"""float32: 100 MB."""


@contextmanager
def environment() -> Iterator[Path]:
    """An interpreter that has what this one has, and the learner that does nothing as a plugin."""
    with plugged({"idle_learner": (HERE / "idle_learner.py").read_text()}, "bench-idle") as python:
        yield python


def measure_fedd(python: Path, nodes: int, size: int, rounds: int = ROUNDS) -> dict[str, Any]:
    """Rounds among daemons: as `p2pfl_case.measure`; `bytes_per_round` is what a node sends.

    `daemon_mib` and `worker_mib` are the largest seen of one process.
    """
    with tempfile.TemporaryDirectory(prefix="fedd-notes-") as notes:
        files = [Path(notes) / str(number) for number in range(nodes)]
        configs = [
            f'[inputs.idle]\nvalue = 0\nlearner = "bench-idle"\nsize = {size}\nnotes = "{file}"\n'
            for file in files
        ]
        with federation(nodes, python=python, configs=configs) as fed:
            idle = sum(rss_bytes(daemon.pid) for daemon in fed) / nodes
            with sampled(fed) as sizes:
                command = ("run", "learning", f"rounds={rounds}", "--input", "idle", "--detach")
                run_id = fed[0].ctl(*command).ok()["run_id"]
                results = [result_of(daemon, run_id, 600.0) for daemon in fed]
        for result in results:
            if result["state"] != "finished":
                raise RuntimeError(f"the run {result['state']}: {result.get('error')}")
        begun = [[float(line) for line in file.read_text().split()] for file in files]
    steps = [later - earlier for times in begun for earlier, later in itertools.pairwise(times)]
    return {
        "round_s": statistics.median(steps),
        "rounds": rounds,
        "idle_mib": idle / 2**20,
        "node_mib": sizes["node"] / 2**20,
        "daemon_mib": sizes["daemon"] / 2**20,
        "worker_mib": sizes["worker"] / 2**20,
        "bytes_per_round": statistics.mean(result["bytes_out"] for result in results) / rounds,
    }


@contextmanager
def sampled(fed: Federation) -> Iterator[dict[str, int]]:
    """The largest sizes seen in the block: of a node (mean), a daemon, a worker."""
    sizes = {"node": 0, "daemon": 0, "worker": 0}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            daemons = [rss_bytes(daemon.pid) for daemon in fed]
            workers = [max(map(rss_bytes, children_of(daemon.pid)), default=0) for daemon in fed]
            sizes["node"] = max(sizes["node"], sum(daemons + workers) // len(fed))
            sizes["daemon"] = max(sizes["daemon"], *daemons)
            sizes["worker"] = max(sizes["worker"], *workers)

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
    usual = ["2x10000", "4x10000", "2x1000000", "4x1000000", "2x10000000"]
    parser.add_argument("--cases", nargs="+", default=usual, metavar="NODESxSIZE", help="what to measure")
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=SYSTEMS, help="measure these alone")
    parser.add_argument("--attempts", type=int, default=3, help="of P2PFL, which does not always end")
    parser.add_argument("--memory", action="store_true", help="a model of 100 MB among four daemons")
    cache = Path.home() / ".cache" / "fedd-bench" / "p2pfl"
    parser.add_argument("--environment", type=Path, default=cache, help="P2PFL's virtual environment")
    options = parser.parse_args()
    with environment() as python:
        if options.memory:
            print(json.dumps({"case": f"4x{LARGE}", "system": "fedd", **measure_fedd(python, 4, LARGE, 3)}))
            return 0
        verdicts = [compare(case, options, python) for case in options.cases]
    return 0 if all(all(verdict["met"].values()) for verdict in verdicts) else 1


def compare(case: str, options: argparse.Namespace, python: Path) -> dict[str, Any]:
    """Measure a case with all systems, print the figures; how many times less or more fedd needs."""
    nodes, size = map(int, case.split("x"))
    figures: dict[str, dict[str, Any]] = {}

    def note(system: str, measure: Callable[[], Mapping[str, Any]]) -> bool:
        """Print what it measures, or why it cannot: whether it could."""
        try:
            figures[system] = dict(measure())
        except (RuntimeError, TimeoutError) as error:  # P2PFL does not always come to an end
            print(json.dumps({"case": case, "system": system, "error": str(error)}), flush=True)
            return False
        print(json.dumps({"case": case, "system": system, **figures[system]}), flush=True)
        return True

    def note_p2pfl(system: str, settings: Mapping[str, Any]) -> None:
        theirs = p2pfl_case.make_environment(options.environment)
        attempts = itertools.count(1)

        def measure() -> Mapping[str, Any]:
            attempt = next(attempts)
            return {**p2pfl_case.measure(theirs, nodes, size, settings=settings), "attempts": attempt}

        for _ in range(options.attempts):
            if note(system, measure):
                return

    def measure_plain() -> Mapping[str, Any]:
        ours = figures.get("fedd", {}).get("bytes_per_round")
        # What a mean takes at least: each member's share of the model to and from every other.
        return plain_links.measure(nodes, int(ours or 8 * size * (nodes - 1) / nodes), ROUNDS)

    if "fedd" in options.only:
        note("fedd", lambda: measure_fedd(python, nodes, size))
    if "plain" in options.only:
        note("plain", measure_plain)
    if "p2pfl" in options.only:
        note_p2pfl("p2pfl", {})
    if "p2pfl-tuned" in options.only:
        note_p2pfl("p2pfl-tuned", p2pfl_case.TUNED)
    return judge(case, size, figures)


def judge(case: str, size: int, figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Print and return the ratios, and which targets are met."""
    verdict: dict[str, Any] = {"met": {}}
    ours = figures.get("fedd")
    for system in SYSTEMS:
        if ours is None or system == "fedd" or system not in figures:
            continue
        theirs = figures[system]
        ratio = theirs["round_s"] / ours["round_s"]
        if system == "plain":
            verdict["times_plain"] = 1 / ratio
            verdict["met"]["times_plain"] = 1 / ratio <= PLAIN_TARGET
        else:
            verdict[f"faster_than_{system}"] = ratio
            least = TARGETS.get(size, 1.0) if system == "p2pfl" else 1.0
            verdict["met"][f"faster_than_{system}"] = ratio >= least
        if system == "p2pfl":
            verdict["idle_mib"] = theirs["idle_mib"] / ours["idle_mib"]
            verdict["met"]["idle_mib"] = verdict["idle_mib"] >= MEMORY_TARGET
    if verdict["met"]:
        print(json.dumps({"case": case, **verdict}), flush=True)
    return verdict


if __name__ == "__main__":
    sys.exit(main())
