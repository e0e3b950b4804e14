"""What two linked members say to each other about broadcasts, on the presence stream of their link.

A broadcast is known by (origin, epoch, seq). What its origin signs is its *header*: the federation, the epoch
and seq, the channel, and size and SHA-256 of the payload. So an announcement proves itself without the
payload, and a payload that comes in pieces from whomever needs no other proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from fedd.api.errors import FeddError, ProtocolError
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.dataclass import dataclass
from fedd.core.presence_fields import (
    MAX_ENTRIES,
    ROW_OVERHEAD_BYTES,
    ROWS_BYTES,
    bool_of,
    bytes_of,
    counter_of,
    list_of,
    peer_of,
    text_of,
)
from fedd.core.records import peer_to_bytes

BROADCAST_DOMAIN = "fedd/broadcast/1"
ACK_DOMAIN = "fedd/broadcast-ack/1"
# Larger is no small message any more: it belongs into a stream of its own.
MAX_PAYLOAD_BYTES = 64 * 1024
# Up to here a copy on every link costs less than asking for one.
MAX_FLOODED_BYTES = 1024
# A heartbeat may wait behind two of these: 13 ms at 10 Mbit/s.
CHUNK_BYTES = 8 * 1024
MAX_CHANNEL_CHARS = 32
# Signer, signature and header are about 220 bytes with the longest channel.
MAX_POST_BYTES = 512
MAX_ACK_BYTES = 256
# What one question asks for; more holes wait for the next question.
MAX_RANGES = 8
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Header:
    """What an origin signs of a broadcast. `digest` is the SHA-256 of the payload, `size` its bytes.

    `wants_acks`: whoever delivers it says so to its origin. Channel "" is the protocol's own.
    """

    epoch: int
    seq: int
    channel: str
    wants_acks: bool
    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Post:
    """A broadcast on the wire: its id in clear, so that a copy already held costs no signature check.

    The id is only a claim until the sealed header has been compared with it. `body` is the payload where it
    travels along.
    """

    origin: PeerId
    epoch: int
    seq: int
    sealed: bytes
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Bcast:
    """Broadcasts of at most 1 KiB, whole."""

    posts: tuple[Post, ...]


@dataclass(frozen=True, slots=True)
class Ihave:
    """Larger broadcasts that the sender has: headers alone."""

    posts: tuple[Post, ...]


@dataclass(frozen=True, slots=True)
class Iwant:
    """Send me what you have of these broadcasts: ranges of seq, both ends included."""

    origin: PeerId
    epoch: int
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Gone:
    """The sender has these no longer. `head` is the newest it knows of the origin: proof that they were."""

    head: Post
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Pull:
    """Send me the piece of this large payload that begins at `offset`."""

    origin: PeerId
    epoch: int
    seq: int
    offset: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a large payload; an empty one says that the sender has it no longer."""

    origin: PeerId
    epoch: int
    seq: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Marks:
    """(origin, epoch, seq) up to which the sender has everything that it will ever have.

    A `greeting` is the first thing said on a link; `age_ms` is how long the sender, or whoever it learnt its
    first marks from, has been in the federation.
    """

    greeting: bool
    age_ms: int
    entries: tuple[tuple[PeerId, int, int], ...]


@dataclass(frozen=True, slots=True)
class Acks:
    """Who has delivered this broadcast, each signed by itself, on the way to its origin."""

    origin: PeerId
    epoch: int
    seq: int
    acks: tuple[tuple[PeerId, bytes], ...]


BroadcastMessage: TypeAlias = Bcast | Ihave | Iwant | Gone | Pull | Chunk | Marks | Acks
BROADCAST_MESSAGES = (Bcast, Ihave, Iwant, Gone, Pull, Chunk, Marks, Acks)


def encode_header(federation: str, header: Header) -> bytes:
    """What is signed; `federation` is its id, 64 hex digits."""
    return codec.encode(
        [
            bytes.fromhex(federation),
            header.epoch,
            header.seq,
            header.channel,
            header.wants_acks,
            header.size,
            header.digest,
        ]
    )


def decode_header(federation: str, data: bytes) -> Header:
    """The header in signed bytes.

    Raises:
        ProtocolError: it is none, of another federation, or beyond the bounds.
    """
    fields = _decode(data, 7)
    if bytes_of(fields[0], 32).hex() != federation:
        raise ProtocolError("a broadcast is of another federation")
    header = Header(
        counter_of(fields[1]),
        counter_of(fields[2]),
        text_of(fields[3], MAX_CHANNEL_CHARS),
        bool_of(fields[4]),
        counter_of(fields[5]),
        bytes_of(fields[6], _DIGEST_BYTES),
    )
    if not header.epoch or not header.seq or header.size > MAX_PAYLOAD_BYTES:
        raise ProtocolError("a broadcast's epoch, seq or size is out of bounds")
    return header


def encode_ack(federation: str, origin: PeerId, epoch: int, seq: int) -> bytes:
    """What a member signs to say that it has delivered a broadcast."""
    return codec.encode([bytes.fromhex(federation), peer_to_bytes(origin), epoch, seq])


def split_posts(posts: Iterable[Post]) -> Iterator[tuple[Post, ...]]:
    """`posts` in as many groups as frames are needed."""
    group: list[Post] = []
    room = ROWS_BYTES
    for post in posts:
        size = len(post.sealed) + len(post.body) + ROW_OVERHEAD_BYTES
        if group and size > room:
            yield tuple(group)
            group, room = [], ROWS_BYTES
        group.append(post)
        room -= size
    if group:
        yield tuple(group)


def split_marks(greeting: bool, age_ms: int, entries: list[tuple[PeerId, int, int]]) -> Iterator[Marks]:
    """`entries` in as many messages as frames are needed, at least one."""
    for start in range(0, max(1, len(entries)), MAX_ENTRIES):
        yield Marks(greeting, age_ms, tuple(entries[start : start + MAX_ENTRIES]))


def to_items(message: BroadcastMessage) -> list[Any]:
    """What travels: the message's name and its fields."""
    match message:
        case Bcast(posts):
            return ["bcast", [[*_head_items(post), post.body] for post in posts]]
        case Ihave(posts):
            return ["ihave", [_head_items(post) for post in posts]]
        case Iwant(origin, epoch, ranges):
            return ["iwant", peer_to_bytes(origin), epoch, [list(pair) for pair in ranges]]
        case Gone(head, ranges):
            return ["gone", _head_items(head), [list(pair) for pair in ranges]]
        case Pull(origin, epoch, seq, offset):
            return ["pull", peer_to_bytes(origin), epoch, seq, offset]
        case Chunk(origin, epoch, seq, offset, data):
            return ["chunk", peer_to_bytes(origin), epoch, seq, offset, data]
        case Marks(greeting, age_ms, entries):
            marks = [[peer_to_bytes(origin), epoch, seq] for origin, epoch, seq in entries]
            return ["marks", greeting, age_ms, marks]
        case _:
            signed = [[peer_to_bytes(peer), sealed] for peer, sealed in message.acks]
            return ["acks", peer_to_bytes(message.origin), message.epoch, message.seq, signed]


def decode_items(data: bytes) -> tuple[int, list[PeerId]]:
    """What the protocol's own broadcasts say: the seq of an earlier one, and who is to acknowledge it again.

    Raises:
        ProtocolError: they say something else.
    """
    seq, peers = _decode(data, 2)
    return counter_of(seq), [peer_of(peer) for peer in list_of(peers)]


def encode_items(seq: int, peers: Iterable[PeerId]) -> bytes:
    """The opposite of `decode_items`."""
    return codec.encode([seq, [peer_to_bytes(peer) for peer in peers]])


def _decode(data: bytes, count: int) -> list[Any]:
    try:
        fields = codec.decode(data, canonical=True)
    except FeddError as error:
        raise ProtocolError(f"a broadcast is not readable: {error.detail}") from None
    if len(list_of(fields)) != count:
        raise ProtocolError(f"what is signed of a broadcast does not have {count} fields")
    return list_of(fields)


def _head_items(post: Post) -> list[Any]:
    return [peer_to_bytes(post.origin), post.epoch, post.seq, post.sealed]


def _post(item: object, fields: int) -> Post:
    parts = list_of(item)
    if len(parts) != fields:
        raise ProtocolError(f"a broadcast has {fields} items there")
    body = bytes_of(parts[4], MAX_FLOODED_BYTES) if fields == 5 else b""
    return Post(
        peer_of(parts[0]),
        counter_of(parts[1]),
        counter_of(parts[2]),
        bytes_of(parts[3], MAX_POST_BYTES),
        body,
    )


def _bcast(items: object) -> Bcast:
    return Bcast(tuple(_post(item, 5) for item in list_of(items)))


def _ihave(items: object) -> Ihave:
    return Ihave(tuple(_post(item, 4) for item in list_of(items)))


def _ranges(items: object) -> tuple[tuple[int, int], ...]:
    pairs = [list_of(item, 2) for item in list_of(items, MAX_RANGES)]
    if any(len(pair) != 2 for pair in pairs):
        raise ProtocolError("a range of broadcasts has two ends")
    ranges = tuple((counter_of(first), counter_of(last)) for first, last in pairs)
    if any(first > last for first, last in ranges):
        raise ProtocolError("a range of broadcasts ends before it begins")
    return ranges


def _iwant(origin: object, epoch: object, ranges: object) -> Iwant:
    return Iwant(peer_of(origin), counter_of(epoch), _ranges(ranges))


def _gone(head: object, ranges: object) -> Gone:
    return Gone(_post(head, 4), _ranges(ranges))


def _offset(value: object) -> int:
    if counter_of(value) > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"a broadcast has no byte beyond {MAX_PAYLOAD_BYTES}")
    return counter_of(value)


def _pull(origin: object, epoch: object, seq: object, offset: object) -> Pull:
    return Pull(peer_of(origin), counter_of(epoch), counter_of(seq), _offset(offset))


def _chunk(origin: object, epoch: object, seq: object, offset: object, data: object) -> Chunk:
    return Chunk(
        peer_of(origin), counter_of(epoch), counter_of(seq), _offset(offset), bytes_of(data, CHUNK_BYTES)
    )


def _marks(greeting: object, age_ms: object, items: object) -> Marks:
    entries = [list_of(item, 3) for item in list_of(items)]
    if any(len(entry) != 3 for entry in entries):
        raise ProtocolError("a mark of broadcasts has three items")
    return Marks(
        bool_of(greeting),
        counter_of(age_ms),
        tuple((peer_of(origin), counter_of(epoch), counter_of(seq)) for origin, epoch, seq in entries),
    )


def _acks(origin: object, epoch: object, seq: object, items: object) -> Acks:
    pairs = [list_of(item, 2) for item in list_of(items)]
    if any(len(pair) != 2 for pair in pairs):
        raise ProtocolError("an acknowledgement has two items")
    return Acks(
        peer_of(origin),
        counter_of(epoch),
        counter_of(seq),
        tuple((peer_of(peer), bytes_of(sealed, MAX_ACK_BYTES)) for peer, sealed in pairs),
    )


PARSERS: dict[str, tuple[int, Callable[..., BroadcastMessage]]] = {
    "bcast": (1, _bcast),
    "ihave": (1, _ihave),
    "iwant": (3, _iwant),
    "gone": (2, _gone),
    "pull": (4, _pull),
    "chunk": (5, _chunk),
    "marks": (3, _marks),
    "acks": (4, _acks),
}
