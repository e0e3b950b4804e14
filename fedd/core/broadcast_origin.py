"""What is known of the broadcasts of one origin: what was delivered, what is held, what is missing."""

from __future__ import annotations

from typing import Final

from fedd.api.types import PeerId
from fedd.core.broadcast_messages import MAX_RANGES, Header, Post
from fedd.core.broadcast_types import Gap
from fedd.core.dataclass import dataclass

# How far ahead of the next one a broadcast is kept; what is older than a window is overtaken for good.
WINDOW: Final = 1024
# Kept after delivery for those who missed it.
RETAINED: Final = 256
RETAINED_BYTES: Final = 1024 * 1024
RETAINED_S: Final = 600.0
# Kept before delivery: a window of 256-byte broadcasts, or a few large ones, behind one that is missing.
PENDING_BYTES: Final = 512 * 1024
# What one costs beside its payload: header, entry, objects.
OVERHEAD_BYTES: Final = 512
# An origin may send this many and this much at once and per second. What can be published at once can still
# be had from others afterwards.
BURST, PER_S = 256.0, 100.0
BURST_BYTES, BYTES_PER_S = 1024.0 * 1024.0, 128.0 * 1024.0


class Allowance:
    """A token bucket of broadcasts and one of bytes, `factor` times what an origin allows itself.

    Receivers allow the double, so that what clocks and queues press together is not lost.
    """

    def __init__(self, factor: float, now: float) -> None:
        self._factor = factor
        self._posts, self._bytes = BURST * factor, BURST_BYTES * factor
        self._at = now

    def wait_s(self, size: int, now: float) -> float:
        """How long until one of `size` bytes may be taken; 0.0: now."""
        elapsed, self._at = max(0.0, now - self._at), max(self._at, now)
        self._posts = min(BURST * self._factor, self._posts + elapsed * PER_S * self._factor)
        self._bytes = min(BURST_BYTES * self._factor, self._bytes + elapsed * BYTES_PER_S * self._factor)
        wait_s = max(
            (1.0 - self._posts) / (PER_S * self._factor), (size - self._bytes) / (BYTES_PER_S * self._factor)
        )
        # Less is a sum's rounding: whoever has waited for it must not wait again.
        return wait_s if wait_s > 1e-6 else 0.0

    def used(self, now: float) -> float:
        """How many of those allowed at once are used up."""
        self.wait_s(0, now)
        return BURST * self._factor - self._posts

    def charge(self, size: int) -> None:
        """One of `size` bytes was taken. Only what is verified is charged: forgeries use up nobody's."""
        self._posts -= 1.0
        self._bytes -= size


@dataclass(frozen=True, slots=True)
class Held:
    """A verified broadcast, from whom it came first, and its payload if that is here yet."""

    post: Post
    header: Header
    source: PeerId | None
    payload: bytes | None
    at: float

    @property
    def cost(self) -> int:
        """Its bytes in memory."""
        return OVERHEAD_BYTES + (len(self.payload) if self.payload is not None else 0)


class Origin:
    """One origin's stream in its present epoch.

    `next` is the seq to deliver next, `top` the highest that the origin has signed as far as is known, `head`
    that header. A `provisional` stream begins where a neighbour's marks said, until the origin's own
    signature says something else.
    """

    def __init__(self, name: PeerId, now: float, *, own: bool = False) -> None:
        self.name = name
        self.allowance = Allowance(1.0 if own else 2.0, now)
        self.epoch = 0
        self.next = 1
        self.top = 0
        self.head: Post | None = None
        self.provisional = False
        self.head_wanted = False
        self.pending: dict[int, Held] = {}
        self.retained: dict[int, Held] = {}
        self.pending_bytes = self.retained_bytes = 0

    @property
    def mark(self) -> tuple[int, int]:
        """(epoch, seq) up to which everything is here or given up."""
        return self.epoch, self.next - 1

    @property
    def incomplete(self) -> bool:
        """Whether the origin has signed something that is not delivered."""
        return self.next <= self.top

    def is_news(self, epoch: int, seq: int) -> bool:
        """Whether a broadcast of that id is neither delivered nor held: asked before the signature."""
        if self.provisional or epoch > self.epoch:
            return True
        return epoch == self.epoch and seq >= self.next and seq not in self.pending

    def adopt(self, epoch: int, seq: int) -> None:
        """A neighbour says that `seq` was the last before this node came: begin behind it."""
        if self.head is None:
            self.epoch, self.next, self.provisional = epoch, seq + 1, True
        elif epoch == self.epoch and not self.retained:
            self.next = max(self.next, min(seq, self.top) + 1)
            for old in [held for held in self.pending if held < self.next]:
                self.drop(old)

    def begin(self, header: Header) -> list[Held | Gap]:
        """The origin has signed `header`. A new epoch ends the old one, whose last items are returned."""
        if self.provisional:
            self.provisional = False
            if header.epoch == self.epoch:
                # At most one is skipped, however large the number that a liar gave.
                self.next = min(header.seq, self.next - 1) + 1
            else:
                self.next = 1 if header.epoch > self.epoch else header.seq
                self.epoch = header.epoch
            return []
        if header.epoch <= self.epoch:
            return []
        last = self.skip(self.top)
        self.retained.clear()
        self.retained_bytes = 0
        self.epoch, self.next, self.top, self.head = header.epoch, 1, 0, None
        return last

    def prove(self, post: Post) -> None:
        """Remember the newest header that the origin has signed."""
        if self.head is None or post.seq > self.top:
            self.top = post.seq
            self.head = Post(post.origin, post.epoch, post.seq, post.sealed)

    def hold(self, held: Held) -> None:
        """Keep a verified broadcast until it is its turn."""
        self.drop(held.post.seq)
        self.pending[held.post.seq] = held
        self.pending_bytes += held.cost

    def drop(self, seq: int) -> None:
        """Keep it no longer, undelivered."""
        held = self.pending.pop(seq, None)
        if held is not None:
            self.pending_bytes -= held.cost

    def advance(self) -> list[Held]:
        """What can be delivered now, in order."""
        ready = []
        while (held := self.pending.get(self.next)) is not None and held.payload is not None:
            self.drop(self.next)
            self.next += 1
            ready.append(held)
        return ready

    def skip(self, last: int) -> list[Held | Gap]:
        """Wait for nothing up to `last` any more: what is here in order, and gaps for what is not."""
        out: list[Held | Gap] = []
        here = sorted(seq for seq, held in self.pending.items() if held.payload is not None and seq <= last)
        for seq in [*here, last + 1]:
            if seq > self.next:
                out.append(Gap(self.name, self.epoch, self.next, seq - 1))
                self.next = seq
            out += self.advance()
        for seq in [seq for seq in self.pending if seq <= last]:
            self.drop(seq)
        return out

    def missing(self, goal: int) -> list[tuple[int, int]]:
        """Ranges up to `goal` of which nothing is held, as many as one question takes."""
        ranges: list[tuple[int, int]] = []
        first = None
        end = min(goal, self.next + WINDOW - 1)
        for seq in range(self.next, end + 2):
            if seq <= end and seq not in self.pending:
                first = seq if first is None else first
            elif first is not None:
                ranges.append((first, seq - 1))
                first = None
                if len(ranges) == MAX_RANGES:
                    break
        return ranges

    def retain(self, held: Held) -> None:
        """Keep what was delivered, for those who missed it; the oldest make room."""
        self.retained[held.post.seq] = held
        self.retained_bytes += held.cost
        while len(self.retained) > RETAINED or self.retained_bytes > RETAINED_BYTES:
            self.forget_oldest()

    def forget_oldest(self) -> None:
        """Keep the oldest delivered one no longer."""
        oldest = next(iter(self.retained))
        self.retained_bytes -= self.retained.pop(oldest).cost

    def expire(self, now: float) -> None:
        """Keep nothing longer than its time."""
        while self.retained and next(iter(self.retained.values())).at + RETAINED_S <= now:
            self.forget_oldest()
