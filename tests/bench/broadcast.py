"""How long a broadcast takes to all members, and whether all come: processes on loopback.

    python tests/bench/broadcast.py [--nodes 10] [--trials 100] [--burst 1000]

One JSON line a case: `size` bytes to `nodes` members, each trial by itself (p50, p99 and worst of the time
until the last member has delivered it), then a burst as fast as one member may publish, all of which must
come to everybody in order. Exits 1 when one does not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SETTLE_S = 5.0
FORM_S = 60.0
ARRIVE_S = 60.0
SIZES = ((256, 0.05), (1024, 0.05), (16_384, 0.2), (65_536, 0.6))
"""Bytes, and the pause after each: large ones stay below the allowance of one member."""


class Member:
    """One process of broadcast_node.py."""

    def __init__(self, number: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "broadcast_node.py"), f"n{number}", str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, **command: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, **command: object) -> Any:
        self.tell(**command)
        return self.answer()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


@contextmanager
def federation(count: int) -> Iterator[list[Member]]:
    """`count` members that all see each other."""
    members = [Member(number + 1) for number in range(count)]
    try:
        for member in members:
            member.answer()
        token = members[0].ask(init=count)
        for member in members[1:]:
            member.ask(join=token)
        end = time.monotonic() + FORM_S
        while any(member.ask(members=None) < count for member in members):
            if time.monotonic() > end:
                raise RuntimeError(f"{count} members did not find together within {FORM_S:g} s")
            time.sleep(0.1)
        time.sleep(SETTLE_S)
        yield members
    finally:
        for member in members:
            member.end()


def to_all(members: list[Member], count: int, size: int, gap_s: float) -> tuple[list[float], dict[str, Any]]:
    """Times in seconds until the last had each of `count` broadcasts, and what came."""
    before = [member.ask(times=None)["cpu_s"] for member in members]
    took_s = members[-1].ask(publish=[count, size, gap_s])
    end = time.monotonic() + ARRIVE_S
    reports: list[dict[str, Any]] = [{"heard": [], "gaps": 0, "cpu_s": 0.0} for _ in members]
    while any(len(report["heard"]) + report["gaps"] < count for report in reports) and time.monotonic() < end:
        time.sleep(0.5)
        for member, report in zip(members, reports, strict=True):
            new = member.ask(times=None)
            report.update(new, heard=report["heard"] + new["heard"])
    seqs = [[seq for seq, _ in report["heard"]] for report in reports]
    whole = all(each == seqs[-1] and len(each) == count for each in seqs)
    times = [
        max(each) for each in zip(*([s for _, s in report["heard"]] for report in reports), strict=whole)
    ]
    cpu = [report["cpu_s"] - start for report, start in zip(reports, before, strict=True)]
    return times, {
        "published": count,
        "took_s": round(took_s, 3),
        "all_in_order": whole,
        "gaps": sum(report["gaps"] for report in reports),
        "cpu_ms_a_member_each": round(1000 * statistics.mean(cpu) / count, 3),
    }


def line(case: str, members: int, size: int, times: list[float], rest: dict[str, Any]) -> dict[str, Any]:
    ordered = sorted(times)
    return {
        "case": case,
        "members": members,
        "bytes": size,
        "p50_ms": round(1000 * statistics.median(ordered), 2),
        "p99_ms": round(1000 * ordered[int(len(ordered) * 0.99)], 2),
        "worst_ms": round(1000 * ordered[-1], 2),
        **rest,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--burst", type=int, default=1000)
    options = parser.parse_args()
    missed = False
    with federation(options.nodes) as members:
        for size, gap_s in SIZES:
            found = line("one", options.nodes, size, *to_all(members, options.trials, size, gap_s))
            print(json.dumps(found), flush=True)
            missed |= not found["all_in_order"]
        found = line("burst", options.nodes, 256, *to_all(members, options.burst, 256, 0.0))
        print(json.dumps(found), flush=True)
        missed |= not found["all_in_order"]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
