"""What membership is told (its durations) and what it asks for (its actions)."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.presence_messages import Message
from fedd.core.verdicts import MemberChange


@dataclass(frozen=True, slots=True)
class PresenceTiming:
    """Every duration of membership, in seconds. Detection of a silent death takes link_silent + confirm.

    New links are published after addition_min_s, doubling to addition_calm_s, in a large federation (where a
    storm of them costs more) up to addition_max_s; the step is back at its first after addition_quiet_s.
    """

    heartbeat_s: float = 1.0
    link_silent_s: float = 3.0
    link_close_s: float = 20.0
    confirm_s: float = 3.0
    confirm_closed_s: float = 1.0
    isolated_hold_s: float = 15.0
    heal_s: float = 10.0
    digest_s: float = 10.0
    withdrawal_gap_s: float = 0.05
    silence_gap_s: float = 0.25
    addition_min_s: float = 0.05
    addition_calm_s: float = 0.2
    addition_max_s: float = 3.2
    addition_quiet_s: float = 5.0
    flood_s: float = 0.02
    judge_s: float = 0.1
    refresh_s: float = 600.0
    tombstone_s: float = 24 * 3600.0

    @classmethod
    def lan(cls) -> PresenceTiming:
        """For wired and wireless networks without a price per byte."""
        return cls()

    @classmethod
    def metered(cls) -> PresenceTiming:
        """For links that cost money or battery: a fifth of the traffic, three times the patience."""
        return cls(
            heartbeat_s=5.0, link_silent_s=15.0, link_close_s=60.0, confirm_s=8.0, isolated_hold_s=30.0
        )


class Send(NamedTuple):
    """Put `message` on the link with `peer`."""

    peer: PeerId
    message: Message


@dataclass(frozen=True, slots=True)
class Dial:
    """Try to link with `peer`; report by `link_up` or `dial_failed`."""

    peer: PeerId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """End the link with `peer`; it is already forgotten here."""

    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class Persist:
    """Store `epoch` before any later action is performed."""

    epoch: int


class Changed(NamedTuple):
    """Tell whoever cares about members."""

    change: MemberChange


@dataclass(frozen=True, slots=True)
class Notice:
    """Tell the operator: "isolated" or "cloned_key"."""

    kind: str


Action: TypeAlias = Send | Dial | Close | Persist | Changed | Notice
