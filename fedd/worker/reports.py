"""What an algorithm reports, on its way to the daemon: the newest of each metric, and all by round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from fedd.core import codec
from fedd.core.pipe import encode_frame

if TYPE_CHECKING:
    from fedd.core.pieces import Buffer

MAX_WAITING: Final = 4096
"""Reports between two frames, of which ten leave a second. Beyond it every second one is forgotten."""

MAX_HISTORY_BYTES: Final = 4 * 1024 * 1024
"""What of them travels in one frame; more is thinned in the same way."""


class Reports:
    """Collects what is reported until the next frame."""

    def __init__(self) -> None:
        self._metrics: dict[str, Any] = {}
        self._history: list[tuple[int, dict[str, Any]]] = []

    def __bool__(self) -> bool:
        return bool(self._metrics)

    def note(self, round: int, metrics: Mapping[str, Any]) -> None:
        """Something was reported after `round` exchanges."""
        self._metrics.update(metrics)
        self._history.append((round, dict(metrics)))
        if len(self._history) > MAX_WAITING:
            del self._history[-2::-2]

    def take(self) -> list[Buffer]:
        """One frame with all of it, which is forgotten here."""
        metrics, self._metrics = self._metrics, {}
        history, self._history = self._history, []
        encoded = _encode(history)
        while len(encoded) > MAX_HISTORY_BYTES and len(history) > 1:
            del history[-2::-2]
            encoded = _encode(history)
        return encode_frame({"kind": "report", "metrics": metrics}, [encoded])


def _encode(history: list[tuple[int, dict[str, Any]]]) -> bytes:
    return codec.encode([[round, metrics] for round, metrics in history], canonical=False)
