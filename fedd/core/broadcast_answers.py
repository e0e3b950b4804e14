"""What a neighbour is told of the broadcasts held here, when it asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fedd.api.types import PeerId
from fedd.core.broadcast_messages import (
    CHUNK_BYTES,
    MAX_FLOODED_BYTES,
    MAX_RANGES,
    Bcast,
    BroadcastMessage,
    Chunk,
    Gone,
    Ihave,
    Iwant,
    Pull,
    split_posts,
)
from fedd.core.broadcast_origin import Origin


def answer_want(origin: Origin, want: Iwant) -> Iterator[BroadcastMessage]:
    """Everything of `want` that is held, each once however often it was named, and what is gone for good."""
    head = origin.head
    if head is None or want.epoch > origin.epoch:
        return
    if want.epoch < origin.epoch:
        yield Gone(head, want.ranges)
        return
    here = dict(origin.retained)
    here.update((seq, held) for seq, held in origin.pending.items() if held.payload is not None)
    wanted = [here[seq] for seq in sorted(here) if any(first <= seq <= last for first, last in want.ranges)]
    small = [held.post for held in wanted if held.header.size <= MAX_FLOODED_BYTES]
    large = [held.post for held in wanted if held.header.size > MAX_FLOODED_BYTES]
    yield from map(Bcast, split_posts(small))
    yield from map(Ihave, split_posts(large))
    gone: list[tuple[int, int]] = []
    for first, last in want.ranges:
        gone += _holes(
            [seq for seq in sorted(here) if first <= seq <= last], first, min(last, origin.next - 1)
        )
    if gone:
        yield Gone(head, tuple(gone[:MAX_RANGES]))


def answer_pull(origin: Origin | None, pull: Pull) -> Chunk:
    """The piece asked for, an empty one when the payload is not here."""
    data = b""
    if origin is not None and pull.epoch == origin.epoch:
        held = origin.retained.get(pull.seq) or origin.pending.get(pull.seq)
        if held is not None and held.payload is not None:
            data = held.payload[pull.offset : pull.offset + CHUNK_BYTES]
    return Chunk(pull.origin, pull.epoch, pull.seq, pull.offset, data)


def marks_of(origins: Iterable[Origin]) -> list[tuple[PeerId, int, int]]:
    """(origin, epoch, seq) up to which everything is here or given up, of those that ever published."""
    return [(origin.name, *origin.mark) for origin in origins if origin.next > 1]


def _holes(held: list[int], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Ranges from `first` to `last` without what is held."""
    for seq in held:
        if first < seq <= last:
            yield first, seq - 1
        first = max(first, seq + 1)
    if first <= last:
        yield first, last
