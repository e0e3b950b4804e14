"""What neighbours sent, made into what is worked with. Whoever sent what cannot be costs itself the edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from fedd.api.errors import FeddError, InvalidMessage
from fedd.api.types import PeerId
from fedd.worker.failures import plugin_failure
from fedd.worker.port import Payload

T = TypeVar("T")

MAX_REASON_CHARS = 400
"""What is said of a message; it travels in a frame of 512 bytes, behind what fedd says before it."""


class BadMessage(InvalidMessage):
    """What a neighbour sent cannot be used."""

    def __init__(self, peer: PeerId, detail: str, *, hint: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.peer = peer


class Cutter(Protocol):
    """Who can do without a neighbour."""

    def cut(self, peer: PeerId, reason: str) -> None:
        """Go on without this neighbour. Nothing for one that is none any more."""
        ...


def reason_of(error: Exception) -> str:
    """Why a message cannot be used, by the error that its reading raised; a hint is to whoever wrote it."""
    if isinstance(error, InvalidMessage):
        return str(error)
    return error.detail if isinstance(error, FeddError) else plugin_failure(error).detail


def read_all(
    cutter: Cutter, answers: Mapping[PeerId, Payload], read: Callable[[PeerId, Payload], T]
) -> dict[PeerId, T]:
    """What `read(peer, payload)` makes of each answer; those for whom it raises anything are cut off.

    Anything, because a reader that was not written with every possible message in mind raises whatever
    Python does, and a member that sends rubbish on purpose will find that.
    """
    found: dict[PeerId, T] = {}
    for peer, payload in answers.items():
        try:
            found[peer] = read(peer, payload)
        except Exception as error:
            cutter.cut(peer, reason_of(error))
    return found
