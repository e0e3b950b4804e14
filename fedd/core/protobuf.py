"""As much of the Protocol Buffers wire format as libp2p's small messages need.

A message is a list of (field number, value): an `int` travels as a varint, `bytes` with their
length in front. Fields that nobody asks for are skipped, as the format demands.
See https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterable

from fedd.api.errors import ProtocolError
from fedd.core.varint import decode_uvarint, encode_uvarint

Message = dict[int, list[int | bytes]]
"""Decoded fields by number, each with its values in the order of their arrival."""

MAX_FIELDS = 256
"""The largest message here, identify, has one field an address or protocol: some dozens."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}


def encode_message(fields: Iterable[tuple[int, int | bytes]]) -> bytes:
    """Return the fields (number >= 1, value) in their given order as one message."""
    encoded = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            encoded += encode_uvarint(number << 3 | _VARINT) + encode_uvarint(value)
        else:
            encoded += encode_uvarint(number << 3 | _BYTES) + encode_uvarint(len(value)) + value
    return bytes(encoded)


def decode_message(data: bytes | memoryview) -> Message:
    """Read a whole message; ProtocolError when it is malformed or has more than MAX_FIELDS fields.

    Fixed-width fields are skipped: none of libp2p's messages that are read here has one.
    """
    message: Message = {}
    offset, end = 0, len(data)
    for _ in range(MAX_FIELDS + 1):
        if offset == end:
            return message
        key = data[offset]
        if key < 0x80:  # nearly all: a call less
            offset += 1
        else:
            key, offset = decode_uvarint(data, offset)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise ProtocolError("a protobuf field has the number 0")
        if wire_type == _VARINT:
            value, offset = _decode_varint64(data, offset)
            message.setdefault(number, []).append(value)
            continue
        if wire_type == _BYTES:
            if offset < end and data[offset] < 0x80:
                length = data[offset]
                offset += 1
            else:
                length, offset = decode_uvarint(data, offset)
        elif wire_type in _FIXED_BYTES:
            length = _FIXED_BYTES[wire_type]
        else:
            raise ProtocolError(f"protobuf field {number} has the unknown wire type {wire_type}")
        if length > end - offset:
            raise ProtocolError(f"the data ends inside protobuf field {number}")
        if wire_type == _BYTES:
            message.setdefault(number, []).append(bytes(data[offset : offset + length]))
        offset += length
    raise ProtocolError(f"a protobuf message has more than {MAX_FIELDS} fields")


def bytes_field(message: Message, number: int) -> bytes | None:
    """Return the last value of a bytes field, None when it is absent; ProtocolError when it is a number."""
    values = repeated_bytes(message, number)
    return values[-1] if values else None


def int_field(message: Message, number: int) -> int | None:
    """Return the last value of a varint field, None when it is absent; ProtocolError when it is bytes."""
    values = message.get(number)
    if not values:
        return None
    value = values[-1]
    if not isinstance(value, int):
        raise ProtocolError(f"protobuf field {number} is bytes where a number belongs")
    return value


def repeated_bytes(message: Message, number: int) -> list[bytes]:
    """Return all values of a bytes field in order; ProtocolError when one of them is a number."""
    values: list[bytes] = []
    for value in message.get(number, ()):
        if isinstance(value, int):
            raise ProtocolError(f"protobuf field {number} is a number where bytes belong")
        values.append(value)
    return values


def _decode_varint64(data: bytes | memoryview, offset: int) -> tuple[int, int]:
    """Read a protobuf varint: up to ten bytes (negative numbers have all ten), any form, modulo 2**64."""
    value = 0
    for index in range(10):
        if offset + index >= len(data):
            raise ProtocolError("the data ends inside a protobuf number")
        byte = data[offset + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, offset + index + 1
    raise ProtocolError("a protobuf number is longer than 64 bits")
