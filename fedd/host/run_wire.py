"""Frames on the run streams between neighbours: fixed headers and opaque payloads, no CBOR per round.

A node opens one stream to each neighbour. It begins with the signed manifest, so that a neighbour which
never got it can begin; then come frames. The same framing goes back on the stream for acknowledgements.

    preamble   u32 length, sealed manifest
    frame      u8 kind, u32 number, u8 tag length, u32 payload length, tag, payload   (big-endian)
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from fedd.api.errors import ProtocolError
from fedd.core.manifest import MAX_DOCUMENT_BYTES
from fedd.core.rounds import Payload

_HEADER = struct.Struct("!BIBI")
_LENGTH = struct.Struct("!I")

MAX_STATEMENT_BYTES = 4096
"""Payload of every frame but ROUND: a sealed statement with a reason of at most 512 characters."""

JOIN_UP_TO_BYTES = 16 * 1024
"""Smaller payloads are copied behind their header, so that one write carries both."""


class Kind(enum.IntEnum):
    """What a frame says; `number` and payload mean what is noted."""

    ROUND = 1
    """My message for exchange `number`."""
    END = 2
    """I end after `number` exchanges: finished when the payload is empty, else my sealed end statement."""
    NOTICE = 3
    """Another member's sealed end statement, handed on."""
    STOP = 4
    """A member's sealed stop statement."""
    ACK = 5
    """Backwards: your END is here."""
    DROPPED = 6
    """Backwards: you were declared dead, and the run goes on without you. Payload: why, as text."""
    CUT = 7
    """Backwards: the edge between us is cut; we both stay in the run. Payload: why, as text."""


@dataclass(frozen=True, slots=True)
class RunFrame:
    """One frame as it arrived."""

    kind: Kind
    number: int
    tag: str
    payload: Payload


def encode_preamble(sealed_manifest: bytes) -> bytes:
    """The first bytes of a run stream."""
    return _LENGTH.pack(len(sealed_manifest)) + sealed_manifest


def encode_round(number: int, tag: str, payload: Payload) -> list[Payload]:
    """A message as buffers to write one after the other; a large payload is not copied."""
    raw_tag = tag.encode()
    head = _HEADER.pack(Kind.ROUND, number, len(raw_tag), len(payload)) + raw_tag
    if len(payload) <= JOIN_UP_TO_BYTES:
        return [head + payload]
    return [head, payload]


def encode_frame(kind: Kind, number: int = 0, payload: bytes = b"") -> bytes:
    """Any frame but ROUND."""
    return _HEADER.pack(kind, number, 0, len(payload)) + payload


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
        self._needed = _HEADER.size

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[RunFrame]:
        """All frames that `data` completes. Raises ProtocolError; the decoder is of no use afterwards."""
        self._buffer += data
        buffer = self._buffer
        frames: list[RunFrame] = []
        start = 0
        while len(buffer) - start >= self._needed:
            raw_kind, number, tag_length, length = _HEADER.unpack_from(buffer, start)
            self._check(raw_kind, length)
            body = start + _HEADER.size
            end = body + tag_length + length
            if end > len(buffer):
                self._needed = end - start
                break
            self._needed = _HEADER.size
            try:
                tag = buffer[body : body + tag_length].decode()
            except UnicodeDecodeError as error:
                raise ProtocolError("a run frame's tag is not UTF-8") from error
            payload = bytes(memoryview(buffer)[body + tag_length : end])
            frames.append(RunFrame(Kind(raw_kind), number, tag, payload))
            start = end
        if start:
            del buffer[:start]
        return frames

    def _check(self, raw_kind: int, length: int) -> None:
        if not Kind.ROUND <= raw_kind <= Kind.CUT:
            raise ProtocolError(f"a run frame of unknown kind {raw_kind}")
        limit = self._max_payload_bytes if raw_kind == Kind.ROUND else MAX_STATEMENT_BYTES
        if length > limit:
            raise ProtocolError(f"a run frame of {length} bytes; at most {limit} are accepted")
