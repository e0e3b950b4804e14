"""What two linked members say to each other on `/fedd/presence/1.0.0`, and its framing.

A frame is a two-byte big-endian length and that many bytes of canonical CBOR: an array whose first item names
the message. A frame has at most 16 KiB, so that a heartbeat never waits long behind one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from fedd.api.errors import FeddError, ProtocolError
from fedd.api.types import PeerId
from fedd.core import broadcast_messages, codec
from fedd.core.broadcast_messages import BroadcastMessage
from fedd.core.dataclass import dataclass
from fedd.core.presence_fields import (
    MAX_ENTRIES,
    MAX_FRAME_BYTES,
    ROW_OVERHEAD_BYTES,
    ROWS_BYTES,
    bool_of,
    bytes_of,
    counter_of,
    list_of,
    peer_of,
    text_of,
)
from fedd.core.records import MAX_CHAIN_BYTES, MAX_SEALED_BYTES, Row, Stamp, peer_to_bytes
from fedd.core.revocation import MAX_ISSUERS, MAX_LIST_BYTES, Mark

PRESENCE_PROTOCOL = "/fedd/presence/1.0.0"
PRESENCE_VERSION = 1
HASH_BYTES = 24

ByeReason: TypeAlias = Literal["left", "trim", "shutdown", "duplicate", "refused"]
_BYE_REASONS: Mapping[str, ByeReason] = {
    "left": "left",
    "trim": "trim",
    "shutdown": "shutdown",
    "duplicate": "duplicate",
    "refused": "refused",
}


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of both ends: the proof of membership, checked before anything else is said.

    `pinned` says that this end needs the link, whatever the other's degree.
    """

    federation: str
    chain: bytes
    pinned: bool = False
    version: int = PRESENCE_VERSION


@dataclass(frozen=True, slots=True)
class Ping:
    """Heartbeat of the lower id; `rtt_us` is the last round trip it measured, 0 when none yet."""

    number: int
    rtt_us: int = 0


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to the ping of that number."""

    number: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Records, new to the receiver as far as the sender knows."""

    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """Hash of everything the sender holds."""

    hash: bytes


@dataclass(frozen=True, slots=True)
class Versions:
    """What the sender holds of the ids above `low` and up to `high`, and that it holds no others there.

    An empty `high` means no upper end. A large database travels as several ranges.
    """

    low: str
    high: str
    stamps: tuple[tuple[PeerId, Stamp], ...]

    def covers(self, peer: PeerId) -> bool:
        """Whether `peer` is in the range."""
        return self.low < peer and (not self.high or peer <= self.high)


@dataclass(frozen=True, slots=True)
class Want:
    """Send me your records of these."""

    ids: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """I have links enough: here are others to try. The sender closes the stream."""

    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Pin:
    """Whether the sender needs this link: a needed link is never shed by either end."""

    pinned: bool


@dataclass(frozen=True, slots=True)
class Bye:
    """The sender closes the stream on purpose."""

    reason: ByeReason


@dataclass(frozen=True, slots=True)
class RevocationMarks:
    """Whose revocation lists the sender holds, and at which epoch: send me what is newer."""

    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Revocations:
    """A revocation list as its issuer signed it. Instead of a hello: you are refused because of it."""

    sealed: bytes


Message: TypeAlias = (
    Hello
    | Ping
    | Pong
    | Rows
    | Digest
    | Versions
    | Want
    | Refuse
    | Pin
    | Bye
    | RevocationMarks
    | Revocations
    | BroadcastMessage
)


def encode_message(message: Message) -> bytes:
    """The frame that carries `message`.

    Raises:
        ProtocolError: it would be longer than 16 KiB.
    """
    body = codec.encode(_to_items(message))
    if len(body) > MAX_FRAME_BYTES:
        raise ProtocolError(f"a presence message of {len(body)} bytes is longer than {MAX_FRAME_BYTES}")
    return len(body).to_bytes(2, "big") + body


class MessageDecoder:
    """Turns the bytes of a stream into messages; after a ProtocolError it is to be thrown away."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> list[Message]:
        """The messages that `data` completes.

        Raises:
            ProtocolError: a frame above the cap, or one that is not a message.
        """
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= 2:
            size = int.from_bytes(self._buffer[:2], "big")
            if size > MAX_FRAME_BYTES:
                raise ProtocolError(f"a presence frame announces {size} bytes; {MAX_FRAME_BYTES} is the most")
            if len(self._buffer) < 2 + size:
                break
            body = bytes(self._buffer[2 : 2 + size])
            del self._buffer[: 2 + size]
            messages.append(decode_message(body))
        return messages


def decode_message(body: bytes) -> Message:
    """The message in a frame's body.

    Raises:
        ProtocolError: it is none.
    """
    try:
        items = codec.decode(body, max_bytes=MAX_FRAME_BYTES, canonical=True)
    except FeddError as error:
        raise ProtocolError(f"a presence frame is not readable: {error}") from error
    if not isinstance(items, list) or not items or not isinstance(items[0], str) or items[0] not in _PARSERS:
        raise ProtocolError("a presence frame holds no known message")
    count, parse = _PARSERS[items[0]]
    if len(items) != count + 1:
        raise ProtocolError(f"a presence message {items[0]!r} has {len(items) - 1} fields instead of {count}")
    return parse(*items[1:])


def split_rows(rows: Iterable[Row]) -> Iterator[tuple[Row, ...]]:
    """`rows` in as many groups as frames are needed."""
    group: list[Row] = []
    room = ROWS_BYTES
    for row in rows:
        size = len(row.sealed) + ROW_OVERHEAD_BYTES
        if group and size > room:
            yield tuple(group)
            group, room = [], ROWS_BYTES
        group.append(row)
        room -= size
    if group:
        yield tuple(group)


def split_versions(stamps: Iterable[tuple[PeerId, Stamp]]) -> Iterator[Versions]:
    """`stamps` in ranges that together cover every id there can be."""
    entries = sorted(stamps)
    low = ""
    while len(entries) > MAX_ENTRIES:
        part, entries = entries[:MAX_ENTRIES], entries[MAX_ENTRIES:]
        yield Versions(low, part[-1][0], tuple(part))
        low = part[-1][0]
    yield Versions(low, "", tuple(entries))


def _to_items(message: Message) -> list[Any]:
    match message:
        case Hello(federation, chain, pinned, version):
            return ["hello", version, federation, chain, pinned]
        case Ping(number, rtt_us):
            return ["ping", number, rtt_us]
        case Pong(number):
            return ["pong", number]
        case Rows(rows):
            return ["rows", [_row_items(row) for row in rows]]
        case Refuse(rows):
            return ["refuse", [_row_items(row) for row in rows]]
        case Digest(digest):
            return ["digest", digest]
        case Versions(low, high, stamps):
            return [
                "versions",
                low,
                high,
                [[peer_to_bytes(peer), *stamp] for peer, stamp in stamps],
            ]
        case Want(ids):
            return ["want", [peer_to_bytes(peer) for peer in ids]]
        case Pin(pinned):
            return ["pin", pinned]
        case RevocationMarks(marks):
            return ["revocation-marks", [[peer_to_bytes(peer), epoch] for peer, epoch in marks]]
        case Revocations(sealed):
            return ["revocations", sealed]
        case Bye(reason):
            return ["bye", reason]
        case _:
            return broadcast_messages.to_items(message)


def _row_items(row: Row) -> list[Any]:
    return [peer_to_bytes(row.id), *row.stamp, row.sealed]


def _hello(version: object, federation: object, chain: object, pinned: object) -> Hello:
    return Hello(
        text_of(federation, 128), bytes_of(chain, MAX_CHAIN_BYTES), bool_of(pinned), counter_of(version)
    )


def _bye(reason: object) -> Bye:
    if not isinstance(reason, str) or reason not in _BYE_REASONS:
        raise ProtocolError("a presence message says goodbye for no known reason")
    return Bye(_BYE_REASONS[reason])


def _marks(items: object) -> RevocationMarks:
    pairs = [list_of(item) for item in list_of(items)]
    if len(pairs) > MAX_ISSUERS or any(len(pair) != 2 for pair in pairs):
        raise ProtocolError(f"revocation marks are at most {MAX_ISSUERS} issuers with their epochs")
    return RevocationMarks(tuple((peer_of(peer), counter_of(epoch)) for peer, epoch in pairs))


def _versions(low: object, high: object, stamps: object) -> Versions:
    entries = tuple(_entry(item) for item in list_of(stamps))
    return Versions(text_of(low, 128), text_of(high, 128), entries)


def _entry(item: object) -> tuple[PeerId, Stamp]:
    fields = list_of(item)
    if len(fields) != 4:
        raise ProtocolError("a version entry has four items")
    return peer_of(fields[0]), (counter_of(fields[1]), bool_of(fields[2]), counter_of(fields[3]))


def _row(item: object) -> Row:
    fields = list_of(item)
    if len(fields) != 5:
        raise ProtocolError("a row has five items")
    peer, stamp = _entry(fields[:4])
    return Row(peer, stamp, bytes_of(fields[4], MAX_SEALED_BYTES))


def _rows(items: object) -> tuple[Row, ...]:
    return tuple(_row(item) for item in list_of(items))


_PARSERS: dict[str, tuple[int, Callable[..., Message]]] = {
    "hello": (4, _hello),
    "ping": (2, lambda number, rtt_us: Ping(counter_of(number), counter_of(rtt_us))),
    "pong": (1, lambda number: Pong(counter_of(number))),
    "rows": (1, lambda rows: Rows(_rows(rows))),
    "refuse": (1, lambda rows: Refuse(_rows(rows))),
    "digest": (1, lambda digest: Digest(bytes_of(digest, HASH_BYTES))),
    "versions": (3, _versions),
    "want": (1, lambda ids: Want(tuple(peer_of(item) for item in list_of(ids)))),
    "pin": (1, lambda pinned: Pin(bool_of(pinned))),
    "revocation-marks": (1, lambda marks: _marks(marks)),
    "revocations": (1, lambda sealed: Revocations(bytes_of(sealed, MAX_LIST_BYTES))),
    "bye": (1, _bye),
    **broadcast_messages.PARSERS,
}
