"""A command on its way through the plugin host: the call, its times, what it reaches, who is at work."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Protocol

import trio

from fedd.api.errors import FeddError
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.host.plugin_schema import CommandInfo

RELOADED = "was reloaded"
"""The end of a plugin host process that is nobody's fault."""

_PAGE = struct.Struct("<QQQ")


@dataclass(frozen=True)
class HostTimes:
    """How long what may take, in seconds."""

    start_s: float = 20.0
    """From the start of the process to its first word: it imports NumPy, maybe on eight daemons at once."""
    import_s: float = 12.0
    """One plugin's import; the inspector gave it 10 s."""
    block_s: float = 2.5
    """How long a handler may keep the event loop to itself while another call waits."""
    grace_s: float = 3.0
    """From a handler's cancellation to its end; longer than `block_s`, so that the right one is blamed."""


class Outside(Protocol):
    """What a handler can reach, as the daemon offers it."""

    @property
    def me(self) -> PeerId:
        """This node."""
        ...

    def members(self) -> list[tuple[PeerId, str, str]]:
        """(peer id, name, state) of everyone known, sorted, this node included."""
        ...

    async def ask(self, peer: PeerId | None, command: str, parameters: memoryview) -> bytes:
        """Send a command for a handler, to everybody when `peer` is None; the answer's bytes."""
        ...

    async def steer(self, sender: PeerId, what: str, fields: memoryview) -> bytes:
        """Start, stop or list runs for the command of `sender`; the answer's bytes."""
        ...

    def event(self, call: Call, text: str, fields: Mapping[str, Any]) -> None:
        """A handler writes into the event log."""
        ...

    def trouble(self, plugin: str, error: str) -> None:
        """A plugin cost the process its life."""
        ...


@dataclass(eq=False)
class Call:
    """One message on its way through a handler. `sender` is proven."""

    info: CommandInfo
    sender: PeerId
    parameters: bytes | memoryview
    only_check: bool = False
    sent_at: float = 0.0
    begun: bool = False
    overdue_since: float | None = None
    answer: bytes | memoryview = b""
    error: FeddError | None = None
    lost: bool = False
    """The process ended before the handler began."""
    events: int = 0
    began: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    asks: set[trio.CancelScope] = field(default_factory=set)

    def begin(self) -> None:
        """Its handler is at work: from now on its time counts, and no other process may do it again."""
        self.begun = True
        self.began.set()

    def end(self) -> None:
        """It has its answer, its error, or is lost."""
        self.began.set()
        self.ended.set()
        for scope in self.asks:
            scope.cancel()


class Page:
    """The memory in which the plugin host says what it is doing."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("fedd-commands", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, _PAGE.size)
        self._map = mmap.mmap(self.descriptor, _PAGE.size)

    def read(self) -> tuple[int, int, int]:
        """(call at work or 0, steps so far, 1 while its plugin is being imported)."""
        call, steps, importing = _PAGE.unpack_from(self._map)
        return call, steps, importing

    def close(self) -> None:
        """Give the memory back."""
        self._map.close()
        os.close(self.descriptor)
