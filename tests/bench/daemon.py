"""The daemon by itself: memory when idle with five peers, `fedctl status`, time to readiness.

    python tests/bench/daemon.py [--repeat 10]

Prints one JSON document for each figure, with its target; exits 1 when one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from federation.daemons import BIN, Daemon, federation
from processes import children_of, rss_bytes

SETTLE_S = 10.0  # the plugins' inspector has ended by then, and its memory is given back


def idle_mib(peers: int) -> float:
    """Resident size of the largest of `peers + 1` daemons that have joined and do nothing."""
    with federation(peers + 1) as fed:
        time.sleep(SETTLE_S)
        for daemon in fed:
            if children_of(daemon.pid):
                raise RuntimeError(f"{daemon.name} has children though it is idle")
        return max(rss_bytes(daemon.pid) for daemon in fed) / 2**20


def status_s(repeat: int) -> tuple[float, float]:
    """Wall time of one `fedctl status` from exec to exit, and its processor time: medians."""
    with federation(1) as fed:
        command = [str(BIN / "fedctl"), "--socket", str(fed[0].socket), "--json", "status"]
        wall, cpu = [], []
        for _ in range(repeat):
            before = os.times()
            started = time.monotonic()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            wall.append(time.monotonic() - started)
            after = os.times()
            cpu.append(after.children_user + after.children_system)
            cpu[-1] -= before.children_user + before.children_system
        return statistics.median(wall), statistics.median(cpu)


def ready_s(repeat: int) -> float:
    """Time from exec of a daemon that has a key to its READY=1: the median."""
    times = []
    with tempfile.TemporaryDirectory(prefix="fedd-") as folder:
        for attempt in range(repeat + 1):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                address = str(Path(folder) / f"notify{attempt}")
                notify.bind(address)
                notify.settimeout(10)
                daemon = Daemon(Path(folder), "a")
                os.environ["NOTIFY_SOCKET"] = address
                started = time.monotonic()
                try:
                    daemon.start()
                    while b"READY=1" not in notify.recv(4096):
                        pass
                    times.append(time.monotonic() - started)
                finally:
                    del os.environ["NOTIFY_SOCKET"]
                    daemon.destroy()
    return statistics.median(times[1:])  # the first one has made the key


def main() -> int:
    """Entry point; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeat", type=int, default=10, help="of which the median counts")
    repeat = parser.parse_args().repeat
    wall, cpu = status_s(repeat)
    figures = [
        ("fedctl status, wall", wall * 1000, 100.0, "ms"),
        ("fedctl status, processor", cpu * 1000, 60.0, "ms"),
        ("ready after exec", ready_s(repeat) * 1000, 500.0, "ms"),
        ("idle with five peers, resident", idle_mib(5), 42.0, "MiB"),
    ]
    for name, value, target, unit in figures:
        print(json.dumps({"figure": name, "value": round(value, 2), "target": target, "unit": unit}))
    return 0 if all(value <= target for _, value, target, _ in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
