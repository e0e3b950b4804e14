"""Membership, failure detection and broadcast: fedd beside serf, on one network and in one run.

    python tests/bench/membership.py                 # the whole table, about 35 minutes
    python tests/bench/membership.py --short         # every row, few trials, about 8 minutes
    python tests/bench/membership.py --nodes 10 --only kill silence --trials 5

N machines are network namespaces on one switch (tests/federation/network.py); each carries a fedd and a serf
agent, and both suffer the same faults at the same moments. What takes milliseconds is done by one system
after the other. Takes root, iproute2, iptables and serf 0.9.4 (Debian: `apt-get install serf`; its service is
not needed). Prints one JSON line a case, size and system, then one a target; exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import membership_cases as cases
from federation.network import network, why_no_network
from membership_cases import Bench, Figures
from membership_systems import Fedd, Serf, System
from serf_rpc import SerfError

import fedd
from fedd.api.errors import FeddError

SYSTEMS: dict[str, type[System]] = {"fedd": Fedd, "serf": Serf}
MESSAGE_BYTES = 256
PLUGINS = ("fedd_basics", "fedd_consensus", "fedd_regression")


@dataclass(frozen=True)
class Effort:
    """How often and how long."""

    trials: int
    joins: int
    leaves: int
    partitions: int
    broadcasts: int
    burst: int
    burst_per_s: float
    loss_s: float
    idle_s: float
    frozen_s: tuple[float, ...]
    cut_s: float = 45.0


# A member of fedd may send four a second for which it wants acknowledgements, as `fedctl broadcast` does.
# Each message is work for every member, and all share this machine: with many it is sent more slowly.
FULL = Effort(20, 5, 5, 2, 30, 1000, 25.0, 300.0, 40.0, (3.0, 8.0, 30.0))
SHORT = Effort(5, 2, 2, 1, 10, 200, 25.0, 45.0, 20.0, (3.0, 8.0))

SMALL_ONLY = ("pause", "control", "freeze", "loss", "clock")
"""Done at the smallest N only: they are no faster or slower with more members."""

Case = Callable[[Bench, Effort], dict[str, Figures]]


def table() -> dict[str, Case]:
    """The cases, in their order; `idle` is not among them, because each system has the network to itself."""
    found: dict[str, Case] = {
        "broadcast": lambda b, e: cases.broadcast(b, e.broadcasts, e.burst, at_rate(b, e), MESSAGE_BYTES),
        "leave": lambda b, e: cases.leave(b, e.leaves),
        "kill": lambda b, e: cases.kill(b, e.trials, at_once(b)),
        "silence": lambda b, e: cases.silence(b, e.trials, at_once(b)),
        "pause": lambda b, e: cases.pause(b, 5.0, e.trials, 2),
        "control": lambda b, e: cases.pause(b, 8.0, max(2, e.trials // 2), 2),
        "freeze": lambda b, e: merged([cases.freeze(b, seconds, 1) for seconds in e.frozen_s]),
        "clock": lambda b, e: cases.clock(b, 4.0),
        "partition": lambda b, e: cases.partition(b, e.partitions, e.cut_s),
        "loss": lambda b, e: cases.loss(b, 20.0, e.loss_s),
    }
    return found


def at_rate(bench: Bench, effort: Effort) -> float:
    """Messages a second of the burst: as many deliveries as ten members have, whatever the number."""
    return effort.burst_per_s * min(1.0, 10 / bench.count)


def at_once(bench: Bench) -> int:
    """How many die at a time: never more than a fifteenth, or one."""
    return max(1, bench.count // 15)


def merged(parts: Sequence[dict[str, Figures]]) -> dict[str, Figures]:
    """One line for several lengths of a freeze."""
    return {
        name: {
            "others_changed": sum(part[name]["others_changed"] for part in parts),
            "which": [line for part in parts for line in part[name]["which"]],
            "broken": [line for part in parts for line in part[name]["broken"]],
            "full_view_s": [part[name].get("max_s") for part in parts],
        }
        for name in parts[0]
    }


# ---- the targets ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What a figure of fedd must be: at most so much, or so much of serf's."""

    case: str
    figure: str
    most: float | None = None
    of_serf: float | None = None
    least_share: tuple[str, float] | None = None
    """Another figure, of which it must be at least that share."""
    nodes: int | None = None


TARGETS = (
    Target("kill", "p50_s", of_serf=0.35),
    Target("kill", "missed", most=0),
    Target("silence", "p50_s", of_serf=1.1, nodes=10),
    Target("silence", "p50_s", of_serf=0.9, nodes=30),
    Target("silence", "missed", most=0),
    Target("pause", "called_dead", most=0),
    Target("control", "dead_to_all", least_share=("trials", 0.9)),
    Target("freeze", "others_changed", most=0),
    Target("freeze", "full_view_s", most=1.0),
    Target("loss", "called_dead", most=0),
    Target("broadcast", "p50_s", of_serf=0.1),
    Target("broadcast", "reached_all", least_share=("burst", 1.0)),
    Target("join", "p50_s", of_serf=3.0),
    Target("leave", "p50_s", of_serf=0.3),
    Target("leave", "seen_as_dead", most=0),
    Target("partition", "detected.p50_s", of_serf=0.6),
    Target("partition", "healed.p50_s", of_serf=0.4),
    Target("idle", "bytes_per_s", most=1.2 * 1024),
    Target("idle", "cpu_percent", most=1.0),
    Target("idle", "rss_mib", most=42.0),
    Target("clock", "changes", most=0),
)
LINK_RATIO = 1.1
"""Idle traffic of a link with the most members, of that with the fewest."""


def judge(target: Target, nodes: int, fedd: Figures, serf: Figures | None) -> dict[str, Any] | None:
    """One line about one target, None when it does not apply or could not be measured."""
    if target.nodes not in (None, nodes):
        return None
    value = reach(fedd, target.figure)
    line: dict[str, Any] = {"target": target.case, "nodes": nodes, "figure": target.figure, "fedd": value}
    if value is None or (isinstance(value, list) and None in value):
        return {**line, "met": False, "why": fedd.get("skipped", "not all trials ended")}
    if target.of_serf is not None:
        theirs = reach(serf or {}, target.figure)
        if not theirs:
            return None if serf is None else {**line, "serf": None, "met": True, "why": "serf never did"}
        ratio = value / theirs
        wanted = f"<= {target.of_serf} of serf's"
        return {
            **line,
            "serf": theirs,
            "ratio": round(ratio, 3),
            "wanted": wanted,
            "met": ratio <= target.of_serf,
        }
    if target.least_share is not None:
        name, share = target.least_share
        return {**line, "wanted": f">= {share:g} of {fedd[name]}", "met": value >= share * fedd[name]}
    most = max(value) if isinstance(value, list) else value
    return {**line, "wanted": f"<= {target.most:g}", "met": most <= (target.most or 0)}


def reach(figures: Figures, path: str) -> Any:
    """A figure by its name, or by the names of the maps above it."""
    found: Any = figures
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


# ---- the run --------------------------------------------------------------------------------------


class Report:
    """Prints as it goes, and remembers for the targets."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, int], dict[str, Figures]] = {}
        self._begun_s = time.monotonic()
        self._whole = True

    def add(self, case: str, nodes: int, figures: dict[str, Figures]) -> None:
        """Take in what a case has found, by system."""
        self.found.setdefault((case, nodes), {}).update(figures)
        for system, values in figures.items():
            line = {"case": case, "nodes": nodes, "system": system, **values}
            print(json.dumps({**line, "at_s": round(time.monotonic() - self._begun_s)}), flush=True)

    def fail(self, case: str, nodes: int, error: Exception) -> None:
        """Take in that a case could not be measured."""
        self._whole = False
        print(json.dumps({"case": case, "nodes": nodes, "failed": str(error)}), flush=True)

    def judge(self) -> bool:
        """Print a line a target; whether all are met and no case failed."""
        lines = []
        for target in TARGETS:
            for (case, nodes), figures in self.found.items():
                if case == target.case and "fedd" in figures:
                    lines.append(judge(target, nodes, figures["fedd"], figures.get("serf")))
        links = {
            nodes: figures["fedd"]["bytes_per_s_a_link"]
            for (case, nodes), figures in self.found.items()
            if case == "idle" and "fedd" in figures
        }
        if len(links) > 1:
            ratio = links[max(links)] / links[min(links)]
            line = {"target": "idle", "figure": "bytes_per_s_a_link", "fedd": links}
            lines.append({**line, "ratio": round(ratio, 3), "wanted": f"<= {LINK_RATIO}"})
            lines[-1]["met"] = ratio <= LINK_RATIO
        told = [line for line in lines if line is not None]
        for line in told:
            print(json.dumps(line), flush=True)
        return self._whole and all(line["met"] for line in told)


def measure(
    nodes: int, systems: Sequence[str], only: Sequence[str], effort: Effort, report: Report, smallest: bool
) -> None:
    """All cases with so many members."""

    def wanted(case: str) -> bool:
        return (not only or case in only) and (smallest or case not in SMALL_ONLY)

    root = Path(tempfile.mkdtemp(prefix="fedd-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        lan = stack.enter_context(network(nodes))
        made: list[System] = []
        for name in systems:
            system = SYSTEMS[name](lan, root)
            stack.callback(system.close)
            made.append(system)
            alone = Bench(lan, [system])
            if wanted("join"):
                report.add("join", nodes, cases.join(alone, effort.joins))
            else:
                cases.join(alone, 1)
            # The first system has the machine to itself now; the others do when it is stopped.
            if wanted("idle"):
                with stopped(made[:-1], nodes):
                    report.add("idle", nodes, cases.idle(alone, effort.idle_s))
        bench = Bench(lan, made)
        for name, case in table().items():
            if wanted(name):
                try:
                    report.add(name, nodes, case(bench, effort))
                except (RuntimeError, FeddError, SerfError, OSError) as error:  # the others still count
                    report.fail(name, nodes, error)
                    lan.restore()


@contextlib.contextmanager
def stopped(systems: Sequence[System], nodes: int) -> Iterator[None]:
    """Without these, for a while."""
    for system in systems:
        for place in range(nodes):
            system.kill(place)
    yield
    for system in systems:
        for place in range(nodes):
            system.start(place)


def main() -> int:
    """Entry point; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 30], metavar="N")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--only", nargs="+", choices=["join", "idle", *table()], default=[])
    parser.add_argument("--trials", type=int, metavar="N", help="deaths and pauses of a case")
    parser.add_argument("--short", action="store_true", help="few trials, and 45 s of loss instead of 5 min")
    options = parser.parse_args()
    if reason := why_no_network():
        print(json.dumps({"skipped": reason}))
        return 0
    if "serf" in options.systems and shutil.which("serf") is None:
        print(json.dumps({"system": "serf", "skipped": "needs serf (Debian: apt-get install serf)"}))
        options.systems.remove("serf")
    effort = SHORT if options.short else FULL
    if options.trials:
        effort = Effort(**{**vars(effort), "trials": options.trials})
    # Daemons that have to compile themselves at every start take more memory and time than any in the field.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for package in (fedd, *map(import_module, PLUGINS)):
        compileall.compile_dir(str(Path(package.__file__ or "").parent), quiet=2)
    versions = {"python": sys.version, "serf": serf_version()}
    print(json.dumps({"load": os.getloadavg(), "processors": os.cpu_count(), **versions}))
    report = Report()
    for nodes in sorted(options.nodes):
        smallest = nodes == min(options.nodes)
        measure(nodes, options.systems, options.only, effort, report, smallest)
    return 0 if report.judge() else 1


def serf_version() -> str | None:
    """As its package manager calls it; the program itself only says 0.8.2-dev."""
    if shutil.which("dpkg-query") is None:
        return None
    asked = subprocess.run(["dpkg-query", "-Wf", "${Version}", "serf"], capture_output=True, text=True)
    return asked.stdout or None


if __name__ == "__main__":
    sys.exit(main())
