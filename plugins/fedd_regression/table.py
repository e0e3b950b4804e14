"""One member's table: rows with the target as the last column, and what all members must have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedd.api import InvalidMessage, Message

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedd.api import PeerId


@dataclass(frozen=True)
class Table:
    """`rows` is (n, columns), float64, the target last; `names` is empty when the columns have none."""

    rows: NDArray[np.float64]
    names: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """What to call the columns in messages."""
        return self.names or tuple(f"column {index + 1}" for index in range(self.rows.shape[1]))

    def description(self) -> Message:
        """What the other members are told about this table: {"columns": count, "names": list}."""
        return {"columns": self.rows.shape[1], "names": list(self.names)}

    def read_description(self, peer: PeerId, message: Message) -> tuple[str, ...]:
        """The order of another member's columns. The order of the first member's is everybody's.

        Raises InvalidMessage when that is no description, or of a table with other columns.
        """
        match message:
            case {"columns": int(count), "names": list(names)} if all(isinstance(n, str) for n in names):
                theirs = _kind(count, tuple(map(str, names)))
            case _:
                raise InvalidMessage("it sent something else than the description of a table")
        own = _kind(self.rows.shape[1], self.names)
        if theirs != own:
            raise InvalidMessage(
                f"its table has {_spoken(*theirs)}, this node's {_spoken(*own)}"[:1000],
                hint="give all members tables with the same columns, with names or all without",
            )
        return tuple(map(str, names))

    def ordered(self, names: Sequence[str]) -> Table:
        """The same table with its columns in the order of `names`, a permutation of this table's."""
        if tuple(names) == self.names:
            return self
        return Table(self.rows[:, [self.names.index(name) for name in names]], tuple(names))


def read_table(value: Message, target: str) -> Table:
    """A table from a run's input: an array (rows, columns), nested lists, or {column: values}.

    `target` names the column to explain; empty means the last.

    Raises InvalidMessage, saying where, when it is no table of finite numbers with two columns or more, or
    has no such column.
    """
    if isinstance(value, dict):
        return _named(value, target)
    if target:
        raise InvalidMessage(
            f"there is no column {target!r}: this node's columns have no names",
            hint="put a header row into the CSV file, or leave target out to explain the last column",
        )
    if value is None:
        raise InvalidMessage("this node has no input for the run", hint="name a table with --input")
    try:
        raw = np.asarray(value)
    except ValueError:
        raise InvalidMessage("the input's rows differ in length") from None
    if raw.ndim != 2:
        raise InvalidMessage(
            f"the input is no table: it has {raw.ndim} dimensions", hint="give rows x columns"
        )
    return Table(_finite(raw, ()), ())


def _kind(count: int, names: tuple[str, ...]) -> tuple[int, tuple[str, ...], str]:
    """What two tables must have in common: the number of columns, their names in any order, the target."""
    *explaining, target = names or ("",)
    return count, tuple(sorted(explaining)), target


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def _spoken(count: int, explaining: tuple[str, ...], target: str) -> str:
    if not target:
        return f"{_columns(count)} without names"
    return f"{_columns(count)} ({', '.join(explaining)}; target {target})"


def _named(columns: Mapping[str, Any], target: str) -> Table:
    names = list(columns)
    if target and target not in columns:
        raise InvalidMessage(
            f"there is no column {target!r}", hint=f"this node's columns are {', '.join(names)[:1000]}"
        )
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    for name, column in arrays.items():
        if column.ndim != 1 or len(column) != len(arrays[names[0]]):
            raise InvalidMessage(f"the column {name!r} is no list of as many numbers as the others have")
    if target:
        names.remove(target)
        names.append(target)
    stacked = np.column_stack([arrays[name] for name in names]) if names else np.empty((0, 0))
    return Table(_finite(stacked, tuple(names)), tuple(names))


def _finite(raw: NDArray[Any], names: tuple[str, ...]) -> NDArray[np.float64]:
    if raw.dtype.kind not in "biuf":
        raise InvalidMessage(f"the table holds {raw.dtype} values, not numbers")
    if raw.shape[1] < 2:
        raise InvalidMessage(f"the table has {_columns(raw.shape[1])}", hint="it needs a target and one more")
    rows = raw.astype(np.float64)
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        row, column = (int(index) for index in bad[0])
        label = names[column] if names else f"column {column + 1}"
        raise InvalidMessage(
            f"data row {row + 1}, {label}: {float(rows[row, column])} is no finite number",
            hint="remove the row or fill in the value",
        )
    return rows
