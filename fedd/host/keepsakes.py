"""What is kept of a run beside its result: the history of its metrics, and a value too large for JSON."""

from __future__ import annotations

import logging
import re
from typing import Final, Literal, TypeAlias

from fedd.api.errors import FeddError
from fedd.host.stores import ResultStore

log = logging.getLogger("fedd.host")

Kind: TypeAlias = Literal["history", "value"]

KEPT: Final[dict[Kind, int]] = {"history": 64, "value": 16}
"""Of how many runs: a history has 2.5 MiB at most, a value [limits] max_payload_bytes (16 MiB)."""

_DIRECTORY: Final = "runs"
_NAME: Final = re.compile(r"runs/(\d{9})-([0-9a-f]{40})\.(history|value)")


class Keepsakes:
    """One file each, the newest kept. What a full disk refuses is lost, and the log says so."""

    def __init__(self, state: ResultStore) -> None:
        self._state = state
        self._files: dict[Kind, dict[str, str]] = {"history": {}, "value": {}}
        """kind -> run id -> file name, oldest first."""
        self._next = 1
        for name in sorted(state.names(_DIRECTORY)):
            match = _NAME.fullmatch(name)
            if match:
                self._files["history" if match[3] == "history" else "value"][match[2]] = name
                self._next = max(self._next, int(match[1]) + 1)

    def keep(self, kind: Kind, run_id: str, data: bytes) -> None:
        """Store it durably, and let the oldest go."""
        name = f"{_DIRECTORY}/{self._next:09d}-{run_id}.{kind}"
        try:
            self._state.write(name, data)
        except FeddError as error:
            log.error("the %s of run %s is not stored: %s", kind, run_id, error)
            return
        self._next += 1
        files = self._files[kind]
        files[run_id] = name
        while len(files) > KEPT[kind]:
            try:
                self._state.remove(files.pop(next(iter(files))))
            except FeddError as error:
                log.warning("an old %s cannot be removed: %s", kind, error)

    def get(self, kind: Kind, run_id: str) -> bytes | None:
        """What was kept, None when there is nothing."""
        name = self._files[kind].get(run_id)
        return None if name is None else self._state.read(name)
