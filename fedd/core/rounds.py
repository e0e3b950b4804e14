"""Lock-step exchange between the neighbours of a run, as a decision machine without a clock.

A round ends when every neighbour's message is there or that neighbour was released (dead, left,
finished, edge cut). There is no timer: who is late is waited for, who is lost is somebody else's
verdict. In lock-step a neighbour is at most one round ahead, so two rounds of buffer suffice. Messages are
never copied, nor put together from the pieces in which they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import TypeAlias

from fedd.api.errors import InvalidMessage, ProtocolError
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.pieces import Arrived, Payload

MAX_TAG_BYTES = 255
"""A tag is a word in a program, and its length travels in one byte."""


@dataclass(frozen=True, slots=True)
class Send:
    """Carry this message to a neighbour, reliably and in order."""

    peer: PeerId
    round: int
    tag: str
    payload: Payload


@dataclass(frozen=True, slots=True)
class Completed:
    """The round is over: `messages` in sorted peer order, and who is no neighbour from now on, with why.

    `gone` may name a peer that still has a message here: it counts in this round and in none after.
    `other_tags` names the neighbours who were at an exchange with another tag, and that tag.
    """

    round: int
    messages: dict[PeerId, Arrived]
    gone: dict[PeerId, str]
    other_tags: dict[PeerId, str] = field(default_factory=dict)


Action: TypeAlias = Send | Completed


@dataclass(slots=True)
class _Neighbor:
    arrived: dict[int, tuple[str, Arrived]] = field(default_factory=dict)
    sent: dict[int, Send] = field(default_factory=dict)
    released: str | None = None


class Rounds:
    """One node's side of a run's exchanges. Rounds count from 0; every method returns what to do next."""

    def __init__(self, neighbors: Iterable[PeerId], max_payload_bytes: int) -> None:
        self._neighbors = {peer: _Neighbor() for peer in sorted(set(neighbors))}
        self._max_payload_bytes = max_payload_bytes
        self._round = 0
        self._tag: str | None = None
        self._missing = 0

    @property
    def round(self) -> int:
        """The exchange in progress, or the next one: as many as were completed."""
        return self._round

    @property
    def in_progress(self) -> bool:
        """Whether an exchange was begun and is not complete."""
        return self._tag is not None

    @property
    def neighbors(self) -> tuple[PeerId, ...]:
        """Who takes part in the present or next exchange, sorted. Changes between exchanges only."""
        return tuple(self._neighbors)

    @property
    def waiting_for(self) -> tuple[PeerId, ...]:
        """Whose message the exchange in progress still lacks, sorted; empty between exchanges."""
        if self._tag is None:
            return ()
        return tuple(peer for peer, near in self._neighbors.items() if self._lacks(near))

    def begin(self, tag: str, payloads: Mapping[PeerId, Payload]) -> list[Action]:
        """Start the next exchange: `payloads` holds one message for each of `neighbors`.

        Raises ProtocolError when an exchange is in progress, InvalidMessage when a neighbour has no
        message, a message is too large or the tag too long. The exchange is then not begun.
        """
        if self._tag is not None:
            raise ProtocolError(f"exchange {self._round} was begun before it was complete")
        if len(tag.encode()) > MAX_TAG_BYTES:
            raise InvalidMessage(f"the tag of exchange {self._round} has more than {MAX_TAG_BYTES} bytes")
        for peer in self._neighbors:
            payload = payloads.get(peer)
            if payload is None:
                raise InvalidMessage(f"exchange {self._round} has no message for neighbour {peer}")
            self._check_size(len(payload), f"the message to {peer}")
        self._tag = tag
        actions: list[Action] = []
        for peer, near in self._neighbors.items():
            if near.released is None:
                send = Send(peer, self._round, tag, payloads[peer])
                near.sent.pop(self._round - 2, None)
                near.sent[self._round] = send
                actions.append(send)
        self._missing = sum(map(self._lacks, self._neighbors.values()))
        return actions + self._complete()

    def receive(self, peer: PeerId, round: int, tag: str, payload: Arrived) -> list[Action]:
        """Take a neighbour's message for its exchange `round`.

        What comes twice, for an exchange that is over, or from somebody who is no neighbour any more,
        is ignored. Raises ProtocolError, and changes nothing, when the message is too large or for an
        exchange that this neighbour cannot have reached: it would have needed a message of mine first.
        """
        near = self._neighbors.get(peer)
        if near is None or near.released is not None or round < self._round or round in near.arrived:
            return []
        furthest = self._round + (self._tag is not None)
        if round > furthest:
            raise ProtocolError(f"{peer} sent exchange {round} when it can be at {furthest} at most")
        self._check_size(len(payload), f"the message of {peer}", ProtocolError)
        near.arrived[round] = (tag, payload)
        if self._tag is None or round != self._round:
            return []
        self._missing -= 1
        return self._complete()

    def release(self, peer: PeerId, reason: str) -> list[Action]:
        """Wait for this neighbour no longer: it is dead, has left or finished, or the edge was cut.

        What had arrived still counts. The first reason stays; a peer that is no neighbour is ignored.
        """
        near = self._neighbors.get(peer)
        if near is None or near.released is not None:
            return []
        lacked = self._tag is not None and self._lacks(near)
        near.released = reason
        near.sent.clear()
        if not lacked:
            return []
        self._missing -= 1
        return self._complete()

    def unsent_for(self, peer: PeerId) -> list[Send]:
        """What to send again on a renewed link, oldest first: the messages of the last two exchanges.

        Earlier ones have arrived, or this node could not have come so far.
        """
        near = self._neighbors.get(peer)
        return [] if near is None else [near.sent[number] for number in sorted(near.sent)]

    def _lacks(self, near: _Neighbor) -> bool:
        return near.released is None and self._round not in near.arrived

    def _check_size(
        self, size: int, what: str, error: type[ProtocolError] | type[InvalidMessage] = InvalidMessage
    ) -> None:
        if size > self._max_payload_bytes:
            raise error(f"{what} has {size} bytes, more than the run's {self._max_payload_bytes}")

    def _complete(self) -> list[Action]:
        if self._tag is None or self._missing:
            return []
        messages: dict[PeerId, Arrived] = {}
        other_tags: dict[PeerId, str] = {}
        gone: dict[PeerId, str] = {}
        for peer, near in self._neighbors.items():
            message = near.arrived.pop(self._round, None)
            if message is not None:
                tag, messages[peer] = message
                if tag != self._tag:
                    other_tags[peer] = tag
            if near.released is not None and not near.arrived:
                gone[peer] = near.released
        for peer in gone:
            del self._neighbors[peer]
        completed = Completed(self._round, messages, gone, other_tags)
        self._round += 1
        self._tag = None
        return [completed]
