"""Unsigned varints: seven bits a byte, least significant first (multiformats unsigned-varint).

libp2p allows at most 63 bits and demands the shortest form, so that every number has one spelling.
"""

from __future__ import annotations

from fedd.api.errors import ProtocolError

MAX_UVARINT_BYTES = 9
"""Nine groups of seven bits: the 63 bits that the specification allows."""

_MAX_UVARINT = (1 << 63) - 1
_ONE_BYTE = tuple(bytes((number,)) for number in range(0x80))


def encode_uvarint(number: int) -> bytes:
    """Return `number` (0 to 2**63 - 1) as one to nine bytes; ValueError outside that range."""
    if 0 <= number <= 0x7F:  # nearly all are
        return _ONE_BYTE[number]
    if not 0 <= number <= _MAX_UVARINT:
        raise ValueError(f"a varint holds 0 to 2**63 - 1, not {number}")
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def decode_uvarint(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int]:
    """Read a varint at `offset`; return (value, offset of the byte after it).

    ProtocolError when the data ends inside it, when it is longer than nine bytes, or when it is
    not in its shortest form.
    """
    if offset < len(data) and (first := data[offset]) < 0x80:
        return first, offset + 1
    value = 0
    for index in range(MAX_UVARINT_BYTES):
        position = offset + index
        if position >= len(data):
            raise ProtocolError("the data ends inside a varint")
        byte = data[position]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if byte == 0 and index:
                raise ProtocolError("a varint is not in its shortest form")
            return value, position + 1
    raise ProtocolError("a varint is longer than 63 bits")
