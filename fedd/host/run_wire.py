"""Frames on the run streams between neighbours: fixed headers and opaque payloads, no CBOR per round.

A node opens one stream to each neighbour. It begins with the signed manifest, so that a neighbour which
never got it can begin; then come frames. The same framing goes back on the stream for acknowledgements.

    preamble   u32 length, sealed manifest
    frame      u8 kind, u32 number, u8 tag length, u32 payload length, tag, payload   (big-endian)

The payload of MAIL and CONFIRM begins with a receipt, that of MAIL then says what item it is:

    receipt    u64 items that arrived, u64 letters read, u64 their bytes, u8 1 when letters wait to be read
    item       u64 number, u8 kind (`fedd.core.mail.MailKind`), u32 question, the message
"""

from __future__ import annotations

import enum
import struct

from fedd.api.errors import ProtocolError
from fedd.core.dataclass import dataclass
from fedd.core.mail import Item, MailKind, Receipt
from fedd.core.pieces import Arrived, Buffer, Payload, Pieces, whole
from fedd.core.run_terms import MAX_DOCUMENT_BYTES

_HEADER = struct.Struct("!BIBI")
_LENGTH = struct.Struct("!I")
_RECEIPT = struct.Struct("!QQQB")
_ITEM = struct.Struct("!QBI")
_MAIL_BYTES = _RECEIPT.size + _ITEM.size

MAX_STATEMENT_BYTES = 4096
"""Payload of every frame but ROUND and MAIL: a sealed statement with a reason of at most 512 characters."""

JOIN_UP_TO_BYTES = 16 * 1024
"""Smaller payloads are copied behind their header, so that one write carries both."""

FIRST_BYTES = 64 * 1024
"""Of a larger one so much is: a header by itself would be a write, and wake its reader, for 11 bytes."""


class Kind(enum.IntEnum):
    """What a frame says; `number` and payload mean what is noted."""

    ROUND = 1
    """My message for exchange `number`."""
    END = 2
    """I end after `number` exchanges: finished when the payload is empty, else my sealed end statement. The
    tag is the digest of the epoch in which I finished, in hexadecimal; empty for the first."""
    NOTICE = 3
    """Another member's sealed end statement, handed on."""
    STOP = 4
    """A member's sealed stop statement."""
    ACK = 5
    """Backwards: your END is here."""
    DROPPED = 6
    """Backwards: you were declared dead, and the run goes on without you. Payload: why, as text."""
    CUT = 7
    """Both ways: the edge between us is cut. Payload: why, as text; `number` is 1 if by what you sent."""
    MAIL = 8
    """A message outside the exchanges."""
    CONFIRM = 9
    """What has arrived of yours, when nothing goes your way that could carry it."""
    CUT_NOTICE = 10
    """A member's sealed cut statement, its own or handed on."""


_LAST_KIND = max(Kind)


@dataclass(frozen=True, slots=True)
class RunFrame:
    """One frame as it arrived."""

    kind: Kind
    number: int
    tag: str
    payload: Arrived


def encode_preamble(sealed_manifest: bytes) -> bytes:
    """The first bytes of a run stream."""
    return _LENGTH.pack(len(sealed_manifest)) + sealed_manifest


def encode_round(number: int, tag: str, payload: Payload) -> list[Payload]:
    """A message as buffers to write one after the other; a large payload is not copied, but for its start."""
    raw_tag = tag.encode()
    return _behind(_HEADER.pack(Kind.ROUND, number, len(raw_tag), len(payload)) + raw_tag, payload)


def encode_mail(number: int, item: Item, receipt: Receipt) -> list[Payload]:
    """An item as buffers to write one after the other; a large payload is not copied, but for its start."""
    raw_tag = item.tag.encode()
    head = b"".join(
        (
            _HEADER.pack(Kind.MAIL, 0, len(raw_tag), _MAIL_BYTES + len(item.payload)),
            raw_tag,
            _pack_receipt(receipt),
            _ITEM.pack(number, item.kind, item.ref),
        )
    )
    return _behind(head, item.payload)


def _behind(head: bytes, payload: Payload) -> list[Payload]:
    if len(payload) <= JOIN_UP_TO_BYTES:
        return [head + payload]
    view = memoryview(payload)
    first = head + view[:FIRST_BYTES]
    return [first, view[FIRST_BYTES:]] if len(view) > FIRST_BYTES else [first]


def read_mail(frame: RunFrame) -> tuple[int, Receipt, Item]:
    """Number, receipt and item of a MAIL frame. Raises ProtocolError."""
    payload = memoryview(whole(frame.payload))
    try:
        receipt = _read_receipt(payload)
        number, kind, ref = _ITEM.unpack_from(payload, _RECEIPT.size)
        item = Item(MailKind(kind), ref, frame.tag, payload[_MAIL_BYTES:])
    except (struct.error, ValueError) as error:
        raise ProtocolError(f"a message of a run is malformed: {error}") from None
    return number, receipt, item


def encode_confirm(receipt: Receipt) -> bytes:
    """A receipt by itself."""
    return encode_frame(Kind.CONFIRM, 0, _pack_receipt(receipt))


def read_confirm(frame: RunFrame) -> Receipt:
    """The receipt of a CONFIRM frame. Raises ProtocolError."""
    try:
        return _read_receipt(memoryview(whole(frame.payload)))
    except struct.error as error:
        raise ProtocolError(f"a receipt of a run is malformed: {error}") from None


def _pack_receipt(receipt: Receipt) -> bytes:
    return _RECEIPT.pack(receipt.arrived, receipt.read_letters, receipt.read_bytes, receipt.waiting)


def _read_receipt(payload: memoryview) -> Receipt:
    arrived, letters, size, waiting = _RECEIPT.unpack_from(payload)
    return Receipt(arrived, letters, size, bool(waiting))


def encode_frame(kind: Kind, number: int = 0, payload: bytes = b"", tag: str = "") -> bytes:
    """Any frame but ROUND and MAIL."""
    raw_tag = tag.encode()
    return _HEADER.pack(kind, number, len(raw_tag), len(payload)) + raw_tag + payload


class PreambleDecoder:
    """Bytes in, the sealed manifest out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive_data(self, data: bytes | bytearray | memoryview) -> tuple[bytes, bytes] | None:
        """(sealed manifest, what followed) once it is complete. Raises ProtocolError when it is too long."""
        self._buffer += data
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > MAX_DOCUMENT_BYTES:
            raise ProtocolError(f"a run stream that begins with a manifest of {length} bytes")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        return bytes(self._buffer[_LENGTH.size : end]), bytes(self._buffer[end:])


class FrameDecoder:
    """Bytes in, frames out. Sizes are checked before anything is kept for them."""

    def __init__(self, max_payload_bytes: int) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._buffer = bytearray()
        self._begun: tuple[Kind, int, str] | None = None
        """Kind, number and tag of the frame whose large payload is coming in."""
        self._pieces: list[Buffer] = []
        self._missing = 0

    def receive_data(self, data: bytes) -> list[RunFrame]:
        """All frames that `data` completes. Raises ProtocolError; the decoder is of no use afterwards."""
        frames: list[RunFrame] = []
        if self._begun is not None:
            taken = min(self._missing, len(data))
            self._add(data if taken == len(data) else memoryview(data)[:taken], frames)
            if taken == len(data):
                return frames
            data = data[taken:]
        source: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            source = self._buffer
        start = 0
        while self._begun is None and len(source) - start >= _HEADER.size:
            end = self._read_frame(source, start, frames)
            if end == start:
                break
            start = end
        self._buffer = bytearray(source[start:])
        return frames

    def _read_frame(self, source: bytes | bytearray, start: int, frames: list[RunFrame]) -> int:
        """Take the frame that begins at `start` if its head is there; where the next one does.

        A large payload is not waited for in the buffer, where each further piece would move it.
        """
        raw_kind, number, tag_length, length = _HEADER.unpack_from(source, start)
        self._check(raw_kind, length)
        body: int = start + _HEADER.size + tag_length
        end: int = body + length
        large = length > JOIN_UP_TO_BYTES
        if len(source) < (body if large else end):
            return start
        try:
            tag = source[start + _HEADER.size : body].decode()
        except UnicodeDecodeError as error:
            raise ProtocolError("a run frame's tag is not UTF-8") from error
        if large:
            self._begun = (Kind(raw_kind), number, tag)
            self._missing = length
            self._add(memoryview(source)[body:end], frames)
        else:
            frames.append(RunFrame(Kind(raw_kind), number, tag, bytes(source[body:end])))
        return min(end, len(source))

    def _add(self, piece: bytes | memoryview, frames: list[RunFrame]) -> None:
        """The next piece of a large payload: large ones as they are, small ones together.

        Nobody puts them all together here: on the way to a worker that would be one copy more.
        """
        if len(piece) >= JOIN_UP_TO_BYTES:
            self._pieces.append(piece)
        elif piece:
            last = self._pieces[-1] if self._pieces else b""
            if isinstance(last, bytearray) and len(last) < JOIN_UP_TO_BYTES:
                last += piece
            else:
                self._pieces.append(bytearray(piece))
        self._missing -= len(piece)
        if self._begun is not None and not self._missing:
            frames.append(RunFrame(*self._begun, Pieces(self._pieces)))
            self._begun, self._pieces = None, []

    def _check(self, raw_kind: int, length: int) -> None:
        if not Kind.ROUND <= raw_kind <= _LAST_KIND:
            raise ProtocolError(f"a run frame of unknown kind {raw_kind}")
        limit = MAX_STATEMENT_BYTES
        if raw_kind == Kind.ROUND:
            limit = self._max_payload_bytes
        elif raw_kind == Kind.MAIL:
            limit = self._max_payload_bytes + _MAIL_BYTES
        if length > limit:
            raise ProtocolError(f"a run frame of {length} bytes; at most {limit} are accepted")
