"""The curves of a run as an .svg: a panel a metric, a line a node."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.sax.saxutils import escape

WIDTH: Final = 900
PANEL_HEIGHT: Final = 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 170, 34, 36
_COLOURS: Final = (
    "#4269d0",
    "#efb118",
    "#ff725c",
    "#6cc5b0",
    "#3ca951",
    "#ff8ab7",
    "#a463f2",
    "#97bbf5",
    "#9c6b4e",
    "#9498a0",
)

MAX_POINTS: Final = 2000
"""Of a line: more than its pixels; beyond it every n-th is drawn, and the last."""

LOG_RATIO: Final = 20.0
"""Values that are all positive and span more than this are drawn on a logarithmic scale."""

_MAX_LEGEND: Final = 12


@dataclass(frozen=True)
class Line:
    """One node's curve of one metric."""

    label: str
    points: list[tuple[float, float]]


def panels(nodes: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, list[Line]]:
    """metric -> its lines, in the order of the nodes.

    A metric that every node reports of every member (`accuracy.PEER`) is one panel with one line a member,
    as that member itself reported it, if it did.
    """
    found: dict[str, list[Line]] = {}
    reporters = {node["peer_id"] for node in nodes}
    drawn: set[tuple[str, str]] = set()
    for node in nodes:
        for name, values in node["series"].items():
            metric, _, member = name.partition(".")
            if member in names:
                foreign = member != node["peer_id"]
                if (foreign and member in reporters) or (metric, member) in drawn:
                    continue
                drawn.add((metric, member))
                label = names[member]
            else:
                metric, label = name, node["name"]
            points = [(r, v) for r, v in zip(node["rounds"], values, strict=True) if v is not None]
            if points:
                found.setdefault(metric, []).append(Line(label, points))
    return found


def draw(title: str, found: Mapping[str, Sequence[Line]]) -> str:
    """The picture as text."""
    height = 40 + PANEL_HEIGHT * max(1, len(found))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="20" y="26" font-size="15">{escape(title)}</text>',
    ]
    if not found:
        parts.append('<text x="20" y="80">no member reported a number</text>')
    for index, (metric, lines) in enumerate(found.items()):
        parts.append(f'<g transform="translate(0 {40 + PANEL_HEIGHT * index})">')
        parts.extend(_panel(metric, lines))
        parts.append("</g>")
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _panel(metric: str, lines: Sequence[Line]) -> Iterator[str]:
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    log = min(ys) > 0 and max(ys) / min(ys) > LOG_RATIO
    right, bottom = WIDTH - _RIGHT, PANEL_HEIGHT - _BOTTOM
    across = _Scale(min(xs), max(xs), _LEFT, right)
    up = _Scale(*((math.log10(min(ys)), math.log10(max(ys))) if log else (min(ys), max(ys))), bottom, _TOP)
    heading = f"{metric}, log scale" if log else metric
    yield f'<text x="{_LEFT}" y="{_TOP - 12}" font-weight="bold">{escape(heading)}</text>'
    for tick in _log_ticks(up) if log else _ticks(up.low, up.high):
        y = up.at(tick)
        label = f"1e{tick:g}" if log else f"{tick:.4g}"
        yield f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    for tick in _ticks(across.low, across.high):
        x = across.at(tick)
        yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:.6g}</text>'
    yield f'<text x="{right}" y="{bottom + 32}" text-anchor="end" fill="#666">exchanges</text>'
    for index, line in enumerate(lines):
        colour = _COLOURS[index % len(_COLOURS)]
        path = " ".join(
            f"{across.at(x):.1f},{up.at(math.log10(y) if log else y):.1f}" for x, y in _thinned(line.points)
        )
        if len(line.points) == 1:
            left, _, top = path.partition(",")
            yield f'<circle cx="{left}" cy="{top}" r="3" fill="{colour}"/>'
        else:
            yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        if index < _MAX_LEGEND:
            y_legend = _TOP + 4 + 16 * index
            yield f'<rect x="{right + 14}" y="{y_legend - 8}" width="10" height="10" fill="{colour}"/>'
            yield f'<text x="{right + 30}" y="{y_legend + 1}">{escape(line.label)}</text>'
    if len(lines) > _MAX_LEGEND:
        y_legend = _TOP + 4 + 16 * _MAX_LEGEND
        yield f'<text x="{right + 14}" y="{y_legend}">and {len(lines) - _MAX_LEGEND} more</text>'


class _Scale:
    """Numbers on an axis, as pixels."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        margin = 0.5 * abs(low) or 0.5 if low == high else 0.0
        self.low, self.high = low - margin, high + margin
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        """The pixel of a number."""
        return self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start)


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers between."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 8)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def _log_ticks(scale: _Scale) -> list[float]:
    """Powers of ten, as exponents: at most nine."""
    first, last = math.ceil(scale.low), math.floor(scale.high)
    return [float(n) for n in range(first, last + 1, max(1, (last - first) // 8 + 1))]


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    every = -(-len(points) // MAX_POINTS)
    return points if every <= 1 else [*points[::every], points[-1]]
