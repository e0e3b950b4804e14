"""Results of ended runs in the state directory: one file each, the newest kept."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from typing import Any

from fedd.api.errors import FeddError
from fedd.host.stores import ResultStore

log = logging.getLogger("fedd.host")

_DIRECTORY = "runs"
_MAX_UNSAVED = 16
"""Results that a full disk refused are shown until the daemon ends; large arrays are not in them."""

_NAME = re.compile(r"runs/(\d{9})-([0-9a-f]{40})\.json")


class Results:
    """Ended runs by id, oldest first, at most `limit`."""

    def __init__(self, state: ResultStore, limit: int) -> None:
        self._state = state
        self._limit = limit
        self._files: dict[str, str] = {}
        """run id -> file name, oldest first; names begin with a running number."""
        for name in state.names(_DIRECTORY):
            match = _NAME.fullmatch(name)
            if match:
                self._files[match[2]] = name
        self._summaries: dict[str, dict[str, Any]] = {}
        self._unsaved: dict[str, dict[str, Any]] = {}
        self.removed = 0
        """How many results gave way to newer ones since the start."""
        self._next = 1 + max((int(name[5:14]) for name in self._files.values()), default=0)
        self._prune()

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._files or run_id in self._unsaved

    def ids(self) -> list[str]:
        """All run ids, oldest first."""
        return [*self._files, *self._unsaved]

    def summaries(self) -> list[dict[str, Any]]:
        """[{run_id, algorithm, state, round, rounds, members, started_s_ago}], oldest first."""
        return [summary for run_id in self.ids() if (summary := self._summary(run_id)) is not None]

    def keep(self, result: dict[str, Any]) -> str:
        """Store a result durably; why that did not work, empty when it did.

        On a full disk it is remembered until this process ends, and stored with the next one.
        """
        self._unsaved[result["run_id"]] = result
        why = ""
        for run_id, waiting in list(self._unsaved.items()):
            try:
                self._save(waiting)
            except FeddError as error:
                log.error("the result of run %s is not stored: %s", run_id, error)
                why = str(error)
                break
            del self._unsaved[run_id]
        while len(self._unsaved) > _MAX_UNSAVED:
            del self._unsaved[next(iter(self._unsaved))]
        self._prune()
        return why

    def _save(self, result: dict[str, Any]) -> None:
        run_id = result["run_id"]
        name = f"{_DIRECTORY}/{self._next:09d}-{run_id}.json"
        self._state.write(name, json.dumps(result, allow_nan=False).encode())
        self._next += 1
        self._summaries[run_id] = _summarise(result)
        before = self._files.pop(run_id, None)  # it had ended here, and came back
        self._files[run_id] = name
        if before is not None:
            self._state.remove(before)

    def get(self, run_id: str) -> dict[str, Any] | None:
        """The result, None when it is not kept or its file is damaged."""
        if run_id in self._unsaved:
            return self._unsaved[run_id]
        name = self._files.get(run_id)
        data = None if name is None else self._state.read(name)
        if data is None:
            return None
        try:
            result = json.loads(data)
        except ValueError:
            log.error("the stored result %s is damaged", name)
            return None
        return result if isinstance(result, dict) else None

    def _summary(self, run_id: str) -> dict[str, Any] | None:
        if run_id not in self._summaries:
            result = self.get(run_id)
            if result is None:
                return None
            self._summaries[run_id] = _summarise(result)
        summary = dict(self._summaries[run_id])
        summary["started_s_ago"] = round(max(0.0, time.time() - summary.pop("started_unix_s")), 3)
        return summary

    def _prune(self) -> None:
        for run_id in list(self._files)[: -self._limit]:
            self._summaries.pop(run_id, None)
            self.removed += 1
            try:
                self._state.remove(self._files.pop(run_id))
            except FeddError as error:
                log.warning("an old result cannot be removed: %s", error)


def _summarise(result: Mapping[str, Any]) -> dict[str, Any]:
    rounds = result.get("rounds", 0)
    return {
        "run_id": result.get("run_id", ""),
        "algorithm": result.get("algorithm", ""),
        "state": result.get("state", ""),
        "round": rounds,
        "rounds": rounds,
        "members": len(result.get("members", ())),
        "started_unix_s": result.get("started_unix_s", 0.0),
    }
