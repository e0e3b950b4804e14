"""The origins of broadcasts that a node knows, and the memory that they may take together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fedd.api.types import PeerId
from fedd.core.broadcast_answers import marks_of
from fedd.core.broadcast_origin import PENDING_BYTES, Origin

# As many as there can be records of members.
MAX_ORIGINS: Final = 4096
# All origins together: what is kept for others, and what waits for its turn.
TOTAL_RETAINED_BYTES: Final = 4 * 1024 * 1024
TOTAL_PENDING_BYTES: Final = 4 * 1024 * 1024


class OriginTable:
    """Origins by peer id, this node's own among them; only members have a place (`certified(peer)`)."""

    def __init__(self, me: PeerId, epoch: int, certified: Callable[[PeerId], bool], now: float) -> None:
        self.certified = certified
        self.own = Origin(me, now, own=True)
        self.own.epoch = epoch
        self.by_name: dict[PeerId, Origin] = {me: self.own}
        # At least what is kept for others: all that was added since it was last counted.
        self._retained_most = 0
        self.refused = 0
        """How many broadcasts were beyond the allowance of their origin, or found no room."""

    @property
    def retained_bytes(self) -> int:
        """What was delivered and is kept for others."""
        return sum(origin.retained_bytes for origin in self.by_name.values())

    @property
    def pending_bytes(self) -> int:
        """What waits for its turn."""
        return sum(origin.pending_bytes for origin in self.by_name.values())

    def begin_epoch(self, epoch: int, now: float) -> None:
        """A new epoch of this node's own broadcasts; its allowance goes on."""
        if epoch > self.own.epoch:
            allowance = self.own.allowance
            self.own = self.by_name[self.own.name] = Origin(self.own.name, now, own=True)
            self.own.epoch, self.own.allowance = epoch, allowance

    def get(self, name: PeerId) -> Origin | None:
        """What is known of that origin."""
        return self.by_name.get(name)

    def other(self, name: PeerId, now: float) -> Origin | None:
        """The place of another member; None for this node, strangers, and when there is no room."""
        if name == self.own.name or not self.certified(name):
            return None
        origin = self.by_name.get(name)
        if origin is None:
            if len(self.by_name) >= MAX_ORIGINS:
                self.refused += 1
                return None
            origin = self.by_name[name] = Origin(name, now)
        return origin

    def has_room(self, origin: Origin, size: int) -> bool:
        """Whether `size` bytes of that origin may wait for their turn."""
        if origin.pending_bytes + size <= PENDING_BYTES and self.pending_bytes + size <= TOTAL_PENDING_BYTES:
            return True
        self.refused += 1
        return False

    def retained(self, size: int) -> None:
        """So many bytes more are kept. Of more than may be, who has most gives way.

        So a storm costs the memory of nobody else.
        """
        self._retained_most += size
        if self._retained_most <= TOTAL_RETAINED_BYTES:
            return
        retained = self.retained_bytes
        while retained > TOTAL_RETAINED_BYTES:
            largest = max(self.by_name.values(), key=lambda origin: origin.retained_bytes)
            retained -= largest.retained_bytes
            largest.forget_oldest()
            retained += largest.retained_bytes
        self._retained_most = retained

    def tidy(self, now: float) -> list[PeerId]:
        """Drop what is old, and whoever is no member any more: their names."""
        for origin in self.by_name.values():
            origin.expire(now)
        names = [name for name in self.by_name if name != self.own.name and not self.certified(name)]
        for name in names:
            del self.by_name[name]
        return names

    def marks(self) -> list[tuple[PeerId, int, int]]:
        """The marks of all."""
        return marks_of(self.by_name.values())
