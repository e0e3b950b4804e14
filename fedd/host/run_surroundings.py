"""What one run's node needs of the daemon around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from fedd.api.types import PeerId
from fedd.core.identity import PrivateKey
from fedd.core.manifest import Manifest
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


def start_header(manifest: Manifest, me: PeerId) -> dict[str, Any]:
    """A worker's start message, as far as the manifest decides it."""
    return {
        "kind": "start",
        "run_id": manifest.run_id,
        "me": me,
        "members": list(manifest.members),
        **manifest.graph.document(),
        "epoch": 1,
        "seed": manifest.proposal.seed,
        "quorum": manifest.proposal.quorum,
        "max_payload_bytes": manifest.max_payload_bytes,
    }
