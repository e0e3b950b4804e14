"""What a run of learning tells at its end: the curves of every member, who trained, what was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedd.api import Message, PeerId
from fedd_learning.messages import MAX_METRICS
from fedd_learning.workflow import RoundRecord, Workflow

if TYPE_CHECKING:
    from fedd.api.types import Array

MAX_MODEL_BYTES = 8 * 1024 * 1024
"""A larger model is no part of the result, which every member keeps and shows: its digest is."""
MAX_SHOWN = 8
"""Names of metrics that are shown live, each of every member."""
MAX_REASONS = 256
"""Of who was left out: (round, member) pairs, the newest."""

MAX_CURVES = 64
"""Names of metrics in the curves: twice what one evaluation may have."""
MAX_ROUNDS_TOLD = 1000
MAX_NAMES_TOLD = 16 * 1024
"""Whose contributors are in the result: the newest rounds, as many as have so few names together. A message
has up to 65,536 items."""


class Table:
    """A number for each round and member. It grows with both, and is one item of a message, an array."""

    def __init__(self, fill: float, dtype: str) -> None:
        self._fill = fill
        self._room = np.full((16, 4), fill, dtype)

    def put(self, row: int, column: int, value: float) -> None:
        """Write one number."""
        if row >= self._room.shape[0] or column >= self._room.shape[1]:
            rows, columns = self._room.shape
            larger = np.full(
                (max(rows, 2 * row) + 1, max(columns, 2 * column) + 1), self._fill, self._room.dtype
            )
            larger[:rows, :columns] = self._room
            self._room = larger
        self._room[row, column] = value

    def clear(self, row: int) -> None:
        """Forget what is in a row."""
        self._room[row : row + 1] = self._fill

    def shown(self, rows: int, columns: int) -> Array:
        """A copy of that many rows and columns."""
        found: Array = np.full((rows, columns), self._fill, self._room.dtype)
        part = self._room[:rows, :columns]
        found[: part.shape[0], : part.shape[1]] = part
        return found

    @staticmethod
    def of(kept: Array, fill: float) -> Table:
        """One that `shown` had shown."""
        table = Table(fill, kept.dtype.str)
        rows, columns = kept.shape
        table._room = np.full((rows + 16, columns + 4), fill, kept.dtype)
        table._room[:rows, :columns] = kept
        return table


class History:
    """The records of the rounds, kept small: what is kept in every round must not grow in items with them."""

    def __init__(self) -> None:
        self._rounds: list[int] = []
        self._columns: dict[PeerId, int] = {}
        self._curves: dict[str, Table] = {}
        self._chosen = Table(0, "u1")
        """1 where a member's training is in the round's model."""
        self._last: dict[str, dict[PeerId, float]] = {}
        self._trained: dict[PeerId, int] = {}
        self._left_out: list[dict[str, Any]] = []

    def add(self, record: RoundRecord) -> None:
        """A round that all have closed."""
        again = bool(self._rounds) and self._rounds[-1] == record.round
        if not again:
            self._rounds.append(record.round)
        self._note_metrics(record, len(self._rounds) - 1)
        if again:
            return  # a new epoch begins with what the last one ended with
        for peer in record.contributors:
            self._chosen.put(len(self._rounds) - 1, self._column(peer), 1)
            self._trained[peer] = self._trained.get(peer, 0) + 1
        for peer, reason in sorted(record.left_out.items()):
            if reason != NOT_CHOSEN:
                self._left_out.append({"peer_id": peer, "round": record.round, "reason": reason})
        self._left_out = self._left_out[-MAX_REASONS:]

    def _note_metrics(self, record: RoundRecord, row: int) -> None:
        by_name: dict[str, dict[PeerId, float]] = {}
        for peer, values in record.metrics.items():
            for name, value in values.items():
                if name in by_name or len(by_name) < MAX_METRICS:
                    by_name.setdefault(name, {})[peer] = float(value)
        for table in self._curves.values():
            table.clear(row)
        for name, told in by_name.items():
            if name not in self._curves and len(self._curves) < MAX_CURVES:
                self._curves[name] = Table(float("nan"), "f8")
            for peer, number in told.items() if name in self._curves else ():
                self._curves[name].put(row, self._column(peer), number)
        self._last = by_name

    def _column(self, peer: PeerId) -> int:
        return self._columns.setdefault(peer, len(self._columns))

    def latest(self) -> dict[str, dict[PeerId, float]]:
        """{metric: {member: value}} of the last round, `accuracy` and `loss` first."""
        names = sorted(self._last, key=lambda name: (name not in ("accuracy", "loss"), name))
        return {name: self._last[name] for name in names[:MAX_SHOWN]}

    def value(
        self, members: Sequence[PeerId], left: Mapping[PeerId, str], flow: Workflow, model: Sequence[Array]
    ) -> Message:
        """The run's answer, the same on every member that was there from the beginning."""
        everybody = sorted({*members, *self._columns})
        small = sum(array.nbytes for array in model) <= MAX_MODEL_BYTES
        tables: dict[str, Message] = {
            name: self._ordered(table, everybody) for name, table in sorted(self._curves.items())
        }
        chosen = self._ordered(self._chosen, everybody)
        told = min(MAX_ROUNDS_TOLD, MAX_NAMES_TOLD // max(1, len(everybody)))
        contributors = [
            (number, [everybody[column] for column in np.flatnonzero(row)])
            for number, row in list(zip(self._rounds, chosen, strict=True))[-told:]
        ]
        by_round: dict[str, Message] = {str(number): [*names] for number, names in contributors if number}
        labels: dict[str, Message] = {p: dict(found) for p, found in sorted(flow.labels.items())}
        return {
            "rounds": flow.round,
            "digest": flow.digest,
            "model": list(model) if small else None,
            "metrics": {name: dict(values) for name, values in self.latest().items()},
            "contributors": [*contributors[-1][1]] if contributors else [],
            "contributors_by_round": by_round,
            "trained": dict(sorted(self._trained.items())),
            "left_out": list(self._left_out),
            "labels": labels,
            "lost_labels": [*lost_labels(flow.labels, left)],
            "curves": {
                "round": np.array(self._rounds, dtype=np.int64),
                "members": [*everybody],
                **tables,
            },
        }

    def kept(self) -> Message:
        """For a checkpoint."""
        size = (len(self._rounds), len(self._columns))
        return {
            "rounds": np.array(self._rounds, dtype=np.int64),
            "members": [*self._columns],
            "curves": {name: table.shown(*size) for name, table in self._curves.items()},
            "chosen": self._chosen.shown(*size),
            "last": {name: dict(values) for name, values in self._last.items()},
            "trained": dict(self._trained),
            "left_out": list(self._left_out),
        }

    @staticmethod
    def restored(kept: Any) -> History:
        """From a checkpoint."""
        history = History()
        history._rounds = [int(number) for number in kept["rounds"]]
        history._columns = {peer: column for column, peer in enumerate(kept["members"])}
        history._curves = {name: Table.of(table, float("nan")) for name, table in kept["curves"].items()}
        history._chosen = Table.of(kept["chosen"], 0)
        history._last = {name: dict(values) for name, values in kept["last"].items()}
        history._trained = dict(kept["trained"])
        history._left_out = list(kept["left_out"])
        return history

    def _ordered(self, table: Table, members: Sequence[PeerId]) -> Array:
        """(rounds, members): a table with its columns in this order."""
        whole = table.shown(len(self._rounds), len(self._columns) + 1)  # the last one is of nobody
        found: Array = whole[:, [self._columns.get(peer, len(self._columns)) for peer in members]]
        return found


NOT_CHOSEN = "it is not in the train set"
"""Why a member offers nothing in a round in which others train: no news."""


def lost_labels(labels: Mapping[PeerId, Mapping[str, int]], left: Mapping[PeerId, str]) -> list[str]:
    """The labels that only members had who are out of the run."""
    there = {label for peer, found in labels.items() if peer not in left for label, n in found.items() if n}
    gone = {label for peer, found in labels.items() if peer in left for label, n in found.items() if n}
    return sorted(gone - there, key=lambda label: (len(label), label))
