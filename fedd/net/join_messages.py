"""The messages of admission: a two-byte length and a map in canonical CBOR, question and answer on a stream.

`/fedd/join/1.0.0`, a stranger asks: {federation, secret, name} -> {chain, lists}: a certificate chain and
the revocation lists to begin with; {chain: null} when the token is not accepted, whatever is wrong with it;
{chain: null, pending: true} when an admin has to approve first; {chain: null, wait_s} after too many wrong
tokens.
`/fedd/certificate/1.0.0`, a member brings: {chain} -> {accepted, reason}.
"""

from __future__ import annotations

from typing import Any, Final

from fedd.api.errors import FeddError, ProtocolError
from fedd.core import codec
from fedd.core.revocation import MAX_ISSUERS, MAX_LIST_BYTES
from fedd.net.stream import Stream

JOIN_PROTOCOL: Final = "/fedd/join/1.0.0"
CERTIFICATE_PROTOCOL: Final = "/fedd/certificate/1.0.0"

# A request is a secret and a name, a certificate chain has at most 2 KiB.
MAX_MESSAGE_BYTES: Final = 4096
# An answer carries lists as well: not all that there can be, the rest comes over the first link.
MAX_ANSWER_BYTES: Final = 60 * 1024
LISTS_BYTES: Final = 56 * 1024
EXCHANGE_S: Final = 5.0


def encode_message(message: dict[str, Any]) -> bytes:
    """The bytes that carry `message`."""
    data = codec.encode(message)
    return len(data).to_bytes(2, "big") + data


def decode_message(data: bytes, source: str) -> dict[str, Any]:
    """The message in `data`, without its length.

    Raises:
        ProtocolError: it is none; the message names `source`.
    """
    try:
        message = codec.decode(data, canonical=True)
    except FeddError as error:
        raise ProtocolError(f"{source} sent no message of admission: {error.detail}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"{source} sent no message of admission")
    return message


def lists_in(answer: dict[str, Any]) -> list[bytes]:
    """The revocation lists in an answer, as many as are acceptable; not yet verified."""
    lists = answer.get("lists")
    if not isinstance(lists, list) or len(lists) > MAX_ISSUERS:
        return []
    return [sealed for sealed in lists if isinstance(sealed, bytes) and len(sealed) <= MAX_LIST_BYTES]


def fitting(lists: list[bytes]) -> list[bytes]:
    """As many of `lists` as an answer has room for, the short ones first."""
    chosen: list[bytes] = []
    for sealed in sorted(lists, key=len):
        if sum(map(len, chosen)) + len(sealed) <= LISTS_BYTES:
            chosen.append(sealed)
    return chosen


async def send(stream: Stream, message: dict[str, Any]) -> None:
    """Send one message."""
    await stream.send_all(encode_message(message))


async def receive(stream: Stream, max_bytes: int = MAX_MESSAGE_BYTES) -> dict[str, Any]:
    """Receive one message. Raises ProtocolError, and what streams raise when they break."""
    size = int.from_bytes(await stream.receive_exactly(2), "big")
    if size > max_bytes:
        raise ProtocolError(f"{stream.peer_id} announces a message of admission of {size} bytes")
    return decode_message(await stream.receive_exactly(size), stream.peer_id)
