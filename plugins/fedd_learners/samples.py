"""A device's samples: features and what is to be said about them, from whatever its input holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedd.api import InvalidMessage, InvalidParameter, Message

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

MAX_COUNTED = 24
"""Classes whose samples a training counts in its metrics: of those there may be 32."""
PAIRS = (("x", "y"), ("A", "b"))
"""How the arrays of a .npz file may be called: features (n, d) and targets (n,)."""


@dataclass(frozen=True)
class Samples:
    """Features x (n, d) and targets y (n,), both of one floating type."""

    x: NDArray[Any]
    y: NDArray[Any]

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, chosen: NDArray[np.intp]) -> Samples:
        """Those with these indices."""
        return Samples(self.x[chosen], self.y[chosen])


def read_samples(data: Message, target: str, dtype: DTypeLike) -> tuple[Samples, Samples | None]:
    """(training samples, test samples or None) in an input's value.

    The value is {"x": (n, d), "y": (n,)} with, if wanted, "x_test" and "y_test" ("A" and "b" are understood
    too); or {column: values}, as a .csv file with a header gives it, of which `target` names the column of
    the targets (empty: the last); or an array (n, d + 1) or nested lists with the targets as last column.

    Raises InvalidMessage, saying where, for anything else.
    """
    if data is None:
        raise InvalidMessage(
            "it has no data", hint="give the input a file, value or command beside learner in fedd.toml"
        )
    if isinstance(data, Mapping):
        for x, y in PAIRS:
            if x in data and y in data and {*data} <= {x, y, f"{x}_test", f"{y}_test"} and not target:
                return _named_pair(data, x, y, dtype)
        return _columns(data, target, dtype), None
    if target:
        raise InvalidMessage(
            f"there is no column {target!r}: the columns have no names",
            hint="leave target out to take the last column",
        )
    table = _table(data, "the table", dtype)
    if table.ndim != 2 or table.shape[1] < 2:
        raise InvalidMessage(
            f"the table has the shape {table.shape}", hint="give rows of features with the target at the end"
        )
    return _samples(table[:, :-1], table[:, -1], "the table's features", "the table's targets"), None


def split_off(samples: Samples, share: float, rng: np.random.Generator) -> tuple[Samples, Samples | None]:
    """(the others, a random `share` of the samples); None for no share, each part has a sample at least."""
    count = min(round(share * len(samples)), len(samples) - 1)
    if count < 1:
        return samples, None
    order = rng.permutation(len(samples))
    return samples.rows(order[count:]), samples.rows(order[:count])


def class_count(samples: Samples, classes: int) -> int:
    """How many classes there are: what the owner says, else one more than the highest label.

    Raises InvalidMessage when a label is no whole number from 0 to that.
    """
    wrong = np.flatnonzero((samples.y < 0) | (samples.y != np.floor(samples.y)))
    if len(wrong):
        raise InvalidMessage(
            f"target {wrong[0] + 1} is {float(samples.y[wrong[0]]):g}; classes are the numbers 0, 1, 2, ...",
            hint="number the classes, the same way on all members",
        )
    highest = int(samples.y.max())
    if classes and highest >= classes:
        raise InvalidMessage(
            f"there is a sample of class {highest}, and `classes` is {classes}",
            hint="classes are numbered from 0",
        )
    return classes or max(highest + 1, 2)


def count_labels(samples: Samples) -> dict[str, float]:
    """How many samples each class has, as `samples_of.CLASS`, for a training's metrics.

    Empty for more than MAX_COUNTED classes.
    """
    labels, counts = np.unique(samples.y.astype(np.intp), return_counts=True)
    if len(labels) > MAX_COUNTED:
        return {}
    return {f"samples_of.{label}": float(n) for label, n in zip(labels, counts, strict=True)}


def check_share(name: str, share: float) -> None:
    """Raise InvalidParameter unless this is a share below 1."""
    if not 0 <= share < 1:
        raise InvalidParameter(f"{name} must be from 0 to below 1, not {share:g}", field=name)


def check_step(name: str, step: float) -> None:
    """Raise InvalidParameter unless this is a step size."""
    if not 0 < step < math.inf:
        raise InvalidParameter(f"{name} must be above 0, not {step:g}", field=name)


def check_sizes(**sizes: float) -> None:
    """Raise InvalidParameter for the first of these options that is below 0, or beyond what a seed may be."""
    for name, size in sizes.items():
        if not 0 <= size < 1 << 32:
            raise InvalidParameter(f"{name} must be 0 or more, not {size}", field=name)


def _named_pair(data: Mapping[str, Any], x: str, y: str, dtype: DTypeLike) -> tuple[Samples, Samples | None]:
    train = _samples(_table(data[x], x, dtype), _table(data[y], y, dtype), x, y)
    given = [name for name in (f"{x}_test", f"{y}_test") if name in data]
    if not given:
        return train, None
    if len(given) == 1:
        raise InvalidMessage(f"{given[0]} stands alone", hint=f"give both {x}_test and {y}_test")
    tables = [_table(data[name], name, dtype) for name in given]
    test = _samples(tables[0], tables[1], *given)
    if test.x.shape[1] != train.x.shape[1]:
        raise InvalidMessage(
            f"{given[0]} has {test.x.shape[1]} features and {x} has {train.x.shape[1]}",
            hint="both need the same columns",
        )
    return train, test


def _columns(data: Mapping[str, Any], target: str, dtype: DTypeLike) -> Samples:
    if target and target not in data:
        raise InvalidMessage(f"there is no column {target!r}", hint=f"there are {', '.join(data)[:1000]}")
    names = [name for name in data if name != (target or list(data)[-1])]
    if not names:
        raise InvalidMessage(f"it has no features beside {target or 'one column'}", hint="give x and y")
    columns = {name: _table(column, name, dtype) for name, column in data.items()}
    for name, column in columns.items():
        if column.ndim != 1 or len(column) != len(columns[names[0]]):
            raise InvalidMessage(
                f"{name} has the shape {column.shape}, no column as long as the others",
                hint="name a .npz file's arrays x and y, or give columns of one length",
            )
    last = columns[target or list(data)[-1]]
    return _samples(np.column_stack([columns[name] for name in names]), last, "the features", "the targets")


def _table(value: Any, label: str, dtype: DTypeLike) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError:
        raise InvalidMessage(f"the rows of {label} differ in length") from None
    if array.dtype.kind not in "biuf":
        raise InvalidMessage(f"{label} holds {array.dtype} values, not numbers")
    return array.astype(dtype, copy=False)


def _samples(x: NDArray[Any], y: NDArray[Any], x_label: str, y_label: str) -> Samples:
    if x.ndim == 1:
        x = x[:, np.newaxis]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y) or not x.size:
        raise InvalidMessage(
            f"{x_label} has the shape {x.shape} and {y_label} {y.shape}",
            hint="they must be (samples, features) and (samples,), with a sample and a feature at least",
        )
    for label, array in ((x_label, x), (y_label, y)):
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            where = ", ".join(
                f"{name} {index + 1}" for name, index in zip(("row", "column"), bad[0], strict=False)
            )
            raise InvalidMessage(
                f"{label}, {where}: no finite number", hint="remove the row or fill in the value"
            )
    return Samples(np.ascontiguousarray(x), np.ascontiguousarray(y))
