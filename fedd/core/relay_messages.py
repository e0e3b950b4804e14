"""What the ends of a relayed circuit and the relay between them say before the bytes pass.

Each message is a u16 length (big-endian) and a CBOR map. `/fedd/relay/1.0.0`, opened at the relay:
`{"to": peer id}`, the bytes of the target's id. `/fedd/relay-in/1.0.0`, opened by the relay at the target:
`{"from": peer id}`. Either is answered by `{"ok": true}`, after which the stream carries the circuit's
bytes, or by `{"refused": why}` and the end of the stream. What the relay says about who is at the other end
is only a claim: the two ends prove it to each other inside (Noise XX).
"""

from __future__ import annotations

import struct
from typing import Any, Final

from fedd.api.errors import FeddError, ProtocolError
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.identity import peer_id_from_bytes, peer_id_to_bytes

RELAY_PROTOCOL: Final = "/fedd/relay/1.0.0"
RELAY_IN_PROTOCOL: Final = "/fedd/relay-in/1.0.0"

LENGTH: Final = struct.Struct("!H")
MAX_MESSAGE_BYTES: Final = 1024
"""A peer id is 38 bytes of it, the reason of a refusal at most MAX_REASON_CHARS characters."""
MAX_REASON_CHARS: Final = 200


def encode_target(target: PeerId) -> bytes:
    """The request to a relay: pass this stream on to `target`."""
    return _frame({"to": peer_id_to_bytes(target)})


def encode_source(source: PeerId) -> bytes:
    """The relay's offer to the target: `source` asks for a circuit."""
    return _frame({"from": peer_id_to_bytes(source)})


def encode_answer(refusal: str | None) -> bytes:
    """The answer: None is yes."""
    return _frame({"ok": True} if refusal is None else {"refused": refusal[:MAX_REASON_CHARS]})


def decode_target(body: bytes) -> PeerId:
    """Whom a request names. Raises ProtocolError."""
    return _peer(body, "to")


def decode_source(body: bytes) -> PeerId:
    """Whom an offer names. Raises ProtocolError."""
    return _peer(body, "from")


def decode_answer(body: bytes) -> str | None:
    """None for yes, else why not, without control characters. Raises ProtocolError."""
    fields = _fields(body)
    refusal = fields.get("refused")
    if len(fields) == 1 and fields.get("ok") is True:
        return None
    if len(fields) != 1 or not isinstance(refusal, str):
        raise ProtocolError("an answer about a circuit that is neither yes nor a refusal")
    return "".join(c for c in refusal[:MAX_REASON_CHARS] if c.isprintable())


def check_length(length: int) -> int:
    """The length of the message that follows. Raises ProtocolError when it is none."""
    if not 0 < length <= MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message about a circuit of {length} bytes")
    return length


def _frame(fields: dict[str, Any]) -> bytes:
    body = codec.encode(fields)
    return LENGTH.pack(len(body)) + body


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = codec.decode(body, max_bytes=MAX_MESSAGE_BYTES)
    except FeddError as error:
        raise ProtocolError(f"a malformed message about a circuit: {error.detail}") from error
    if not isinstance(fields, dict):
        raise ProtocolError("a message about a circuit that is no map")
    return fields


def _peer(body: bytes, key: str) -> PeerId:
    fields = _fields(body)
    named = fields.get(key)
    if len(fields) != 1 or not isinstance(named, bytes):
        raise ProtocolError(f"a message about a circuit that does not say {key!r} whom")
    return peer_id_from_bytes(named)
