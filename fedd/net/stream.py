"""One yamux stream of a connection as a trio stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from fedd.api.errors import ProtocolError
from fedd.api.types import PeerId
from fedd.core.yamux import Session, YamuxStream

if TYPE_CHECKING:
    from fedd.net.connection import Connection


class Stream(trio.abc.HalfCloseableStream):
    """A byte stream to a peer, for one protocol.

    `send_all` returns when the bytes are encrypted and on their way to the kernel; a cancelled
    `send_all` has sent half a message, so it resets the stream. Errors are trio's:
    BrokenResourceError when the peer reset the stream or the connection ended (what arrived
    before can still be read), ClosedResourceError after `aclose` or `reset` here. What each
    operation does in each case is a table in docs/reference/streams.md, which the tests follow.
    """

    __slots__ = (
        "_attending",
        "_closed",
        "_core",
        "_in",
        "_out",
        "_prefix",
        "_reader",
        "_sending",
        "_session",
        "_sink",
        "_writer",
        "connection",
        "protocol",
    )

    def __init__(self, connection: Connection, session: Session, core: YamuxStream) -> None:
        self.connection = connection
        self.protocol = ""
        """Empty until negotiated."""
        self._session = session
        self._core = core
        self._in = connection.reader
        self._out = connection.writer
        self._prefix = b""  # read with the negotiation's answer, belongs to the user
        self._closed = False
        self._sending = False
        self._sink: Callable[[], None] | None = None
        self._reader: trio.lowlevel.Task | None = None
        self._attending = False  # the receiving task reads the connection's socket itself
        self._writer: trio.lowlevel.Task | None = None
        core.user = self

    @property
    def peer_id(self) -> PeerId:
        """Who is at the other end, proven by the connection's handshake."""
        return self.connection.peer_id

    @property
    def closed(self) -> bool:
        """Whether this end has closed or reset the stream."""
        return self._closed

    @property
    def broken(self) -> bool:
        """Whether nothing can be sent any more: reset by either end, or the connection ended."""
        return self._core.dead

    def __repr__(self) -> str:
        return f"<Stream {self._core.id} {self.protocol or '(no protocol)'} with {self.peer_id}>"

    # ---- sending -----------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`; waits while the peer's window or the socket is full."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_sendable()
        await trio.lowlevel.checkpoint_if_cancelled()
        core = self._core
        if type(data) is bytes and self._send_now(data):
            await trio.lowlevel.cancel_shielded_checkpoint()
            if core.dead or self._closed:
                self._check_sendable()
            return
        view = memoryview(data)
        if view.format != "B" or view.ndim != 1:
            view = view.cast("B")
        if core.out is not None:  # left to the socket by `try_send`, whole in either case
            self._sending = True
            try:
                while core.out is not None:
                    await self._wait_to_write()
            finally:
                self._sending = False
            self._check_sendable()
        self._session.post(core, view)
        self._out.flush()
        if core.out is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            self._sending = True
            try:
                while core.out is not None:
                    await self._wait_to_write()
            except BaseException:
                self.reset()
                raise
            finally:
                self._sending = False
        if core.dead or self._closed:
            self._check_sendable()

    def try_send(self, data: bytes) -> bool:
        """Send all of `data` at once, or nothing of it: False when it would have to wait.

        It waits for the peer's window and for what was sent before, not for the socket. Small messages get
        away without a pass of the scheduler. Errors as `send_all`.
        """
        self._check_sendable()
        core = self._core
        if self._sending or core.out is not None or len(data) > core.send_window:
            return False
        if not self._send_now(data):
            self._session.post(core, memoryview(data))
            self._out.flush()
        return True

    def _send_now(self, data: bytes) -> bool:
        """Write a small message past the queue, if nothing is in it and nothing pending."""
        writer = self._out
        if writer.pending is not None or writer.closed:
            return False
        frame = self._session.frame(self._core, data)
        if frame is None:
            return False
        writer.write_now(frame)
        return True

    @property
    def room(self) -> int:
        """How many bytes `try_send` takes now."""
        return 0 if self._sending or self._core.out is not None else self._core.send_window

    async def wait_room(self) -> None:
        """Wait until `try_send` takes something. Errors as `send_all`."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await trio.lowlevel.checkpoint()
        self._check_sendable()
        self._sending = True
        try:
            while (self._core.out is not None or self._core.send_window == 0) and not self._core.dead:
                await self._wait_to_write()
                self._check_sendable()
        finally:
            self._sending = False
        self._check_sendable()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the peer's window has room."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_sendable()
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            while self._core.send_window == 0 and not (self._core.dead or self._closed):
                await self._wait_to_write()
        finally:
            self._sending = False
        self._check_sendable()

    async def send_eof(self) -> None:
        """End the sending half; the peer reads the end after all that was sent."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        if not self._core.fin_wanted:
            self._check_sendable()
            self._session.finish(self._core)
            self._out.flush()
        await trio.lowlevel.checkpoint()

    def _check_sendable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        if self._core.fin_wanted:
            raise trio.ClosedResourceError("this stream was closed for sending")
        if self._core.dead:
            raise trio.BrokenResourceError(self._why_broken())

    async def _wait_to_write(self) -> None:
        self._writer = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._writer = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    # ---- receiving ---------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes and give what is there, at most `max_bytes`; b"" at the peer's end."""
        if max_bytes is not None:
            if not isinstance(max_bytes, int):
                raise TypeError(f"max_bytes is a number of bytes, not {max_bytes!r}")
            if max_bytes < 1:
                raise ValueError(f"max_bytes is at least 1, not {max_bytes}")
        if self._reader is not None or self._attending:
            raise trio.BusyResourceError("another task is receiving on this stream")
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        core = self._core
        if core.chunks or core.eof or core.dead or self._prefix:
            await trio.lowlevel.checkpoint()
        while not (core.chunks or core.eof or core.dead or self._prefix or self._closed):
            await self._wait_to_read()
        return self._take(max_bytes)

    @property
    def readable(self) -> bool:
        """Whether `receive_nowait` has something to say: bytes, the end, or an error."""
        core = self._core
        return bool(core.chunks or core.eof or core.dead or self._prefix or self._closed)

    def receive_nowait(self, max_bytes: int | None = None) -> bytes | None:
        """What has arrived, b"" at the peer's end, None when there is nothing. Errors as `receive_some`."""
        return self._take(max_bytes) if self.readable else None

    def deliver_to(self, sink: Callable[[], None] | None) -> None:
        """Have `sink` called at each arrival, at the end and when the stream breaks; None: no more.

        For small messages that must be quick: no task is woken. It is called in the connection's reading
        task, perhaps while it runs already, so it must neither wait nor raise; `receive_nowait` gives it
        what is there. Call it once by hand: what came before is not told. Nobody may wait in
        `receive_some` meanwhile.
        """
        self._sink = sink

    async def receive_exactly(self, count: int) -> bytes:
        """Give exactly `count` bytes.

        EOFError when the peer ended the stream before the first of them, ProtocolError when it
        did so in their midst. Cancelled, it leaves what it had taken to the next call.
        """
        parts: list[bytes] = []
        missing = count
        while missing:
            try:
                data = await self.receive_some(missing)
            except trio.Cancelled:
                self.unread(b"".join(parts))
                raise
            if not data:
                if missing == count:
                    raise EOFError(f"{self.peer_id} ended the stream")
                raise ProtocolError(
                    f"{self.peer_id} ended a {self.protocol} stream after {count - missing} of {count} bytes"
                )
            missing -= len(data)
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def unread(self, data: bytes) -> None:
        """Put bytes back in front of what is still to be read."""
        self._prefix = data + self._prefix

    def _take(self, max_bytes: int | None) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        if self._prefix:
            size = len(self._prefix) if max_bytes is None else max_bytes
            data, self._prefix = self._prefix[:size], self._prefix[size:]
            return data
        core = self._core
        data = self._session.read(core, max_bytes, trio.current_time())
        if data:
            if core.grant:
                self._out.flush()
        elif core.dead and not core.eof:
            raise trio.BrokenResourceError(self._why_broken())
        return data

    async def _wait_to_read(self) -> None:
        if self._reader is not None or self._attending:  # it came while this task was at its checkpoint
            raise trio.BusyResourceError("another task is receiving on this stream")
        if self._in.waiting is None:
            await self._read_the_socket()
            return
        self._reader = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def _read_the_socket(self) -> None:
        """Read for the whole connection until there is something for this stream."""
        reader, core = self._in, self._core
        self._attending = True
        try:
            while not (core.chunks or core.eof or core.dead or self._closed):
                await reader.wait(self)
                reader.read()
            if core.dead:  # often with the connection, whose end is then right behind
                reader.read()
        finally:
            self._attending = False
            reader.leave(served=bool(core.chunks))

    # ---- the end -----------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close both halves: the peer reads all that was sent, then the end.

        If the peer goes on sending, it is told by a reset. If another task was in the midst of
        `send_all`, its message is cut, so the stream is reset.
        """
        self.close_nowait()
        await trio.lowlevel.checkpoint()

    def close_nowait(self) -> None:
        """Close as `aclose` does: what was sent goes out by itself."""
        if not self._closed:
            self._closed = True
            self._prefix = b""
            self._session.abandon(self._core)
            self._out.flush()
            self.wake()
            self.connection.stream_ended()

    def reset(self) -> None:
        """Drop the stream at once; the peer sees it broken."""
        if not self._closed:
            self._closed = True
            self._prefix = b""
            self._session.reset(self._core)
            self._out.flush()
            self.wake()
            self.connection.stream_ended()

    def wake_reader(self) -> None:
        """Let the receiving task, if there is one, look again (for the connection)."""
        if self._sink is not None:
            self._sink()
            return
        task = self._reader
        if task is not None:
            self._reader = None
            self._in.lend()
            trio.lowlevel.reschedule(task)
        elif self._in.waiting is self:
            self._in.interrupt()

    def wake_writer(self) -> None:
        """Let the sending task, if there is one, look again (for the connection)."""
        task = self._writer
        if task is not None:
            self._writer = None
            trio.lowlevel.reschedule(task)

    def wake(self) -> None:
        """Let both tasks look again (for the connection)."""
        self.wake_reader()
        self.wake_writer()

    def _why_broken(self) -> str:
        reason = self.connection.close_reason
        if reason is None:
            return f"{self.peer_id} reset the stream"
        return f"the connection to {self.peer_id} ended: {reason}"
