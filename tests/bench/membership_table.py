"""The Markdown table of docs/explanation/membership-measured.md, from what the benchmark printed.

python tests/bench/membership.py > measured.jsonl; python tests/bench/membership_table.py measured.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Figures = dict[str, Any]


def seconds(path: str) -> Callable[[Figures], str]:
    """A duration by its name, or by the names of the maps above it."""

    def text(figures: Figures) -> str:
        value: Any = figures
        for name in path.split("."):
            value = value[name]
        if value is None:
            return "never"
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"

    return text


def of(first: str, second: str) -> Callable[[Figures], str]:
    """One count out of another."""
    return lambda figures: f"{figures[first]} of {figures[second]}"


def plain(name: str, unit: str = "") -> Callable[[Figures], str]:
    """A number and its unit."""
    return lambda figures: f"{figures[name]:g}{unit}"


ROWS: tuple[tuple[str, str, Callable[[Figures], str]], ...] = (
    ("`kill -9`: every survivor says dead, p50", "kill", seconds("p50_s")),
    ("Silent death, p50", "silence", seconds("p50_s")),
    ("Pauses of 5 s: verdicts `dead`", "pause", plain("called_dead")),
    ("Pauses of 8 s, the control: dead to all", "control", of("dead_to_all", "trials")),
    ("Frozen for 3, 8, 30 s: changes of others", "freeze", plain("others_changed")),
    (
        "... full views after waking",
        "freeze",
        lambda f: ", ".join("never" if s is None else f"{s * 1000:.0f} ms" for s in f["full_view_s"]),
    ),
    ("20 % loss: verdicts `dead`", "loss", lambda f: f"{f['called_dead']} in {f['seconds']:g} s"),
    ("256 bytes to all, p50", "broadcast", seconds("p50_s")),
    ("... each acknowledged by all, p50", "broadcast", seconds("confirmed_p50_s")),
    ("... delivered to all", "broadcast", of("reached_all", "burst")),
    ("All join at once: all see all, p50", "join", seconds("p50_s")),
    ("`leave` seen by all, p50", "leave", seconds("p50_s")),
    ("... as something else", "leave", of("seen_as_dead", "trials")),
    ("Halves parted: all say so", "partition", seconds("detected.p50_s")),
    ("... healed after the cut", "partition", seconds("healed.p50_s")),
    ("Idle: sent by a node", "idle", plain("bytes_per_s", " B/s")),
    ("... over a link", "idle", lambda f: f"{f['bytes_per_s_a_link']:g} B/s"),
    ("Idle: processor", "idle", plain("cpu_percent", " %")),
    ("Resident memory", "idle", plain("rss_mib", " MiB")),
    ("Wall clock off by a year: changes", "clock", plain("changes")),
)


def main() -> int:
    """Print the table."""
    lines = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    found = {(line["case"], line["nodes"], line["system"]): line for line in lines if "system" in line}
    sizes = sorted({nodes for _, nodes, _ in found})
    columns = [(system, nodes) for nodes in sizes for system in ("fedd", "serf")]
    print("| | " + " | ".join(f"{system}, N={nodes}" for system, nodes in columns) + " |")
    print("|---|" + "---|" * len(columns))
    for title, case, text in ROWS:
        cells = []
        for system, nodes in columns:
            try:
                cells.append(text(found[case, nodes, system]))
            except KeyError:  # not measured, or not a thing of that system
                cells.append("")
        if any(cells):
            print(f"| {title} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
