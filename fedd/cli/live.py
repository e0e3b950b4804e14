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

# As many values as fit beside their label on a narrow terminal.
HISTORY = 48

# Metrics with a line of their own; a terminal has 24 lines, and `fedctl export` draws all.
MAX_CURVES = 6

_LABEL_CHARS = 10


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
        self._curves: dict[str, deque[float]] = {}

    def add(self, progress: Mapping[str, Any]) -> None:
        """Take in a `progress` item."""
        new_round = progress.get("round") != self._latest.get("round")
        self._latest = progress
        if not new_round:
            return
        for name, value in _metrics(progress).items():
            middle = _middle(value)
            if middle is not None and (name in self._curves or len(self._curves) < MAX_CURVES):
                self._curves.setdefault(name, deque(maxlen=HISTORY)).append(middle)

    def _each(self, values: Mapping[str, Any]) -> str:
        """A metric of every member, by name."""
        return "  ".join(
            f"{self._names.get(peer) or short(peer)} {number(value)}" for peer, value in values.items()
        )

    def draw(self) -> Group:
        """Round, curves, members, and the metrics without a curve."""
        latest = self._latest
        if not latest:
            return Group(Text("waiting for the first round", style="dim"))
        epoch = latest.get("epoch") or 1
        again = f"  epoch {epoch}" if epoch > 1 else ""
        lines = [Text.assemble(("round     ", "dim"), str(latest.get("round", 0)), again)]
        metrics = _metrics(latest)
        for name, values in self._curves.items():
            if len(values) > 1 or name == "residual":
                value = metrics.pop(name, values[-1])
                label = escape(name).ljust(_LABEL_CHARS)
                lines.append(
                    Text.assemble(
                        (label, "dim"), f"{_short(value, values[-1])} ", (sparkline(values), "cyan")
                    )
                )
                if isinstance(value, Mapping):
                    lines.append(Text(" " * _LABEL_CHARS + escape(self._each(value))))
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
        if metrics:
            shown = "  ".join(
                f"{name} {self._each(value) if isinstance(value, Mapping) else number(value)}"
                for name, value in metrics.items()
            )
            lines.append(Text.assemble(("metrics   ", "dim"), escape(shown)))
        return Group(*lines)


def _metrics(progress: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown, the residual first."""
    metrics = {name: value for name, value in (progress.get("metrics") or {}).items() if name != "residual"}
    residual = progress.get("residual")
    return {"residual": residual, **metrics} if isinstance(residual, int | float) else metrics


def _middle(value: Any) -> float | None:
    """A number, the mean of a map of numbers, None for what has no curve."""
    if isinstance(value, Mapping):
        numbers = [float(one) for one in value.values() if isinstance(one, int | float)]
        return sum(numbers) / len(numbers) if numbers else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _short(value: Any, middle: float) -> str:
    """The newest value beside its curve, in nine columns; of a map the mean."""
    if isinstance(value, Mapping) or 1e-3 < abs(middle) < 1e5:
        return f"{middle:<9.4g}"
    return f"{middle:<9.2e}"


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
