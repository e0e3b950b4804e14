"""A run as it goes, on a terminal: round, residual with its history, members in and out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from fedd.cli.show import escape, number, short

BARS = " ▁▂▃▄▅▆▇█"

# As many residuals as fit beside their label on a narrow terminal.
HISTORY = 48


def follow(
    items: Iterable[dict[str, Any]], names: Mapping[str, str], console: Console | None = None
) -> dict[str, Any]:
    """Draw each `progress` item over the last; returns the result without its kind, empty when none came.

    `names` maps peer ids to names.
    """
    picture = Picture(names)
    result: dict[str, Any] = {}
    with Live(picture.draw(), console=console or Console(), refresh_per_second=8, transient=True) as live:
        for item in items:
            if item.get("kind") == "result":
                result = {name: value for name, value in item.items() if name != "kind"}
            elif item.get("kind") == "progress":
                picture.add(item)
                live.update(picture.draw())
    return result


def redraw(pictures: Iterable[Sequence[str]], console: Console | None = None) -> None:
    """Draw each list of lines over the last, cut to the terminal; the last one stays."""
    with Live(console=console or Console(), auto_refresh=False, vertical_overflow="ellipsis") as live:
        for lines in pictures:
            drawn = Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
            # The cursor rests on an empty line, where the ^C that a terminal echoes cannot wrap.
            live.update(Group(drawn, Text()), refresh=True)


class Picture:
    """What is known of the run so far."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._latest: Mapping[str, Any] = {}
        self._residuals: deque[float] = deque(maxlen=HISTORY)

    def add(self, progress: Mapping[str, Any]) -> None:
        """Take in a `progress` item."""
        new_round = progress.get("round") != self._latest.get("round")
        self._latest = progress
        residual = progress.get("residual")
        if new_round and isinstance(residual, int | float):
            self._residuals.append(float(residual))

    def draw(self) -> Group:
        """Up to four lines."""
        latest = self._latest
        if not latest:
            return Group(Text("waiting for the first round", style="dim"))
        epoch = latest.get("epoch") or 1
        again = f"  epoch {epoch}" if epoch > 1 else ""
        lines = [Text.assemble(("round     ", "dim"), str(latest.get("round", 0)), again)]
        if self._residuals:
            lines.append(
                Text.assemble(
                    ("residual  ", "dim"),
                    f"{self._residuals[-1]:<9.2e} ",
                    (sparkline(self._residuals), "cyan"),
                )
            )
        members = latest.get("members") or 0
        count = members if isinstance(members, int) else len(members)
        who = Text.assemble(("members   ", "dim"), (f"{count} in", "green"))
        for dropped in latest.get("dropped") or ():
            name = self._names.get(dropped["peer_id"]) or short(dropped["peer_id"])
            who.append(escape(f"  out: {name} in round {dropped['round']} ({dropped['reason']})"), "red")
        for joined in latest.get("joined") or ():
            name = self._names.get(joined["peer_id"]) or short(joined["peer_id"])
            who.append(escape(f"  joined: {name} in round {joined['round']}"), "green")
        lines.append(who)
        metrics = {k: v for k, v in (latest.get("metrics") or {}).items() if k != "residual"}
        if metrics:
            shown = "  ".join(f"{name} {number(value)}" for name, value in metrics.items())
            lines.append(Text.assemble(("metrics   ", "dim"), escape(shown)))
        return Group(*lines)


def sparkline(values: Iterable[float]) -> str:
    """One bar a value on a logarithmic scale from the smallest positive to the largest; zero is a blank."""
    values = list(values)
    logs = [math.log10(value) for value in values if value > 0 and math.isfinite(value)]
    if not logs:
        return BARS[0] * len(values)
    low, high = min(logs), max(logs)
    span = high - low or 1.0
    bars = []
    for value in values:
        if value <= 0:
            bars.append(BARS[0])
        elif not math.isfinite(value):
            bars.append(BARS[-1])
        else:
            bars.append(BARS[1 + round((math.log10(value) - low) / span * (len(BARS) - 2))])
    return "".join(bars)
