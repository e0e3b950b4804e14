"""What Linux tells about the machine in /proc and /sys; None for what it does not."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fedd.api import Message

ROOT = Path("/")


def facts(root: Path = ROOT) -> dict[str, Message]:
    """The facts, units in their names. `root` is where proc(5) and sysfs(5) are looked for, as `/`."""
    memory = read_memory(root / "proc" / "meminfo")
    disk = os.statvfs(root)
    return {
        "hostname": platform.node(),
        "system": read_system(root / "etc" / "os-release"),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "clock_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "uptime_s": first_number(root / "proc" / "uptime"),
        "load_1m": first_number(root / "proc" / "loadavg"),
        "memory_bytes": memory.get("MemTotal"),
        "memory_free_bytes": memory.get("MemAvailable"),
        "disk_bytes": disk.f_blocks * disk.f_frsize,
        "disk_free_bytes": disk.f_bavail * disk.f_frsize,
        "temperature_c": read_temperature(root / "sys" / "class" / "thermal"),
        "python": platform.python_version(),
        "fedd": installed("fedd"),
    }


def read_memory(meminfo: Path) -> Mapping[str, int]:
    """proc_meminfo(5) in bytes: its lines are `MemTotal:  16307196 kB`."""
    found: dict[str, int] = {}
    for line in read(meminfo).splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[0].isdecimal() and words[1] == "kB":
            found[name] = int(words[0]) * 1024
    return found


def read_system(os_release: Path) -> str | None:
    """The name that os-release(5) gives the system, such as `Debian GNU/Linux 12 (bookworm)`."""
    for line in read(os_release).splitlines():
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip().strip('"')
    return None


def read_temperature(zones: Path) -> float | None:
    """The hottest thermal zone in degrees Celsius (sysfs-class-thermal: `temp` in thousandths)."""
    values = [first_number(zone / "temp") for zone in sorted(zones.glob("thermal_zone*"))]
    known = [value / 1000 for value in values if value is not None]
    return max(known, default=None)


def first_number(path: Path) -> float | None:
    """The number that a file begins with."""
    words = read(path).split(maxsplit=1)
    try:
        return float(words[0]) if words else None
    except ValueError:
        return None


def installed(distribution: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def read(path: Path) -> str:
    """A file's text, empty when it cannot be read."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
