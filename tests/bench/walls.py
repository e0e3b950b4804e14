"""What it costs a process of plugins to wall itself off: `python tests/bench/walls.py [--state DIRECTORY]`.

Prints JSON lines: milliseconds of `wall_off` in fresh processes, by the clock and by the processor, median
and largest, and how many Landlock rules there are for what stands beside the state directory. That is made
when missing, and removed again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys

CHILD = """
import json, sys, time
from fedd.worker import confinement, landlock
confinement.confine()
walls = confinement.Walls(hidden=(sys.argv[1],), own=sys.argv[2])
rules = sum(1 for each in confinement._grants(walls) for _ in landlock.openings(each.path, each.hidden))
wall, cpu = time.perf_counter(), time.process_time()
done = confinement.wall_off(walls)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps([wall * 1e3, cpu * 1e3, rules, done.landlock, done.seccomp]))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", default="/var/lib/fedd-walls", help="the state directory that is hidden")
    parser.add_argument("--processes", type=int, default=20)
    options = parser.parse_args()
    own = os.path.join(options.state, "scratch")
    made = not os.path.exists(options.state)
    os.makedirs(own, exist_ok=True)
    try:
        command = [sys.executable, "-I", "-c", CHILD, options.state, own]
        seen = [json.loads(subprocess.check_output(command)) for _ in range(options.processes)]
    finally:
        if made:
            with contextlib.suppress(OSError):
                os.rmdir(own)
                os.rmdir(options.state)
    for name, column in (("wall_ms", 0), ("cpu_ms", 1)):
        values = [each[column] for each in seen]
        line = {"what": "walls", "unit": name, "p50": round(statistics.median(values), 3)}
        print(json.dumps({**line, "max": round(max(values), 3), "rules": seen[0][2], "landlock": seen[0][3]}))


if __name__ == "__main__":
    main()
