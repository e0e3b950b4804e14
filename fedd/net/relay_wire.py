"""The wire of a relayed connection: a stream to the relay, which passes its bytes on to the other end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import trio

from fedd.net.stream import Stream

_BROKEN = "the circuit through the relay broke"


class RelayWire:
    """A stream as a non-blocking byte link (a `fedd.net.transport.Wire`).

    Back-pressure is the stream's own: what its window does not take is not taken here. The addresses are
    those of the connection with the relay.
    """

    def __init__(self, stream: Stream) -> None:
        outer = stream.connection.wire
        self.local_address = outer.local_address
        self.remote_address = replace(outer.remote_address, peer_id=stream.peer_id)
        self.rtt_s: float | None = None
        self.closed = trio.Event()
        """Set by `close`."""
        self._stream = stream
        self._news = trio.Event()
        self._interrupted = False
        self.send: Callable[[bytes | memoryview], int] = self._send
        self.recv_into: Callable[[memoryview], int] = self._recv_into
        stream.deliver_to(self._on_arrival)

    def is_full(self) -> bool:
        """Whether `wait_writable` would wait."""
        return self._stream.room == 0

    def _send(self, data: bytes | memoryview) -> int:
        stream = self._stream
        if stream.broken or stream.closed:
            raise ConnectionResetError(_BROKEN)
        room = stream.room
        # copied: the caller has its buffer back when this returns, and the stream may not have sent it yet
        if not room or not stream.try_send(bytes(data[:room])):
            raise BlockingIOError
        return min(room, len(data))

    def _recv_into(self, buffer: memoryview) -> int:
        try:
            data = self._stream.receive_nowait(len(buffer))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionResetError(_BROKEN) from error
        if data is None:
            raise BlockingIOError
        buffer[: len(data)] = data
        return len(data)

    def _on_arrival(self) -> None:
        self._news.set()

    def interrupt(self) -> None:
        """Let `wait_readable` return."""
        self._interrupted = True
        self._news.set()

    def limit_unsent(self, size_bytes: int) -> None:
        """Do nothing: the stream has its window, and its connection its own pace."""

    async def wait_readable(self) -> None:
        """Wait for bytes, the end, a break or `interrupt`."""
        self._interrupted = False
        await trio.lowlevel.checkpoint()
        while not (self.closed.is_set() or self._interrupted or self._stream.readable):
            self._news = trio.Event()
            await self._news.wait()
        if self.closed.is_set():
            raise trio.ClosedResourceError("this end was closed")

    async def wait_writable(self) -> None:
        """Wait for room, or a break, which `send` then tells."""
        try:
            await self._stream.wait_room()
        except trio.BrokenResourceError:
            await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close this end: the other reads what is on its way, then the end."""
        if not self.closed.is_set():
            self.closed.set()
            self._stream.close_nowait()
            self._stream.deliver_to(None)
            self._news.set()
