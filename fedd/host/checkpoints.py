"""What algorithms gave to `checkpoint`, on disk: one file a run, replaced atomically, gone with the run.

file   u32 length (big-endian), CBOR map {manifest, round, started_unix_s, sha256}, the encoded state
"""

from __future__ import annotations

import hashlib
import logging
import re
import struct
from typing import TYPE_CHECKING

from fedd.api.errors import FeddError
from fedd.core import codec
from fedd.core.dataclass import dataclass
from fedd.core.run_terms import MAX_DOCUMENT_BYTES
from fedd.host.stores import ResultStore

if TYPE_CHECKING:
    from fedd.core.pieces import Payload

log = logging.getLogger("fedd.host")

DIRECTORY = "checkpoints"

MAX_HEADER_BYTES = MAX_DOCUMENT_BYTES + 1024

_NAME = re.compile(rf"{DIRECTORY}/([0-9a-f]{{40}})\.state")
_LENGTH = struct.Struct("!I")


@dataclass(frozen=True)
class Kept:
    """A run as it was when its algorithm last called `checkpoint`: the sealed manifest, and the state."""

    manifest: bytes
    round: int
    started_unix_s: float
    state: memoryview


class Checkpoints:
    """The newest checkpoint of each of up to `limit` runs."""

    def __init__(self, store: ResultStore, limit: int) -> None:
        self._store = store
        self._limit = limit
        found = (_NAME.fullmatch(name) for name in store.names(DIRECTORY))
        self._ids = {match[1] for match in found if match}

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._ids

    def ids(self) -> list[str]:
        """The runs that have a checkpoint, sorted."""
        return sorted(self._ids)

    def keep(self, run_id: str, manifest: bytes, round: int, started_unix_s: float, state: Payload) -> str:
        """Replace the run's checkpoint durably; why that did not work, empty when it did."""
        if run_id not in self._ids and len(self._ids) >= self._limit:
            return f"there are checkpoints of {len(self._ids)} runs already: stop one (see fedctl runs)"
        header = codec.encode(
            {
                "manifest": manifest,
                "round": round,
                "started_unix_s": started_unix_s,
                "sha256": hashlib.sha256(state).digest(),
            }
        )
        try:
            self._store.write(_name(run_id), b"".join((_LENGTH.pack(len(header)), header, state)))
        except FeddError as error:
            return str(error)
        self._ids.add(run_id)
        return ""

    def move(self, run_id: str, manifest: bytes, round: int) -> str:
        """The run is in another epoch now, its state the same; as `keep`. Nothing without a checkpoint.

        A device that was restarted thus knows every epoch in which it has lost its place.
        """
        kept = self.read(run_id)
        return "" if kept is None else self.keep(run_id, manifest, round, kept.started_unix_s, kept.state)

    def read(self, run_id: str) -> Kept | None:
        """The run's checkpoint; None when there is none, or it is damaged, which is logged."""
        data = self._store.read(_name(run_id)) if run_id in self._ids else None
        if data is None:
            return None
        try:
            return _read(data)
        except (FeddError, ValueError, TypeError, KeyError, struct.error) as error:
            log.error("the checkpoint of run %s is damaged: %s", run_id, error)
            return None

    def remove(self, run_id: str) -> None:
        """Forget the run's checkpoint. Harmless when there is none."""
        if run_id in self._ids:
            self._ids.discard(run_id)
            try:
                self._store.remove(_name(run_id))
            except FeddError as error:
                log.warning("the checkpoint of run %s cannot be removed: %s", run_id, error)


def _name(run_id: str) -> str:
    return f"{DIRECTORY}/{run_id}.state"


def _read(data: bytes) -> Kept:
    (length,) = _LENGTH.unpack_from(data)
    view = memoryview(data)
    header = codec.decode(view[_LENGTH.size : _LENGTH.size + length], max_bytes=MAX_HEADER_BYTES)
    state = view[_LENGTH.size + length :]
    if hashlib.sha256(state).digest() != header["sha256"]:
        raise ValueError("its state is not what was written")
    return Kept(bytes(header["manifest"]), int(header["round"]), float(header["started_unix_s"]), state)
