"""fedd with a wall clock that is wrong: by as many seconds as a file holds at that moment.

    python tests/federation/clock.py OFFSET_FILE [options of fedd]

The file may change while the daemon runs: its clock is then set, forward or back. The monotonic clock, which
no kernel sets, stays right.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from pathlib import Path


def set_clock(offset: Path, seconds: float) -> None:
    """Let the clock be so wrong from now on: at once, since a daemon may look at the file at any moment."""
    new = offset.with_suffix(".new")
    new.write_text(str(seconds))
    os.replace(new, offset)


def main() -> None:
    """Put the wrong clock in place and become fedd."""
    offset = Path(sys.argv.pop(1))
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + float(offset.read_text())
    time.time_ns = lambda: right_ns() + int(float(offset.read_text()) * 1e9)
    runpy.run_module("fedd", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
