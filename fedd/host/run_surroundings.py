"""What one run's node needs of the daemon around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

import trio

from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.identity import PrivateKey
from fedd.host.run_limits import RunLimits

if TYPE_CHECKING:
    from fedd.core.manifest import Manifest
    from fedd.core.pieces import Payload
    from fedd.host.run_node import RunNode
    from fedd.host.run_result import Story
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
    on_epoch: Callable[[RunNode, Collection[PeerId]], None] = lambda node, before: None
    """The run goes on in another epoch, with other neighbours than those `before`."""
    tell: Callable[[Manifest, Collection[PeerId]], None] = lambda manifest, peers: None
    """Tell these members of an epoch."""
    keep: Callable[[RunNode, Payload], None] = lambda node, state: None
    """Keep a checkpoint on disk, then call `RunNode.checkpoint_kept`."""
    clock: Callable[[], float] = trio.current_time


def start_header(manifest: Manifest, me: PeerId, more: bool = False) -> dict[str, Any]:
    """A worker's start message, as far as the manifest decides it; `more` epochs may follow."""
    return {
        "kind": "start",
        "run_id": manifest.run_id,
        "me": me,
        "members": list(manifest.members),
        **manifest.graph.document(),
        "epoch": manifest.epoch,
        "base_round": manifest.round,
        "newcomers": list(manifest.newcomers),
        "more": more,
        "federation": manifest.proposal.federation,
        "initiator": manifest.proposal.initiator,
        "seed": manifest.proposal.seed,
        "quorum": manifest.proposal.quorum,
        "max_payload_bytes": manifest.max_payload_bytes,
    }
