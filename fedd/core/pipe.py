"""Framing of the pipe between the daemon and a worker process.

A frame is a prefix (header length u32, body length u64, big-endian), a header (CBOR: [fields, lengths of
the body's parts]) and the body's parts one after another. The parts stay opaque and are never copied
into the header, so a large array costs no encoding. Neither end trusts the other with its memory: the
lengths are checked before anything is allocated.

The two frames of every exchange have a header of fixed fields instead, which costs a quarter of CBOR's time:

    u8 form (1: "exchange", 2: "round"), u8 same, u64 round, u16 tag length, u16 parts,
    u64 length of each part, tag, peer ids with a zero byte between them

CBOR's header is an array, so its first byte is neither. A round that has more to say travels as CBOR.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

from fedd.api.errors import InvalidMessage, ProtocolError
from fedd.core import codec
from fedd.core.dataclass import dataclass
from fedd.core.pieces import Arrived, Buffer, Pieces

MAX_HEADER_BYTES = 256 * 1024
"""The largest header starts a run: 1,000 members' ids and their edges."""

_PREFIX = struct.Struct(">IQ")
_FIXED = struct.Struct(">BBQHH")
_EXCHANGE, _ROUND = 1, 2
_EXCHANGE_FIELDS = 5
_ROUND_FIELDS = 4
"""kind, round, from and an empty gone: what a round says when nothing has happened."""
_MAX_PARTS = 0xFFFF

BUFFERS_AT_ONCE = 16
"""Of one write: a header and the messages of as many neighbours as most graphs have."""


@dataclass(slots=True)
class Frame:
    """One message: its fields and its opaque parts."""

    header: dict[str, Any]
    body: list[memoryview]


def encode_frame(header: dict[str, Any], body: Sequence[Arrived] = ()) -> list[Buffer]:
    """Return the buffers to write, in order: prefix and header in one, then each part as it was given.

    A part in pieces is as many buffers.

    InvalidMessage when the header holds something that cannot travel or is longer than MAX_HEADER_BYTES.
    """
    lengths = [part.nbytes if isinstance(part, memoryview) else len(part) for part in body]
    encoded = _fixed_header(header, lengths) or codec.encode([header, lengths], canonical=False)
    if len(encoded) > MAX_HEADER_BYTES:
        raise InvalidMessage(f"a frame's header has {len(encoded)} bytes, more than {MAX_HEADER_BYTES}")
    buffers: list[Buffer] = [_PREFIX.pack(len(encoded), sum(lengths)) + encoded]
    for part in body:
        if isinstance(part, Pieces):
            buffers += part.buffers
        else:
            buffers.append(part)
    return buffers


def _fixed_header(header: dict[str, Any], lengths: list[int]) -> bytes | None:
    """The header of an exchange or an uneventful round, None for any other."""
    kind = header.get("kind")
    if kind == "exchange" and len(header) == _EXCHANGE_FIELDS:
        form, same, tag, peers = _EXCHANGE, header["same"], header["tag"], header["to"]
    elif kind == "round" and len(header) == _ROUND_FIELDS and not header["gone"]:
        form, same, tag, peers = _ROUND, False, "", header["from"]
    else:
        return None
    raw_tag, names = tag.encode(), "\0".join(peers)
    if (
        len(lengths) > _MAX_PARTS
        or len(raw_tag) > _MAX_PARTS
        or (names.split("\0") if names else []) != peers
    ):
        return None
    fixed = _FIXED.pack(form, same, header["round"], len(raw_tag), len(lengths))
    return b"".join((fixed, struct.pack(f">{len(lengths)}Q", *lengths), raw_tag, names.encode()))


def _read_fixed_header(encoded: memoryview) -> tuple[dict[str, Any], list[int]]:
    """The fields and the lengths of the parts. ProtocolError when it is cut or holds no text."""
    try:
        form, same, number, tag_bytes, parts = _FIXED.unpack_from(encoded)
        lengths = list(struct.unpack_from(f">{parts}Q", encoded, _FIXED.size))
        text = bytes(encoded[_FIXED.size + 8 * parts :])
        tag, names = text[:tag_bytes].decode(), text[tag_bytes:].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolError(f"a frame's header of fixed fields is malformed: {error}") from None
    peers = names.split("\0") if names else []
    if form == _EXCHANGE:
        header = {"kind": "exchange", "round": number, "tag": tag, "to": peers, "same": bool(same)}
        return header, lengths
    return {"kind": "round", "round": number, "from": peers, "gone": []}, lengths


def _read_cbor_header(encoded: memoryview) -> tuple[dict[str, Any], list[int]]:
    """The fields and the lengths of the parts. ProtocolError when it is something else."""
    try:
        content = codec.decode(encoded, max_bytes=MAX_HEADER_BYTES)
    except InvalidMessage as error:
        raise ProtocolError(f"a frame's header is malformed: {error.detail}") from None
    if not (isinstance(content, list) and len(content) == 2):
        raise ProtocolError("a frame's header is not [fields, lengths]")
    header, lengths = content
    if not (isinstance(header, dict) and isinstance(lengths, list)):
        raise ProtocolError("a frame's header is not [fields, lengths]")
    if not all(type(n) is int and n >= 0 for n in lengths):
        raise ProtocolError("the lengths of a frame's parts do not add up to its body")
    return header, lengths


class PipeDecoder:
    """Cuts the bytes of a pipe into frames of at most `max_frame_bytes` each.

    What was whole before a broken frame is returned, even if both came with the same bytes: what somebody
    said before it went wrong must not depend on how fast the other reads. The next call, which may bring
    nothing, raises ProtocolError. After that the decoder is finished: every further call raises it again.
    """

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._head = bytearray()
        self._head_bytes = _PREFIX.size
        self._header: dict[str, Any] = {}
        self._lengths: list[int] = []
        self._body: bytearray | None = None
        self._body_filled = 0
        self._taken = 0
        self._error = ""

    @property
    def at_boundary(self) -> bool:
        """Whether no frame is half received: at the end of a pipe, False means a cut message."""
        return not self._head and self._body is None

    @property
    def room(self) -> memoryview | None:
        """Where the rest of a frame's body goes, None between bodies: read into it, then call `received`.

        A large body is so never copied on its way out of the socket.
        """
        return None if self._body is None else memoryview(self._body)[self._body_filled :]

    def received(self, count: int) -> list[Frame]:
        """So many bytes were read into `room`; as `receive_data`."""
        if self._body is None or not 0 <= count <= len(self._body) - self._body_filled:
            raise ValueError(f"there was no room for {count} bytes")
        self._body_filled += count
        return [self._finish(self._body)] if self._body_filled == len(self._body) else []

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take the next bytes; return the frames that they complete. ProtocolError on a broken frame.

        A broken frame behind good ones is for the next call to tell.
        """
        if self._error:
            raise ProtocolError(self._error)
        frames: list[Frame] = []
        view = memoryview(data)
        try:
            while view:
                if not self._head and self._body is None and (frame := self._whole(view)) is not None:
                    frames.append(frame)
                    view = view[self._taken :]
                    continue
                taken = self._fill_head(view) if self._body is None else self._fill_body(view, self._body)
                view = view[taken:]
                if self._body is not None and self._body_filled == len(self._body):
                    frames.append(self._finish(self._body))
        except ProtocolError as error:
            self._error = error.detail
            if not frames:
                raise
        return frames

    def _whole(self, view: memoryview) -> Frame | None:
        """The frame at the beginning of `view` if all of it is there, as small ones are: read in one go."""
        if len(view) < _PREFIX.size:
            return None
        header_bytes, body_bytes = _PREFIX.unpack_from(view)
        self._check_sizes(header_bytes, body_bytes)
        body_at = _PREFIX.size + header_bytes
        end = body_at + body_bytes
        if len(view) < end:
            return None
        header, lengths = self._read_header(view[_PREFIX.size : body_at], body_bytes)
        self._taken = end
        return Frame(header, _parts(bytes(view[body_at:end]), lengths))

    def _fill_head(self, view: memoryview) -> int:
        taken = view[: self._head_bytes - len(self._head)]
        self._head += taken
        if len(self._head) == self._head_bytes:
            header_bytes, body_bytes = _PREFIX.unpack_from(self._head)
            if self._head_bytes == _PREFIX.size:
                self._check_sizes(header_bytes, body_bytes)
                self._head_bytes += header_bytes
            else:
                content = memoryview(self._head)[_PREFIX.size :]
                self._header, self._lengths = self._read_header(content, body_bytes)
                self._body, self._body_filled = bytearray(body_bytes), 0
        return len(taken)

    def _check_sizes(self, header_bytes: int, body_bytes: int) -> None:
        if not 0 < header_bytes <= MAX_HEADER_BYTES:
            raise ProtocolError(f"a frame's header claims {header_bytes} bytes, not 1 to {MAX_HEADER_BYTES}")
        if header_bytes + body_bytes > self._max_frame_bytes:
            raise ProtocolError(
                f"a frame claims {header_bytes + body_bytes} bytes, more than {self._max_frame_bytes}"
            )

    def _read_header(self, encoded: memoryview, body_bytes: int) -> tuple[dict[str, Any], list[int]]:
        if encoded[0] in (_EXCHANGE, _ROUND):
            header, lengths = _read_fixed_header(encoded)
        else:
            header, lengths = _read_cbor_header(encoded)
        if sum(lengths) != body_bytes:
            raise ProtocolError("the lengths of a frame's parts do not add up to its body")
        return header, lengths

    def _fill_body(self, view: memoryview, body: bytearray) -> int:
        taken = view[: len(body) - self._body_filled]
        body[self._body_filled : self._body_filled + len(taken)] = taken
        self._body_filled += len(taken)
        return len(taken)

    def _finish(self, body: bytearray) -> Frame:
        frame = Frame(self._header, _parts(body, self._lengths))
        self._head, self._head_bytes, self._body = bytearray(), _PREFIX.size, None
        return frame


def drop_written(unsent: deque[memoryview], written: int) -> None:
    """Take the first `written` bytes from these buffers, none of which is empty."""
    while written:
        first = unsent[0]
        if written < len(first):
            unsent[0] = first[written:]
            return
        written -= len(first)
        unsent.popleft()


def _parts(body: bytes | bytearray, lengths: list[int]) -> list[memoryview]:
    parts: list[memoryview] = []
    offset = 0
    whole = memoryview(body).toreadonly()
    for length in lengths:
        parts.append(whole[offset : offset + length])
        offset += length
    return parts
