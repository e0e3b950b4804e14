"""Acknowledgements of broadcasts: each signed by who delivered, passed on towards the origin.

Everybody sends to the neighbour from which it had the broadcast first: at once who gave it to nobody, the
others what came within 50 ms together. That tree is as wide as the flood was quick, and no node has to hear
from all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import field
from typing import Final

from fedd.api.types import PeerId
from fedd.core.broadcast_messages import Acks
from fedd.core.broadcast_types import Acked, BroadcastId
from fedd.core.dataclass import dataclass
from fedd.core.membership_types import Send

# Those behind a member have it a few milliseconds later and acknowledge at once: theirs and its own then go
# together, also where processors are short. Whoever waits for them notices this for each step, so no longer.
BATCH_S: Final = 0.05
# Broadcasts that somebody waits for, each with its set of members; beyond it the oldest are forgotten.
MAX_TRACKED: Final = 256
TRACKED_S: Final = 60.0
# All members answer, so one origin may ask for it so often within WITHIN_S; receivers allow the double.
OWN_MOST: Final = 64
WITHIN_S: Final = 2.0
# Of 256 bytes at most, in a frame of 16 KiB.
ACKS_A_FRAME: Final = 50


@dataclass(slots=True)
class _Tracked:
    parent: PeerId | None
    at: float
    passed: set[PeerId] = field(default_factory=set)


class Acknowledgements:
    """Those of all broadcasts of late that want any.

    `sign(id)` makes this node's own; `verify(id, peer, sealed)` raises FeddError for a forged one.
    """

    def __init__(
        self,
        me: PeerId,
        sign: Callable[[BroadcastId], bytes],
        verify: Callable[[BroadcastId, PeerId, bytes], object],
    ) -> None:
        self._me = me
        self._sign = sign
        self._verify = verify
        self._tracked: dict[BroadcastId, _Tracked] = {}
        self._tracked_of: Counter[PeerId] = Counter()
        # Of the tracked, those of this node and of others that are still to go to the parent, and when.
        self._waiting: dict[BroadcastId, list[tuple[PeerId, bytes]]] = {}
        self._due: float | None = None

    def wait_s(self, origin: PeerId, most: int, now: float) -> float:
        """How long until fewer than `most` broadcasts of `origin` are younger than WITHIN_S; 0.0: now."""
        if self._tracked_of[origin] < most:
            return 0.0
        times = sorted(tracked.at for name, tracked in self._tracked.items() if name.origin == origin)
        return max(0.0, times[-most] + WITHIN_S - now)

    def delivered(self, name: BroadcastId, source: PeerId | None, now: float) -> None:
        """This node has delivered a broadcast that came from `source` (None: its own)."""
        self._forget(name)
        if self.wait_s(name.origin, 2 * OWN_MOST, now):
            return
        self._tracked[name] = _Tracked(source, now)
        self._tracked_of[name.origin] += 1
        oldest = next(iter(self._tracked))
        while len(self._tracked) > MAX_TRACKED or self._tracked[oldest].at + TRACKED_S < now:
            self._forget(oldest)
            oldest = next(iter(self._tracked))
        if source is not None:
            self._pass_on(name, self._me, self._sign(name), now)

    def asked_again(self, name: BroadcastId, source: PeerId | None, mine: bool, now: float) -> None:
        """The origin asks again, through `source`; `mine`: also for this node's."""
        if name in self._tracked and source is not None:
            self.delivered(name, source, now)
            if not mine:
                self._waiting.pop(name, None)

    def receive(
        self, sender: PeerId, message: Acks, certified: Callable[[PeerId], bool], now: float
    ) -> list[Acked]:
        """`sender` passes acknowledgements on; those of this node's own broadcasts.

        Raises:
            FeddError: one of them is forged; what came before it was taken.
        """
        name = BroadcastId(message.origin, message.epoch, message.seq)
        tracked = self._tracked.get(name)
        arrived: list[Acked] = []
        if tracked is None:
            return arrived
        for peer, sealed in message.acks:
            if peer in tracked.passed or peer == self._me or not certified(peer):
                continue
            # What the origin hears of a peer itself, on a link that proves who it is, nobody can forge.
            if peer != sender or tracked.parent is not None:
                self._verify(name, peer, sealed)
            tracked.passed.add(peer)
            if tracked.parent is None:
                arrived.append(Acked(name.epoch, name.seq, peer))
            else:
                self._pass_on(name, peer, sealed, now)
        return arrived

    def release(self, name: BroadcastId) -> list[Send]:
        """What waits of a broadcast, to the parent now: also when nobody else's is to come."""
        waiting, tracked = self._waiting.pop(name, []), self._tracked.get(name)
        if not self._waiting:
            self._due = None
        if tracked is None or tracked.parent is None:
            return []
        parts = (waiting[at : at + ACKS_A_FRAME] for at in range(0, len(waiting), ACKS_A_FRAME))
        return [Send(tracked.parent, Acks(*name, tuple(part))) for part in parts]

    def next_deadline(self) -> float | None:
        """When a batch is to leave."""
        return self._due

    def handle_timeout(self, now: float) -> list[Send]:
        """The batches that are due."""
        if self._due is None or now < self._due:
            return []
        self._due = None
        return [send for name in list(self._waiting) for send in self.release(name)]

    def _pass_on(self, name: BroadcastId, peer: PeerId, sealed: bytes, now: float) -> None:
        self._waiting.setdefault(name, []).append((peer, sealed))
        self._due = now + BATCH_S if self._due is None else self._due

    def _forget(self, name: BroadcastId) -> None:
        if self._tracked.pop(name, None) is not None:
            self._waiting.pop(name, None)
            self._tracked_of[name.origin] -= 1
            if not self._tracked_of[name.origin]:
                del self._tracked_of[name.origin]
