"""The receiving half of a connection: whoever waits for bytes reads the socket, for all streams.

A stream's receiver that finds nobody waiting for the socket does that itself, and has its bytes without
another task in between: that is one turn of trio's loop less in each direction of a small message. Once it
has what it came for, the connection's own task waits again; not at once, for most receivers are back a turn
or two later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import trio

from fedd.core.noise import NoiseTransport
from fedd.core.yamux import Event, Session
from fedd.net.buffers import MAX_QUANTUM_BYTES, BufferPool
from fedd.net.transport import Wire

SMALL_READ_BYTES: Final = 2048
"""Up to this, one frame is decrypted into an object of its own and needs no second buffer."""

FLOWING_BYTES: Final = MAX_QUANTUM_BYTES
"""After a read of so much the next one is tried without waiting for the socket first. After smaller ones it
would find little: each read costs as much as 40 KiB, so it is better to wait until there is more."""

LENT_TURNS: Final = 3
"""For so many turns of trio's loop the socket is left to a receiver that was just served: one in which it
takes its bytes, one in which it answers, one in hand."""


class Reader:
    """Reads, decrypts and hands out what arrives.

    `handle` is called with what happened to streams, `flush` when there is something to send, `end` with the
    reason when there is no more, `broke` with the error that ended the link.
    """

    __slots__ = (
        "_broke",
        "_end",
        "_flowing",
        "_flush",
        "_handle",
        "_lent_turns",
        "_parked",
        "_pool",
        "_rest",
        "_session",
        "_transport",
        "_wire",
        "bytes_in",
        "closed",
        "last_received",
        "waiting",
    )

    def __init__(
        self,
        wire: Wire,
        transport: NoiseTransport,
        session: Session,
        pool: BufferPool,
        *,
        handle: Callable[[Iterable[Event]], None],
        flush: Callable[[], None],
        end: Callable[[str], None],
        broke: Callable[[Exception], None],
    ) -> None:
        self.bytes_in = 0
        self.last_received = trio.current_time()
        self.closed = False
        self.waiting: object | None = None
        """Who waits for the socket now."""
        self._flowing = False  # the last read brought much, so most likely there is more
        self._lent_turns = 0  # for so many more, the connection's own task leaves the socket to receivers
        self._wire = wire
        self._transport = transport
        self._session = session
        self._pool = pool
        self._handle = handle
        self._flush = flush
        self._end = end
        self._broke = broke
        self._rest = b""  # the part of a frame that has arrived
        self._parked: trio.lowlevel.Task | None = None

    async def run(self, plaintext: bytes, ciphertext: bytes) -> None:
        """Read until the connection ends, beginning with what came with the handshake."""
        try:
            self._handle(self._session.receive_data(plaintext))
            if self._session.failure is not None:
                raise self._session.failure
            if ciphertext:
                self._rest = ciphertext[self._open_frames(memoryview(ciphertext)) :]
            self._flush()
        except Exception as error:
            self.closed = True
            self._broke(error)
        while not self.closed:
            if self.waiting is not None:
                await self._park()
            elif self._lent_turns:
                self._lent_turns -= 1
                await trio.lowlevel.checkpoint()
            else:
                await self.wait(self)
                self.read()

    async def _park(self) -> None:
        self._parked = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _unpark(self) -> None:
        if self._parked is not None:
            trio.lowlevel.reschedule(self._parked)
            self._parked = None

    async def wait(self, who: object) -> None:
        """Wait until there may be something to read, or the connection ended. Nobody else may be waiting."""
        self.waiting = who
        try:
            if self._flowing:
                await trio.lowlevel.checkpoint()  # half of what asking the kernel through trio costs
            else:
                await self._wire.wait_readable()
        except trio.ClosedResourceError:
            self.closed = True
            self._end("local")
        finally:
            self.waiting = None

    def interrupt(self) -> None:
        """Let whoever waits look again."""
        self._wire.interrupt()

    def lend(self) -> None:
        """A stream's receiver was served: leave the socket to it for a moment, should it come back."""
        self._lent_turns = LENT_TURNS

    def leave(self, served: bool) -> None:
        """A stream's receiver no longer waits for the socket: somebody else must, unless it comes back."""
        self._lent_turns = LENT_TURNS if served else 0
        self._unpark()

    def close(self) -> None:
        """The connection has ended."""
        self.closed = True
        self._unpark()

    def read(self) -> None:
        """Take what the socket has and hand it out. Never raises for what a peer does."""
        if self.closed:
            return
        buffer = self._pool.take()
        try:
            self._read(buffer)
        except BlockingIOError:
            self._flowing = False
        except Exception as error:
            self.closed = True  # whatever follows: a socket that broke is always readable
            self._broke(error)
        finally:
            self._pool.give(buffer)

    def _read(self, buffer: memoryview) -> None:
        rest = self._rest
        end = len(rest)
        if end:
            buffer[:end] = rest  # the part of a frame that came before
            count = self._wire.recv_into(buffer[end:])
        else:
            count = self._wire.recv_into(buffer)
        if not count:
            self.closed = True
            self._end("closed")
            return
        self.last_received = trio.current_time()
        self.bytes_in += count
        self._flowing = count >= FLOWING_BYTES
        end += count
        if end < SMALL_READ_BYTES and end == 2 + (buffer[0] << 8 | buffer[1]):
            self._rest = b""
            events = self._session.receive_data(self._transport.decrypt(buffer[2:end]))
            if events:
                self._handle(events)
            if self._session.failure is not None:
                raise self._session.failure
        else:
            used = self._open_frames(buffer[:end])
            self._rest = bytes(buffer[used:end])
        if self._session.has_output:
            self._flush()

    def _open_frames(self, ciphertext: memoryview) -> int:
        """Decrypt the whole frames and do what they say; give where the first incomplete one starts."""
        transport, session = self._transport, self._session
        plaintext = self._pool.take()
        try:
            used, written = transport.open_frames(ciphertext, plaintext)
            events = session.receive_data(plaintext[:written])
        finally:
            self._pool.give(plaintext)
        if events:
            self._handle(events)
        failure = session.failure or transport.failure
        if failure is not None:
            raise failure
        return used
