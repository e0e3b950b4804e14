"""Fetching large payloads in pieces, each from one member at a time.

The first to announce is asked; who does not answer within max(2 RTT, 100 ms) makes room for the next, which
goes on where that one stopped. Two pieces are under way at a time: one arrives while the next is asked for,
and a heartbeat waits behind no more.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import field
from typing import Final

from fedd.api.types import PeerId
from fedd.core.broadcast_messages import CHUNK_BYTES, Chunk, Header, Pull
from fedd.core.broadcast_types import BroadcastId
from fedd.core.dataclass import dataclass
from fedd.core.membership_types import Send

# Payloads in the making: half a megabyte at the most.
MAX_ACTIVE: Final = 8
# Enough to find one that lives; whoever announces later is asked through the marks.
MAX_ANNOUNCERS: Final = 8
MAX_ATTEMPTS: Final = 8
PATIENCE_S: Final = 0.1
# A slow link gets longer with each attempt, up to 3.2 s a piece.
MAX_DOUBLINGS: Final = 5


@dataclass(slots=True)
class _Body:
    header: Header
    announcers: deque[PeerId]
    peer: PeerId | None = None
    data: bytearray = field(default_factory=bytearray)
    givers: set[PeerId] = field(default_factory=set)
    asked_of: set[PeerId] = field(default_factory=set)
    asked: int = 0
    deadline: float = 0.0
    # In vain: without a piece in between.
    attempts: int = 0
    doublings: int = 0
    alone: bool = False


class Bodies:
    """The payloads that are wanted. `rtt_of(peer)` is the link's round trip in seconds, None when unknown.

    `lost` collects those that nobody who announced them gives; `liars` who gave something else.
    """

    def __init__(self, rtt_of: Callable[[PeerId], float | None]) -> None:
        self._rtt_of = rtt_of
        self._bodies: dict[BroadcastId, _Body] = {}
        self.sends: list[Send] = []
        self.lost: list[BroadcastId] = []
        self.liars: list[PeerId] = []

    def __len__(self) -> int:
        return len(self._bodies)

    def want(self, name: BroadcastId, header: Header, announcer: PeerId, now: float) -> None:
        """Fetch the payload of `header`, which `announcer` has."""
        self._bodies[name] = _Body(header, deque([announcer]))
        self._start(now)

    def forget_until(self, origin: PeerId, mark: tuple[int, int], now: float) -> None:
        """What was given up up to that (epoch, seq) is wanted no more."""
        for name in [name for name in self._bodies if name.origin == origin and name[1:] <= mark]:
            self.forget(name, now)

    def announced(self, name: BroadcastId, peer: PeerId) -> None:
        """`peer` has it too, if it is wanted."""
        body = self._bodies.get(name)
        if body is None or peer == body.peer or peer in body.announcers:
            return
        if len(body.announcers) < MAX_ANNOUNCERS:
            body.announcers.append(peer)

    def forget(self, name: BroadcastId, now: float) -> None:
        """It is wanted no more."""
        self._bodies.pop(name, None)
        self._start(now)

    def take(self, peer: PeerId, chunk: Chunk, now: float) -> bytes | None:
        """A piece has come; the payload if it was the last."""
        name = BroadcastId(chunk.origin, chunk.epoch, chunk.seq)
        body = self._bodies.get(name)
        if body is None or peer not in body.asked_of or chunk.offset != len(body.data):
            return None
        if not chunk.data:
            if peer == body.peer:
                self._next(name, body, now)
            return None
        body.data += chunk.data
        body.givers.add(peer)
        body.attempts = 0
        if len(body.data) < body.header.size:
            body.deadline = now + self._patience(body, peer)
            self._ask(name, body)
        elif hashlib.sha256(body.data).digest() == body.header.digest:
            # The caller forgets it when it has taken the payload.
            return bytes(body.data)
        else:
            # Of several nobody can tell which one lied: again, from one alone.
            if len(body.givers) == 1:
                self.liars.append(peer)
            body.alone = True
            self._next(name, body, now)
        return None

    def link_down(self, peer: PeerId, now: float) -> None:
        """Nothing comes from `peer` any more."""
        for name, body in list(self._bodies.items()):
            if peer in body.announcers:
                body.announcers.remove(peer)
            if body.peer == peer:
                self._next(name, body, now)
            elif body.peer is None and not body.announcers:
                self._lose(name)

    def take_sends(self) -> list[Send]:
        """The questions to put on the links."""
        sends, self.sends = self.sends, []
        return sends

    def take_lost(self) -> list[BroadcastId]:
        """Those given up since the last call."""
        lost, self.lost = self.lost, []
        return lost

    def take_liars(self) -> list[PeerId]:
        """Who gave something else than what was signed since the last call."""
        liars, self.liars = self.liars, []
        return liars

    def next_deadline(self) -> float | None:
        """When somebody's time is over."""
        return min((body.deadline for body in self._bodies.values() if body.peer is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Ask others instead of those whose time is over."""
        for name, body in list(self._bodies.items()):
            if body.peer is not None and now >= body.deadline:
                body.announcers.append(body.peer)
                self._next(name, body, now)

    def _start(self, now: float) -> None:
        active = sum(body.peer is not None for body in self._bodies.values())
        for name, body in list(self._bodies.items()):
            if active >= MAX_ACTIVE:
                return
            if body.peer is None:
                active += 1
                self._next(name, body, now)

    def _next(self, name: BroadcastId, body: _Body, now: float) -> None:
        if body.alone:
            body.data.clear()
            body.givers.clear()
            body.asked_of.clear()
        body.asked = len(body.data)
        body.peer = None
        if not body.announcers or body.attempts >= MAX_ATTEMPTS:
            self._lose(name)
            self._start(now)
            return
        body.attempts += 1
        body.peer = body.announcers.popleft()
        body.asked_of.add(body.peer)
        body.deadline = now + self._patience(body, body.peer)
        body.doublings = min(body.doublings + 1, MAX_DOUBLINGS)
        self._ask(name, body)
        self._ask(name, body)

    def _ask(self, name: BroadcastId, body: _Body) -> None:
        if body.peer is not None and body.asked < body.header.size:
            self.sends.append(Send(body.peer, Pull(*name, body.asked)))
            body.asked += CHUNK_BYTES

    def _lose(self, name: BroadcastId) -> None:
        self._bodies.pop(name, None)
        self.lost.append(name)

    def _patience(self, body: _Body, peer: PeerId) -> float:
        rtt_s = self._rtt_of(peer) or 0.0
        return float(max(2 * rtt_s, PATIENCE_S) * 2**body.doublings)
