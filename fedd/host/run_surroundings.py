"""What one run's node needs of the daemon around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from fedd.api.types import PeerId
from fedd.core.identity import PrivateKey
from fedd.host.run_limits import RunLimits
from fedd.host.run_result import Story

if TYPE_CHECKING:
    from fedd.net.stream import Stream


@dataclass(frozen=True)
class Surroundings:
    """One for all runs of a daemon."""

    key: PrivateKey
    limits: RunLimits
    open_stream: Callable[[PeerId], Awaitable[Stream]]
    """A new run stream to a peer. Raises FeddError."""
    state_of: Callable[[PeerId], str | None]
    """alive, suspect, dead, left, or None for one who is unknown."""
    name_of: Callable[[PeerId], str]
    on_change: Callable[[Story], None]
    """Something that `watch` shows has changed; the run has ended when its story has an ending."""
    clock: Callable[[], float] = trio.current_time
