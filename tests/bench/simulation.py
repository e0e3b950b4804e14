"""The processor time that a whole history of simulated members takes, on one core.

    python tests/bench/simulation.py [--nodes 100 300 1000] [--not-dialable 0.7] [--seed 1] [--brief]

Prints one JSON line for each size: the seconds of processor time in all and of each chapter, and for the
thousand whether the target is met; exits with 1 when it is not. `--brief` runs no more than the target names,
joins, mass death, partition and healing; the whole history has quiet times and single deaths beside. What
happened in the history, and what must have, is the business of tests/core/test_simulator.py. Measure on a
machine at rest: a thousand databases fit no cache, and other programs take from it what there is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
# A thousand nodes, of which 70 % cannot be dialled, with joins, mass death, partition and healing.
TARGET_NODES, TARGET_S = 1000, 60.0
# Many times what it takes on a busy machine: only to end what hangs.
AT_MOST_S = 3600.0


def measure(nodes: int, not_dialable: float, seed: int, *, brief: bool) -> dict[str, Any]:
    """Run one history in a process of its own."""
    options = ["--nodes", str(nodes), "--not-dialable", str(not_dialable), "--seed", str(seed)]
    options += ["--brief"] if brief else []
    done = subprocess.run(
        [sys.executable, "-m", "core.simulated_history", *options],
        cwd=TESTS,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=AT_MOST_S,
        check=True,
    )
    told = json.loads(done.stdout)
    return {
        "case": "simulation",
        "history": "brief" if brief else "whole",
        "nodes": nodes,
        "not_dialable": told["not_dialable"],
        "seed": seed,
        "cpu_s": told["cpu_s"],
        "wall_s": told["wall_s"],
        "simulated_s": told["simulated_s"],
        "events": told["events"],
        "chapters_cpu_s": {name: part["cpu_s"] for name, part in told.items() if isinstance(part, dict)},
        **({"target_s": TARGET_S, "met": told["cpu_s"] <= TARGET_S} if nodes == TARGET_NODES else {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--not-dialable", type=float, default=0.7, help="share of nodes behind a NAT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--brief", action="store_true", help="joins, mass death, partition, healing only")
    options = parser.parse_args()
    met = True
    for nodes in options.nodes:
        line = measure(nodes, options.not_dialable, options.seed, brief=options.brief)
        print(json.dumps(line), flush=True)
        met = met and line.get("met", True)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
