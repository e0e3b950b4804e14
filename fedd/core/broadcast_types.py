"""What broadcasting asks for (its actions) and how a broadcast is named."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.membership_types import Send


class BroadcastId(NamedTuple):
    """One broadcast of one life of its origin; `seq` counts from 1."""

    origin: PeerId
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """Give this broadcast to whoever listens on its channel."""

    origin: PeerId
    epoch: int
    seq: int
    channel: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """The broadcasts `first` to `last` of this origin are not to be had: tell whoever listens."""

    origin: PeerId
    epoch: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Acked:
    """`peer` has delivered this broadcast of ours."""

    epoch: int
    seq: int
    peer: PeerId


@dataclass(frozen=True, slots=True)
class Distrust:
    """Give the link with `peer` up: it sends what no honest member passes on."""

    peer: PeerId
    reason: str


BroadcastAction: TypeAlias = Send | Deliver | Gap | Acked | Distrust
