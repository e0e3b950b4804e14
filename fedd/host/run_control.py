"""`/fedd/runs/1.0.0`: one question and one answer a stream, to propose, begin and stop runs.

    message   u32 length (big-endian), CBOR map with a "kind"

Questions: propose, manifest, stop, withdraw, history. Answers: accepted, declined, ok, history, error.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import trio

from fedd.api.errors import FeddError, NotConnected, ProtocolError, TimedOut
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.run_terms import MAX_DOCUMENT_BYTES

if TYPE_CHECKING:
    from fedd.net.stream import Stream

CONTROL_PROTOCOL = "/fedd/runs/1.0.0"

MAX_MESSAGE_BYTES = MAX_DOCUMENT_BYTES + 1024
"""A manifest and the map around it."""

_LENGTH = struct.Struct("!I")


class Opener(Protocol):
    """Whoever opens streams: the relay, which reaches every member, or the swarm for those connected."""

    async def open_stream(self, peer_id: PeerId, protocol: str, deadline_s: float = 10.0) -> Stream:
        """A new stream. Raises FeddError."""
        ...


async def read_message(stream: Stream, max_bytes: int = MAX_MESSAGE_BYTES) -> dict[str, Any]:
    """The next message. Raises ProtocolError, or the stream's errors."""
    try:
        (length,) = _LENGTH.unpack(await stream.receive_exactly(_LENGTH.size))
        if not 0 < length <= max_bytes:
            raise ProtocolError(f"{stream.peer_id} sent a run message of {length} bytes")
        data = await stream.receive_exactly(length)
    except EOFError as error:
        raise ProtocolError(f"{stream.peer_id} ended a stream in the middle of a message") from error
    try:
        message = codec.decode(data, max_bytes=max_bytes)
    except FeddError as error:
        raise ProtocolError(f"{stream.peer_id} sent a malformed run message: {error.detail}") from error
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise ProtocolError(f"{stream.peer_id} sent a run message without a kind")
    return message


async def write_message(stream: Stream, message: Mapping[str, Any]) -> None:
    """Send one message. Raises the stream's errors."""
    data = codec.encode(dict(message))
    await stream.send_all(_LENGTH.pack(len(data)) + data)


async def ask(
    opener: Opener,
    peer: PeerId,
    message: Mapping[str, Any],
    deadline_s: float,
    max_reply_bytes: int = MAX_MESSAGE_BYTES,
) -> dict[str, Any]:
    """Put a question to a member and return its answer.

    Raises TimedOut, NotConnected, ProtocolError, or what `open_stream` raises.
    """
    try:
        with trio.fail_after(deadline_s):
            stream = await opener.open_stream(peer, CONTROL_PROTOCOL, deadline_s)
            async with stream:
                await write_message(stream, message)
                return await read_message(stream, max_reply_bytes)
    except trio.TooSlowError as error:
        raise TimedOut(f"no answer within {deadline_s:g} s") from error
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise NotConnected(f"the link broke before the answer: {error}") from error
