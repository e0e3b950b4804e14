"""Reading the fields of presence messages: each of the one type it can have, and within its bound."""

from __future__ import annotations

from typing import Any

from fedd.api.errors import ProtocolError
from fedd.api.types import PeerId
from fedd.core.records import MAX_COUNTER, peer_from_bytes

MAX_FRAME_BYTES = 16 * 1024
# Room for the frame's own structure beside what it carries many of.
ROWS_BYTES = MAX_FRAME_BYTES - 512
# A row beside its envelope: peer id, stamp, CBOR heads. A version entry is the same without the envelope.
ROW_OVERHEAD_BYTES = 80
MAX_ENTRIES = ROWS_BYTES // ROW_OVERHEAD_BYTES


def list_of(value: object, most: int = MAX_ENTRIES) -> list[Any]:
    """A list of at most `most` items; ProtocolError for anything else, here and below."""
    if type(value) is not list or len(value) > most:
        raise ProtocolError(f"a presence message wants a list of at most {most} items there")
    return value


def peer_of(value: object) -> PeerId:
    """A peer id, which travels as its multihash."""
    return peer_from_bytes(bytes_of(value, 64))


def bytes_of(value: object, most: int) -> bytes:
    """At most `most` bytes."""
    if type(value) is not bytes or len(value) > most:
        raise ProtocolError(f"a presence message wants at most {most} bytes there")
    return value


def text_of(value: object, most: int) -> str:
    """At most `most` characters."""
    if not isinstance(value, str) or len(value) > most:
        raise ProtocolError(f"a presence message wants a text of at most {most} characters there")
    return value


def bool_of(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ProtocolError("a presence message wants true or false there")
    return value


def counter_of(value: object) -> int:
    """An integer from 0 to MAX_COUNTER."""
    if type(value) is not int or not 0 <= value <= MAX_COUNTER:
        raise ProtocolError(f"a presence message wants an integer from 0 to {MAX_COUNTER} there")
    return value
