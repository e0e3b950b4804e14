"""DNS messages (RFC 1035 section 4; RFC 6762 section 18 for multicast): what discovery and look-ups need.

Names are tuples of labels, in lower case, so that comparing them is what DNS means by it. Everything read is
bounded; a compressed name points strictly backwards, so that reading it ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from fedd.api.errors import ProtocolError
from fedd.core.dataclass import dataclass

Name: TypeAlias = tuple[bytes, ...]

A: Final = 1
CNAME: Final = 5
PTR: Final = 12
TXT: Final = 16
AAAA: Final = 28
SRV: Final = 33
ANY: Final = 255

# RFC 6762 section 17. One that came over TCP may be longer, but no honest answer of ours is.
MAX_MESSAGE_BYTES: Final = 9000
# RFC 1035 section 2.3.4.
MAX_LABEL_BYTES: Final = 63
MAX_NAME_BYTES: Final = 255
MAX_TEXT_BYTES: Final = 255
# A busy network's messages hold some dozens of records; each costs 10 us to read.
MAX_QUESTIONS: Final = 64
MAX_RECORDS: Final = 128
# A name has a handful of labels, and at most one pointer after each.
MAX_POINTERS: Final = 16

_CLASS_IN: Final = 1
_CLASS_MASK: Final = 0x7FFF
# RFC 6762 section 10.2: what this record says replaces what others have kept under its name.
_CACHE_FLUSH: Final = 0x8000
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION = 0x8000, 0x0400, 0x0200, 0x0100
_OPCODE_MASK, _CODE_MASK = 0x7800, 0x000F
_POINTER: Final = 0xC0
_HEADER_BYTES: Final = 12


class Pointer(NamedTuple):
    """The data of a PTR or CNAME record: another name."""

    target: Name


class Texts(NamedTuple):
    """The data of a TXT record: strings of at most 255 bytes."""

    strings: tuple[bytes, ...]


class Service(NamedTuple):
    """The data of an SRV record (RFC 2782); priority and weight are 0 when written, ignored when read."""

    port: int
    target: Name


class Question(NamedTuple):
    """Which records of a name are wanted; `type` may be ANY."""

    name: Name
    type: int


@dataclass(frozen=True, slots=True)
class Record:
    """A resource record of class IN; `data` is raw where its type is none of those named here.

    `unique`: nobody else has records of this name and type.
    """

    name: Name
    type: int
    data: Pointer | Texts | Service | bytes
    ttl_s: int
    unique: bool = False


@dataclass(frozen=True, slots=True)
class DnsMessage:
    """A query or a response. `code` is the response's (0: good, 3: no such name; RFC 1035 section 4.1.1)."""

    id: int = 0
    is_response: bool = False
    is_truncated: bool = False
    recursion: bool = False
    code: int = 0
    questions: tuple[Question, ...] = ()
    answers: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()


def parse_name(text: str) -> Name:
    """The labels of a dotted name; ProtocolError when it can be none. A dot at its end changes nothing."""
    try:
        labels = tuple(text.lower().removesuffix(".").encode("ascii").split(b"."))
    except UnicodeEncodeError:
        raise ProtocolError(f"{text[:80]!r} is no domain name: write it in its ASCII form") from None
    _encode_name(labels)
    return labels


def encode_message(message: DnsMessage) -> bytes:
    """The bytes of `message`, without compression; ProtocolError for what DNS cannot hold."""
    flags = _RECURSION if message.recursion else 0
    if message.is_response:
        flags |= _RESPONSE | _AUTHORITATIVE | message.code & _CODE_MASK
    if message.is_truncated:
        flags |= _TRUNCATED
    counts = (len(message.questions), len(message.answers), 0, len(message.additional))
    parts = [number.to_bytes(2, "big") for number in (message.id, flags, *counts)]
    for question in message.questions:
        parts += [_encode_name(question.name), question.type.to_bytes(2, "big"), b"\0\1"]
    for record in (*message.answers, *message.additional):
        data = _encode_data(record.data)
        class_ = _CLASS_IN | (_CACHE_FLUSH if record.unique else 0)
        parts += [_encode_name(record.name), record.type.to_bytes(2, "big"), class_.to_bytes(2, "big")]
        parts += [record.ttl_s.to_bytes(4, "big"), len(data).to_bytes(2, "big"), data]
    data = b"".join(parts)
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a DNS message of {len(data)} bytes is too long")
    return data


def decode_message(data: bytes) -> DnsMessage:
    """Read a message; records of other classes than IN are left out, as is the authority section.

    Raises:
        ProtocolError: it is malformed, of another kind than query and response, or beyond the bounds.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a DNS message of {len(data)} bytes is too long")
    return _Reader(data).message()


def _encode_name(name: Name) -> bytes:
    encoded = b"".join(bytes((len(label) & 0xFF,)) + label for label in name) + b"\0"
    if len(encoded) > MAX_NAME_BYTES or any(not 0 < len(label) <= MAX_LABEL_BYTES for label in name):
        raise ProtocolError(
            f"a DNS name has labels of 1 to {MAX_LABEL_BYTES} bytes, {MAX_NAME_BYTES} bytes in all"
        )
    return encoded


def _encode_data(data: Pointer | Texts | Service | bytes) -> bytes:
    match data:
        case Pointer(target):
            return _encode_name(target)
        case Service(port, target):
            return bytes(4) + port.to_bytes(2, "big") + _encode_name(target)
        case Texts(strings):
            if any(len(string) > MAX_TEXT_BYTES for string in strings):
                raise ProtocolError(f"a string of a TXT record has at most {MAX_TEXT_BYTES} bytes")
            # RFC 6763 section 6.1: a record without strings is written as one empty string.
            return b"".join(bytes((len(string),)) + string for string in strings) or b"\0"
    return data


class _Reader:
    """Walks through one message."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._names: dict[int, Name] = {}  # what was read where, so that pointers cost nothing

    def message(self) -> DnsMessage:
        data = self._take(_HEADER_BYTES)
        number, flags, questions, answers, authority, additional = (
            int.from_bytes(data[at : at + 2], "big") for at in range(0, _HEADER_BYTES, 2)
        )
        if flags & _OPCODE_MASK:
            raise ProtocolError("a DNS message that is neither query nor response")
        if questions > MAX_QUESTIONS or answers + authority + additional > MAX_RECORDS:
            raise ProtocolError(
                f"a DNS message of more than {MAX_QUESTIONS} questions, {MAX_RECORDS} records"
            )
        asked = [self._question() for _ in range(questions)]
        sections = [_known(self._record() for _ in range(n)) for n in (answers, authority, additional)]
        return DnsMessage(
            id=number,
            is_response=bool(flags & _RESPONSE),
            is_truncated=bool(flags & _TRUNCATED),
            recursion=bool(flags & _RECURSION),
            code=flags & _CODE_MASK,
            questions=tuple(question for question in asked if question is not None),
            answers=sections[0],
            additional=sections[2],
        )

    def _question(self) -> Question | None:
        name, kind = self._name(), self._number(2)
        # The highest bit asks for a unicast answer (RFC 6762 section 5.4).
        return Question(name, kind) if self._number(2) & _CLASS_MASK in (_CLASS_IN, ANY) else None

    def _record(self) -> Record | None:
        name, kind, class_, ttl_s, size = (
            self._name(),
            self._number(2),
            self._number(2),
            self._number(4),
            self._number(2),
        )
        end = self._at + size
        if end > len(self._data):
            raise ProtocolError("a DNS record is longer than its message")
        if class_ & _CLASS_MASK != _CLASS_IN:
            self._at = end
            return None
        data = self._record_data(kind, end)
        if self._at != end:
            raise ProtocolError("the data of a DNS record does not fill it")
        return Record(name, kind, data, ttl_s, bool(class_ & _CACHE_FLUSH))

    def _record_data(self, kind: int, end: int) -> Pointer | Texts | Service | bytes:
        if kind in (PTR, CNAME):
            return Pointer(self._name())
        if kind == SRV:
            self._take(4)
            return Service(self._number(2), self._name())
        if kind == TXT:
            strings = []
            while self._at < end:
                strings.append(self._take(self._number(1)))
            return Texts(tuple(string for string in strings if string))
        if end - self._at != {A: 4, AAAA: 16}.get(kind, end - self._at):
            raise ProtocolError("an address record of the wrong size")
        return self._take(end - self._at)

    def _take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise ProtocolError("a DNS message ends too early")
        self._at += count
        return taken

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _name(self) -> Name:
        """Read a name; `_at` is behind it afterwards, wherever its pointers led."""
        start = lowest = self._at
        behind = None
        labels: list[bytes] = []
        pointers = 0
        while size := self._number(1):
            if size <= MAX_LABEL_BYTES:
                labels.append(self._take(size).lower())
                if len(labels) > MAX_NAME_BYTES // 2:
                    raise ProtocolError("a DNS name of too many labels")
                continue
            if size < _POINTER:
                raise ProtocolError("a DNS label of an unknown kind")
            target = (size & ~_POINTER) << 8 | self._number(1)
            behind = self._at if behind is None else behind
            pointers += 1
            if target >= lowest or pointers > MAX_POINTERS:
                raise ProtocolError("a DNS name points forwards, or too often")
            if target in self._names:
                labels += self._names[target]
                break
            self._at = lowest = target
        self._at = self._at if behind is None else behind
        if sum(len(label) + 1 for label in labels) >= MAX_NAME_BYTES:
            raise ProtocolError(f"a DNS name of more than {MAX_NAME_BYTES} bytes")
        self._names[start] = tuple(labels)
        return self._names[start]


def _known(records: Iterable[Record | None]) -> tuple[Record, ...]:
    return tuple(record for record in records if record is not None)
