"""A command on a stream of its own: the parameters one way, the answer back.

The protocol id names the command; `fedd.core.command_messages` says what the bytes are.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from fedd.api.errors import InvalidMessage, NotConnected, ProtocolError, Unhealthy
from fedd.net.bounds import Bound

if TYPE_CHECKING:
    from fedd.net.stream import Stream

READ_S = 20.0
"""From a request's first byte to its last: 16 MiB in that time are 7 Mbit/s."""
HELD_BYTES = 64 * 1024 * 1024
"""Requests of all senders that are in memory at once."""
HELD_PER_SENDER = 4
"""Shares of that which no single sender may exceed: a quarter."""

_LENGTH = struct.Struct("!I")


class Memory:
    """What requests may take of the daemon's memory, before anything is allocated for them."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._refused = 0

    def take(self, sender: str, size: int) -> None:
        """Raise Unhealthy when there is no room for so many bytes."""
        mine = self._held.get(sender, 0)
        if sum(self._held.values()) + size > HELD_BYTES or mine + size > HELD_BYTES // HELD_PER_SENDER:
            self._refused += 1
            raise Unhealthy(
                "too many bytes of commands are waiting here", hint="send them one after the other"
            )
        self._held[sender] = mine + size

    def give_back(self, sender: str, size: int) -> None:
        """They are not needed any more."""
        left = self._held[sender] - size
        if left:
            self._held[sender] = left
        else:
            del self._held[sender]

    def bounds(self) -> list[Bound]:
        """How much is taken."""
        held = sum(self._held.values())
        return [Bound("command_bytes", held, HELD_BYTES, self._refused, "of commands' parameters in memory")]


async def read_length(stream: Stream, max_bytes: int) -> int:
    """The length of the message that follows. Raises InvalidMessage when it is beyond `max_bytes`."""
    (length,) = _LENGTH.unpack(await stream.receive_exactly(_LENGTH.size))
    if length > max_bytes:
        raise InvalidMessage(f"{length} bytes are more than the {max_bytes} that are taken here")
    return int(length)


async def write(stream: Stream, data: bytes | memoryview) -> None:
    """Send one message."""
    head = _LENGTH.pack(len(data))
    if len(data) <= 16 * 1024:
        await stream.send_all(head + data)
    else:
        await stream.send_all(head)
        await stream.send_all(data)


async def converse(stream: Stream, request: bytes, max_answer_bytes: int) -> bytes:
    """Send a request and read its answer.

    Raises NotConnected when the link breaks first, ProtocolError when the peer ends the stream in the middle,
    InvalidMessage for an answer that is too large.
    """
    try:
        # Broken: refused before it was read, and the answer, which came before the reset, says why.
        with contextlib.suppress(trio.BrokenResourceError):
            await write(stream, request)
        return await stream.receive_exactly(await read_length(stream, max_answer_bytes))
    except trio.BrokenResourceError as error:
        raise NotConnected(f"the link broke before the answer: {error}") from error
    except EOFError as error:
        raise ProtocolError("the stream ended before the answer") from error


async def cancel_when_gone(stream: Stream, cancel: Callable[[], None]) -> None:
    """Call `cancel` when the sender gives its request up. One that closes its half waits for the answer."""
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        if not await stream.receive_some(1):
            return
    cancel()
