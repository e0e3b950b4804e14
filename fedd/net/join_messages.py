"""The messages of admission: a two-byte length and a map in canonical CBOR, question and answer on a stream.

`/fedd/join/1.0.0`, a stranger asks: {federation, secret, name} -> {chain, lists}: a certificate chain and
the revocation lists to begin with; {chain: null} when the token is not accepted, whatever is wrong with it;
{chain: null, pending: true} when an admin has to approve first; {chain: null, wait_s} after too many wrong
tokens.
`/fedd/certificate/1.0.0`, a member brings: {chain} -> {accepted, reason}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from fedd.api.errors import FeddError, NotConnected, ProtocolError, TimedOut
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.revocation import MAX_ISSUERS, MAX_LIST_BYTES
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm

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


async def converse(stream: Stream, question: dict[str, Any], max_bytes: int) -> dict[str, Any]:
    """The answer, of at most `max_bytes`, to a question; the stream is over then, whatever happened.

    Raises what `receive` does.
    """
    try:
        await send(stream, question)
        answer = await receive(stream, max_bytes)
        await stream.aclose()
        return answer
    finally:
        stream.reset()  # does nothing to a stream that was closed


async def ask_member(
    swarm: Swarm,
    reach: Callable[[PeerId, float], Awaitable[object]],
    peer: PeerId,
    protocol: str,
    question: dict[str, Any],
    *,
    max_bytes: int,
    deadline_s: float,
    late: str,
    broken: str,
) -> dict[str, Any]:
    """Ask a member one thing, after `reach` has made a connection to it if there was none.

    Raises:
        TimedOut: no answer within `deadline_s`; it says `late` and how long that was. NotConnected: it is not
        reached, or the link broke, and then it says `broken`. ProtocolError: the answer is none.
    """
    try:
        with trio.fail_after(deadline_s):
            await reach(peer, deadline_s)
            stream = await swarm.open_stream(peer, protocol, deadline_s)
            return await converse(stream, question, max_bytes)
    except trio.TooSlowError as error:
        raise TimedOut(
            f"{late} within {deadline_s:g} s", hint="try again when `fedctl members` shows it alive"
        ) from error
    except (trio.BrokenResourceError, EOFError) as error:
        raise NotConnected(broken, hint="try again") from error
