"""What the demo shows: plain lines where there is no terminal, a moving picture where there is one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"

_COLOURS = {"alive": "green", "dead": "red", "suspect": "yellow", "starting": "dim"}


@dataclass
class MemberRow:
    """One line of the members' table."""

    name: str
    rows: int
    alone_r2: float | None = None
    alone: str = ""
    """What it can do alone, if that is no R2."""
    state: str = "starting"
    note: str = ""


@dataclass
class Trace:
    """How a run went so far: rounds, and the residuals that were reported."""

    title: str
    round: int = 0
    members: int = 0
    residuals: list[float] = field(default_factory=list)

    def add(self, item: Mapping[str, Any]) -> None:
        """Take in one progress item of a watched run."""
        self.round = max(self.round, int(item.get("round") or 0))
        members = item.get("members")
        self.members = len(members) if isinstance(members, list) else int(members or self.members)
        residual = item.get("residual")
        if residual is not None and math.isfinite(residual):
            self.residuals.append(float(residual))


def sparkline(values: Sequence[float], width: int = 32) -> str:
    """Draw values over time on a logarithmic scale, the largest full height; zeros lie on the ground."""
    if not values:
        return ""
    step = max(1, math.ceil(len(values) / width))
    shown = [max(values[i : i + step]) for i in range(0, len(values), step)]
    logs = [math.log10(value) if value > 0 else -math.inf for value in shown]
    finite = [value for value in logs if value > -math.inf]
    if not finite:
        return BARS[0] * len(shown)
    low, high = min(finite), max(finite)
    span = (high - low) or 1.0
    return "".join(BARS[round((max(value, low) - low) / span * (len(BARS) - 1))] for value in logs)


class Picture:
    """Shows the members and the present run. With `quiet` it shows nothing at all."""

    def __init__(self, quiet: bool) -> None:
        self._console = Console(quiet=quiet, highlight=False)
        self.rows: list[MemberRow] = []

    @property
    def moves(self) -> bool:
        """Whether there is a terminal to draw on."""
        return self._console.is_terminal and not self._console.quiet

    def say(self, text: str, style: str = "") -> None:
        """Print one line."""
        self._console.print(Text(text, style=style), soft_wrap=True)

    def members(self) -> None:
        """Print the members' table."""
        self._console.print(self._table())

    @contextmanager
    def run(self, title: str) -> Iterator[Trace]:
        """Follow a run: the trace that the block fills is drawn while it lasts, and summed up after."""
        trace = Trace(title)
        if not self.moves:
            yield trace
        else:
            with Live(console=self._console, refresh_per_second=12, transient=True) as live:
                live.update(_Frame(self, trace))
                yield trace
        line = "  1 round" if trace.round == 1 else f"  {trace.round} rounds"
        if trace.residuals:
            line += f"   residual {sparkline(trace.residuals)} {trace.residuals[-1]:.0e}"
        self.say(line, "dim")

    def _table(self) -> RichTable:
        table = RichTable(box=None, pad_edge=True, header_style="bold")
        for heading, justify in (
            ("member", "left"),
            ("rows", "right"),
            ("alone", "right"),
            ("state", "left"),
        ):
            table.add_column(heading, justify="right" if justify == "right" else "left")
        table.add_column("")
        for row in self.rows:
            alone = row.alone if row.alone_r2 is None else f"R2 {row.alone_r2:.3f}"
            state = Text(row.state, style=_COLOURS.get(row.state, ""))
            table.add_row(row.name, str(row.rows), alone, state, row.note)
        return table


class _Frame:
    """What the terminal shows while a run lasts, drawn anew from the trace at every refresh."""

    def __init__(self, picture: Picture, trace: Trace) -> None:
        self._picture, self._trace = picture, trace

    def __rich__(self) -> Group:
        trace = self._trace
        line = f"{trace.title}: round {trace.round}, {trace.members} members"
        if trace.residuals:
            line += f", residual {trace.residuals[-1]:.1e}"
        return Group(
            self._picture._table(),
            Text(""),
            Text(line, style="bold"),
            Text(sparkline(trace.residuals), "cyan"),
        )
