"""How a simulated run ended, node by node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedd.api.errors import FeddError
from fedd.api.types import Message, PeerId
from fedd.worker.metrics import Metric


@dataclass(frozen=True)
class DroppedPeer:
    """A member that left the run before its end, as one node saw it."""

    peer_id: PeerId
    round: int
    reason: str


@dataclass(frozen=True)
class JoinedPeer:
    """A member that came, or came back, with a later epoch; `round` is where that began."""

    peer_id: PeerId
    epoch: int
    round: int


@dataclass(frozen=True)
class NodeResult:
    """How the run ended on one node. `error` is None where it ended well; a killed node has one too."""

    node: int
    peer_id: PeerId
    value: Message
    contributors: tuple[PeerId, ...]
    dropped: tuple[DroppedPeer, ...]
    rounds: int
    residual: float | None
    agreed: bool
    error: FeddError | None
    killed: bool
    metrics: Mapping[str, Metric]
    epoch: int = 1
    joined: tuple[JoinedPeer, ...] = ()
