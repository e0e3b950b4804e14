"""How fedctl prints: aligned text for people, one JSON document (or one a line) for scripts."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MANY_NUMBERS = 64
"""A matrix with more of them is named by its shape."""

PEER_ID_CHARS = 16
"""How much of a peer id tables show: the first 8 characters of Ed25519 ids are all the same."""


class Output:
    """Standard output in one of two languages."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def live(self) -> bool:
        """Whether somebody watches: a terminal, and no script's JSON."""
        return not self.as_json and sys.stdout.isatty()

    def document(self, document: Any) -> None:
        """Print one JSON document; the whole answer of a command under `--json`."""
        sys.stdout.write(json.dumps(document) + "\n")

    def item(self, item: Any) -> None:
        """Print one JSON document of a stream, at once."""
        sys.stdout.write(json.dumps(item) + "\n")
        sys.stdout.flush()

    def line(self, text: str = "") -> None:
        """Print a line for people, at once."""
        sys.stdout.write(escape(text) + "\n")
        sys.stdout.flush()

    def pairs(self, rows: Iterable[tuple[str, str]]) -> None:
        """Print `name  value` lines, aligned."""
        rows = list(rows)
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            self.line(f"{name.ljust(width)}  {value}".rstrip())

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table with aligned columns."""
        for line in table_lines(headings, rows):
            self.line(line)


def table_lines(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table with aligned columns."""
    lines = [headings, *([escape(cell) for cell in row] for row in rows)]
    widths = [max(columns(line[column]) for line in lines) for column in range(len(headings))]
    return [
        "  ".join(
            cell + " " * (width - columns(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]


def columns(text: str) -> int:
    """How many columns of a terminal `text` takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width  # here, because hardly any name needs it

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def escape(text: str) -> str:
    """`text` without control characters: names and reasons come from peers, and a terminal obeys."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def short(peer_id: str) -> str:
    """A peer id short enough for a table and long enough to be typed back."""
    return peer_id[:PEER_ID_CHARS]


def say(out: Output, reply: Mapping[str, Any], text: str) -> int:
    """Print a reply: the document, or for people `text` with the reply's fields in it. The exit code, 0."""
    if out.as_json:
        out.document(reply)
    else:
        out.line(text.format_map(reply))
    return 0


def seconds(value: float | None) -> str:
    """A duration in seconds, in the unit that people would choose."""
    if value is None:
        return "-"
    if value < 120:
        return f"{value:.3g} s" if value < 10 else f"{value:.0f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.0f} h" if value < 172_800 else f"{value / 86_400:.0f} d"


def count_bytes(value: float) -> str:
    """A number of bytes in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def number(value: Any) -> str:
    """A number in few digits, `-` for none."""
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def counted(count: int, noun: str) -> str:
    """`1 round`, `2 rounds`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def value_text(value: Any, limit_chars: int = 2000) -> str:
    """A run's value for people: JSON, with large arrays named by their shapes, cut when it is long."""
    if isinstance(value, Mapping) and {"shape", "dtype", "sha256"} <= value.keys():
        return f"array {value['shape']} {value['dtype']}, sha256 {str(value['sha256'])[:16]}"
    text = _brief(value)
    return text if len(text) <= limit_chars else f"{text[:limit_chars]}... (--json prints all)"


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        if {"shape", "dtype", "sha256"} <= value.keys():
            return f"({' x '.join(map(str, value['shape']))} numbers)"
        return "{" + ", ".join(f"{json.dumps(key)}: {_brief(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        shape = _shape(value)
        if shape is not None and len(shape) > 1 and math.prod(shape) > MANY_NUMBERS:
            return f"({' x '.join(map(str, shape))} numbers)"
        if shape is None:
            return "[" + ", ".join(map(_brief, value)) + "]"
    return json.dumps(value)


def _shape(value: Any) -> tuple[int, ...] | None:
    """Of nested lists of numbers; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return ()
    if not isinstance(value, list):
        return None
    shapes = {_shape(part) for part in value}
    if len(shapes) > 1:
        return None
    inner = shapes.pop() if shapes else ()
    return None if inner is None else (len(value), *inner)
