"""The sending half of a connection.

Writing happens inline, in whichever task has something to send, as long as the socket takes it; only when
the socket is full a task is started that waits for it, and ends when all is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from fedd.api.errors import FeddError
from fedd.core.noise import NoiseTransport
from fedd.core.yamux import Session
from fedd.net.buffers import MIN_QUANTUM_BYTES, SMALL_BYTES, BufferPool, seal
from fedd.net.pace import Pace
from fedd.net.transport import Wire

_NOTHING: Final = memoryview(b"")  # pending while the link is full and nothing is encrypted


class Writer:
    """Encrypts and writes what a session has to send, in portions that fit the speed of the link.

    `broke` is called with the error that ended the link; `drained` whenever nothing is pending any more.
    """

    __slots__ = (
        "_broke",
        "_buffer",
        "_drained",
        "_has_task",
        "_parked",
        "_pool",
        "_session",
        "_since",
        "_size",
        "_transport",
        "_wire",
        "bytes_out",
        "closed",
        "nursery",
        "pace",
        "pending",
    )

    def __init__(
        self,
        wire: Wire,
        transport: NoiseTransport,
        session: Session,
        pool: BufferPool,
        *,
        broke: Callable[[Exception], None],
        drained: Callable[[], None],
    ) -> None:
        self.bytes_out = 0
        self.closed = False
        self.pending: memoryview | None = None
        """Encrypted, and not yet taken by the kernel."""
        self.nursery: trio.Nursery | None = None
        """Where the task runs that waits for the socket."""
        self.pace = Pace(wire)
        self._wire = wire
        self._transport = transport
        self._session = session
        self._pool = pool
        self._broke = broke
        self._drained = drained
        self._buffer: memoryview | None = None  # borrowed, `pending` is a part of it
        self._since = 0.0  # when the present write was offered to the kernel
        self._size = 0  # of that write
        self._has_task = False
        self._parked: trio.lowlevel.Task | None = None  # the task, while there is nothing to write

    def flush(self) -> None:
        """Write what can be written now; what the socket does not take, a task writes later."""
        if self.pending is not None or self.closed:
            return
        try:
            while self._session.has_output:
                if not self.write_batch():
                    self._wait_in_a_task()
                    return
        except (OSError, FeddError) as error:
            self._broke(error)

    def write_now(self, frame: bytes) -> None:
        """Write one small frame of the session at once: nothing may be pending."""
        try:
            data = self._transport.encrypt(frame)
            try:
                sent = self._wire.send(data)
            except BlockingIOError:
                sent = 0
            self.bytes_out += sent
            if sent < len(data):
                self._since, self._size = trio.current_time(), len(data)
                self.pending = memoryview(data)[sent:]
                self._wait_in_a_task()
        except (OSError, FeddError) as error:
            self._broke(error)

    def write_batch(self) -> bool:
        """Encrypt and write one quantum; False when the socket is full and a part is pending."""
        quantum = self.pace.quantum_bytes
        if quantum == MIN_QUANTUM_BYTES and self._session.has_bulk and self._wire.is_full():
            # encrypted now, it would be ahead of a heartbeat that comes before there is room
            self.pending = _NOTHING
            self._since, self._size = trio.current_time(), 0
            return False
        pieces, finished = self._session.pull(quantum)
        size = sum(map(len, pieces))
        if size <= MIN_QUANTUM_BYTES + SMALL_BYTES:
            data: bytes | memoryview = self._transport.encrypt(b"".join(pieces))
        else:
            self._buffer = self._pool.take()
            data = self._buffer[: seal(self._transport, self._buffer, pieces)]
        for core in finished:
            core.user.wake_writer()
        self._since, self._size = trio.current_time(), len(data)
        try:
            sent = self._wire.send(data)
        except BlockingIOError:
            sent = 0
        self.bytes_out += sent
        if sent < len(data):
            self.pending = memoryview(data)[sent:]
            return False
        self._taken()
        return True

    def _taken(self) -> None:
        """The kernel has the whole of the present write."""
        self.pace.took(self._size, trio.current_time() - self._since)
        self._release()

    def close(self) -> None:
        """The connection has ended: what is pending never leaves."""
        self.closed = True
        self._release()
        if self._parked is not None:
            trio.lowlevel.reschedule(self._parked)
            self._parked = None

    def _release(self) -> None:
        self.pending = None
        self._drained()
        if self._buffer is not None:
            self._pool.give(self._buffer)
            self._buffer = None

    def _wait_in_a_task(self) -> None:
        """Have the rest written by a task, which is made when a socket is full for the first time."""
        if self._parked is not None:
            trio.lowlevel.reschedule(self._parked)
            self._parked = None
        elif not self._has_task and self.nursery is not None:
            self._has_task = True
            self.nursery.start_soon(self._run)

    async def _run(self) -> None:
        try:
            while not self.closed:
                if self.pending is not None:
                    await self._wire.wait_writable()
                    self._write_pending()
                elif self._session.has_output:
                    if self.write_batch():
                        await trio.lowlevel.checkpoint()
                else:
                    await self._park()
        except trio.ClosedResourceError:
            return
        except (OSError, FeddError) as error:
            self._broke(error)
        finally:
            self._has_task = False

    def _write_pending(self) -> None:
        if self.pending is None:  # the connection ended meanwhile
            return
        try:
            sent = self._wire.send(self.pending) if self.pending else 0
        except BlockingIOError:
            return
        self.bytes_out += sent
        if sent < len(self.pending):
            self.pending = self.pending[sent:]
        else:
            self._taken()

    async def _park(self) -> None:
        self._parked = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
