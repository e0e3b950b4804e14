"""The history of a run's metrics on one node: what was reported, round by round, in bounded memory."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from fedd.api.errors import InvalidMessage, ProtocolError
from fedd.core import codec

MAX_VALUES: Final = 262_144
"""2 MiB of float64: 65,536 rounds of four metrics. Beyond it every second row goes, as often as it takes."""

MAX_SERIES: Final = 512
"""Metrics with a curve of their own: accuracy and loss of 250 members."""

MAX_ROWS: Final = 65_536
"""However few the metrics: a plot has some thousand pixels."""

MAX_DOCUMENT_BYTES: Final = 8 * (MAX_VALUES + 2 * MAX_ROWS) + 1024 * 1024
"""The encoded form: the values, the rounds, and a kilobyte a name at most."""

MAX_ROUND: Final = 1 << 62
"""More exchanges than anybody makes; what an int64 holds."""

Row: TypeAlias = tuple[int, Mapping[str, Any]]
"""What was reported after so many exchanges."""

_MISSING: Final = float("nan")


class History:
    """Rows of numbers by round, one column a metric. Thinned evenly when it grows beyond its bounds.

    The newest row is always there. `stride` says how many reports one kept row stands for.
    """

    def __init__(self) -> None:
        self.stride = 1
        self._rounds: array[int] = array("q")
        self._columns: dict[str, array[float]] = {}
        self._added = 0
        """Rows so far. Those whose number is a multiple of `stride` stay; the newest is there for now."""

    def __len__(self) -> int:
        return len(self._rounds)

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics, in the order of their first report."""
        return tuple(self._columns)

    def add(self, round: int, metrics: Mapping[str, Any]) -> None:
        """Note what was reported in a round; the newest of a name and round wins.

        A metric that is a map of numbers becomes one series a key, `name.key`. What is no number has no
        curve and is passed over, as are new names beyond MAX_SERIES and rounds that go back.
        """
        numbers = dict(_numbers(metrics))
        if not numbers or (self._rounds and round < self._rounds[-1]):
            return
        if not self._rounds or round > self._rounds[-1]:
            self._new_row(round)
        for name, value in numbers.items():
            column = self._columns.get(name)
            if column is None:
                if len(self._columns) >= MAX_SERIES:
                    continue
                column = self._columns[name] = array("d", [_MISSING]) * len(self._rounds)
            column[-1] = value
        while len(self._rounds) > 2 and self._is_full():
            self._thin()

    def _new_row(self, round: int) -> None:
        if self._added and (self._added - 1) % self.stride:
            self._rounds[-1] = round
            for column in self._columns.values():
                column[-1] = _MISSING
        else:
            self._rounds.append(round)
            for column in self._columns.values():
                column.append(_MISSING)
        self._added += 1

    def _is_full(self) -> bool:
        rows = len(self._rounds)
        return rows > MAX_ROWS or rows * len(self._columns) > MAX_VALUES

    def _thin(self) -> None:
        """Keep every second row, and the newest."""
        cut = len(self._rounds) - (1 - len(self._rounds) % 2)  # of an even number the newest would go
        self._rounds = self._rounds[::2] + self._rounds[cut:]
        for name, column in self._columns.items():
            self._columns[name] = column[::2] + column[cut:]
        self.stride *= 2

    def document(self) -> dict[str, Any]:
        """{"rounds": [int], "series": {name: [number or None]}}; None where nothing was reported."""
        series = {
            name: [value if math.isfinite(value) else None for value in column]
            for name, column in self._columns.items()
        }
        return {"rounds": self._rounds.tolist(), "series": series}

    def encode(self) -> bytes:
        """As bytes for a file or another member; `decode` inverts it."""
        return codec.encode(
            {
                "rounds": self._rounds.tobytes(),
                "series": {name: column.tobytes() for name, column in self._columns.items()},
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> History:
        """Read what another member, or an earlier life of this one, encoded. Raises InvalidMessage."""
        content = codec.decode(data, max_bytes=MAX_DOCUMENT_BYTES)
        history = cls()
        match content:
            case {"rounds": bytes(rounds), "series": dict(series), **rest} if not rest:
                whole = len(rounds) % 8 == 0 and len(rounds) // 8 <= MAX_ROWS
                fits = len(series) <= MAX_SERIES and len(series) * (len(rounds) // 8) <= MAX_VALUES
                if (
                    whole
                    and fits
                    and all(
                        isinstance(name, str) and isinstance(column, bytes) and len(column) == len(rounds)
                        for name, column in series.items()
                    )
                ):
                    history._rounds.frombytes(rounds)
                    for name, column in series.items():
                        history._columns[name] = array("d", column)
                    return history
        raise InvalidMessage("this is no history of a run's metrics")


def read_rows(data: bytes | memoryview) -> list[Row]:
    """[[round, {metric: value}], ...] from a worker: rows for `History.add`. Raises ProtocolError."""
    try:
        rows = codec.decode(data, max_bytes=MAX_DOCUMENT_BYTES)
    except InvalidMessage as error:
        raise ProtocolError(f"its worker sent malformed reports: {error.detail}") from None
    read: list[Row] = []
    for row in rows if isinstance(rows, list) else [rows]:
        match row:
            case [int(number), dict(metrics)] if not isinstance(number, bool) and 0 <= number < MAX_ROUND:
                read.append((number, metrics))
            case _:
                raise ProtocolError("its worker sent something else than reports")
    return read


def _numbers(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", float(one)) for key, one in value.items() if _is_number(one))
        elif _is_number(value):
            yield name, float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
