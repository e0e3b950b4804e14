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

MAX_ROUNDS_TOLD = 1000
"""Whose contributors are in the result, the newest."""


class History:
    """The records of the rounds, kept small."""

    def __init__(self) -> None:
        self._rounds: list[int] = []
        self._curves: list[dict[str, dict[PeerId, float]]] = []
        self._trained: dict[PeerId, int] = {}
        self._contributors: list[list[PeerId]] = []
        self._left_out: list[dict[str, Any]] = []

    def add(self, record: RoundRecord) -> None:
        """A round that all have closed."""
        by_name: dict[str, dict[PeerId, float]] = {}
        for peer, values in record.metrics.items():
            for name, value in values.items():
                if name in by_name or len(by_name) < MAX_METRICS:
                    by_name.setdefault(name, {})[peer] = float(value)
        if self._rounds and self._rounds[-1] == record.round:
            self._curves[-1] = by_name  # a new epoch begins with what the last one ended with
            return
        self._rounds.append(record.round)
        self._curves.append(by_name)
        self._contributors.append(list(record.contributors))
        for peer in record.contributors:
            self._trained[peer] = self._trained.get(peer, 0) + 1
        for peer, reason in sorted(record.left_out.items()):
            if reason != NOT_CHOSEN:
                self._left_out.append({"peer_id": peer, "round": record.round, "reason": reason})
        self._left_out = self._left_out[-MAX_REASONS:]

    def latest(self) -> dict[str, dict[PeerId, float]]:
        """{metric: {member: value}} of the last round, `accuracy` and `loss` first."""
        last = self._curves[-1] if self._curves else {}
        names = sorted(last, key=lambda name: (name not in ("accuracy", "loss"), name))
        return {name: last[name] for name in names[:MAX_SHOWN]}

    def value(
        self, members: Sequence[PeerId], left: Mapping[PeerId, str], flow: Workflow, model: Sequence[Array]
    ) -> Message:
        """The run's answer, the same on every member that was there from the beginning."""
        everybody = sorted(
            {*members, *(peer for row in self._curves for name in row.values() for peer in name)}
        )
        names = sorted({name for row in self._curves for name in row})
        small = sum(array.nbytes for array in model) <= MAX_MODEL_BYTES
        tables: dict[str, Message] = {name: self._table(name, everybody) for name in names}
        newest = list(zip(self._rounds, self._contributors, strict=True))[-MAX_ROUNDS_TOLD:]
        by_round: dict[str, Message] = {str(round): [*names] for round, names in newest if round}
        labels: dict[str, Message] = {p: dict(found) for p, found in sorted(flow.labels.items())}
        return {
            "rounds": flow.round,
            "digest": flow.digest,
            "model": list(model) if small else None,
            "metrics": {name: dict(values) for name, values in self.latest().items()},
            "contributors": [*self._contributors[-1]] if self._contributors else [],
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
        return {
            "rounds": list(self._rounds),
            "curves": [{name: dict(values) for name, values in row.items()} for row in self._curves],
            "trained": dict(self._trained),
            "contributors": [[*names] for names in self._contributors],
            "left_out": list(self._left_out),
        }

    @staticmethod
    def restored(kept: Any) -> History:
        """From a checkpoint."""
        history = History()
        history._rounds = list(kept["rounds"])
        history._curves = [dict(row) for row in kept["curves"]]
        history._trained = dict(kept["trained"])
        history._contributors = [list(names) for names in kept["contributors"]]
        history._left_out = list(kept["left_out"])
        return history

    def _table(self, name: str, members: Sequence[PeerId]) -> Array:
        """(rounds, members), NaN where a member has told nothing."""
        nothing = float("nan")
        return np.array([[row.get(name, {}).get(peer, nothing) for peer in members] for row in self._curves])


NOT_CHOSEN = "it is not in the train set"
"""Why a member offers nothing in a round in which others train: no news."""


def lost_labels(labels: Mapping[PeerId, Mapping[str, int]], left: Mapping[PeerId, str]) -> list[str]:
    """The labels that only members had who are out of the run."""
    there = {label for peer, found in labels.items() if peer not in left for label, n in found.items() if n}
    gone = {label for peer, found in labels.items() if peer in left for label, n in found.items() if n}
    return sorted(gone - there, key=lambda label: (len(label), label))
