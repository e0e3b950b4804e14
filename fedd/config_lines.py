"""Where a key stands in a TOML file, so that an error can name the line."""

from __future__ import annotations

import re


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """{path of a key or table: line}, counted from 1, of a TOML document that `tomllib` accepts.

    The standard parser keeps no positions. This one only looks for headers and keys, and skips
    what strings and brackets enclose; arrays of tables share one path.
    """
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    depth, quote = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not depth and not quote:
            if header := _HEADER.match(line):
                table = _split_key(header[1])
                found.setdefault(table, number)
                continue
            if key := _ASSIGNMENT.match(line):
                path = table + _split_key(key[1])
                for end in range(len(table) + 1, len(path) + 1):
                    found.setdefault(path[:end], number)
                line = line[key.end() :]
        depth, quote = _scan(line, depth, quote)
    return found


_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_DOTTED})\s*\]\]?")
_ASSIGNMENT = re.compile(rf"\s*({_DOTTED})\s*=")
_MARK = re.compile(r"\"\"\"|'''|\"(?:[^\"\\]|\\.)*\"|'[^']*'|[\[\]{}#]|\\.")


def _split_key(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_PART, dotted))


def _scan(line: str, depth: int, quote: str) -> tuple[int, str]:
    """Bracket depth and open multi-line quote at the end of `line`."""
    for mark in _MARK.findall(line):
        if quote:
            quote = "" if mark == quote else quote
        elif mark in ('"""', "'''"):
            quote = mark
        elif mark == "#":
            break
        elif mark in "[{":
            depth += 1
        elif mark in "]}":
            depth -= 1
    return depth, quote
