"""Histories and values of runs for `fedctl export`: this node's own, and every other member's."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from fedd.api.errors import FeddError, InvalidMessage, NotFound, ProtocolError
from fedd.api.types import PeerId
from fedd.core.codec import ArrayView, decode
from fedd.core.history import MAX_DOCUMENT_BYTES, History
from fedd.host.keepsakes import Keepsakes
from fedd.host.run_control import Opener, ask

MAX_REPLY_BYTES: Final = MAX_DOCUMENT_BYTES + 1024
"""A history and the map around it."""

MAX_VALUE_BYTES: Final = 1024 * 1024 * 1024
"""No run's messages are larger, whatever its members allow."""

DEADLINE_S: Final = 10.0
"""A member that does not answer by then is missing in the picture: 2 MiB take as long on 2 Mbit/s."""


class RunHistories:
    """Finds histories. `live` gives that of a run in progress or just ended here."""

    def __init__(
        self,
        me: PeerId,
        opener: Opener,
        keepsakes: Keepsakes,
        live: Callable[[str], History | None],
        name_of: Callable[[PeerId], str],
    ) -> None:
        self._me = me
        self._opener = opener
        self._keepsakes = keepsakes
        self._live = live
        self._name_of = name_of

    def own(self, run_id: str) -> History:
        """This node's. Raises NotFound when there is none."""
        history = self._live(run_id)
        if history is not None:
            return history
        data = self._keepsakes.get("history", run_id)
        if data is None:
            raise NotFound(f"no history of run {run_id[:12]} is kept here", field="run_id")
        return History.decode(data)

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a member that asks for this node's. Raises NotFound or ProtocolError."""
        run_id = message.get("run")
        if not isinstance(run_id, str):
            raise ProtocolError("a question for a history that names no run")
        return {"kind": "history", "history": self.own(run_id).encode()}

    async def collect(self, run_id: str, members: list[PeerId]) -> dict[str, Any]:
        """{nodes[{peer_id, name, rounds, series}], missing[{peer_id, name, reason}]}, both sorted by name."""
        nodes: list[dict[str, Any]] = []
        missing: list[dict[str, Any]] = []

        async def fetch(peer: PeerId) -> None:
            who = {"peer_id": peer, "name": self._name_of(peer)}
            try:
                history = self.own(run_id) if peer == self._me else await self._ask(peer, run_id)
            except FeddError as error:
                missing.append({**who, "reason": error.detail})
            else:
                nodes.append({**who, **history.document()})

        async with trio.open_nursery() as nursery:
            for peer in members:
                nursery.start_soon(fetch, peer)
        for found in (nodes, missing):
            found.sort(key=lambda node: (node["name"], node["peer_id"]))
        return {"run_id": run_id, "nodes": nodes, "missing": missing}

    async def _ask(self, peer: PeerId, run_id: str) -> History:
        message = {"kind": "history", "run": run_id}
        reply = await ask(self._opener, peer, message, DEADLINE_S, max_reply_bytes=MAX_REPLY_BYTES)
        history = reply.get("history")
        if not isinstance(history, bytes):
            raise NotFound(str(reply.get("detail") or "it sent no history")[:200])
        try:
            return History.decode(history)
        except InvalidMessage as error:
            raise ProtocolError(error.detail) from error


def exported(payload: bytes) -> Any:
    """A run's value in full, as JSON can hold it: arrays as {shape, dtype, base64}, bytes as {base64}.

    Bytes of an array are in C order, little-endian. Raises InvalidMessage.
    """
    return _exported(decode(payload, max_bytes=MAX_VALUE_BYTES))


def _exported(value: Any) -> Any:
    if isinstance(value, ArrayView):
        data = base64.b64encode(value.data).decode()
        return {"shape": list(value.shape), "dtype": value.dtype, "base64": data}
    if isinstance(value, bytes | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [_exported(item) for item in value]
    if isinstance(value, dict):
        return {key: _exported(item) for key, item in value.items()}
    return value
