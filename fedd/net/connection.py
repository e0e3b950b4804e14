"""A connection: one encrypted wire, many streams.

`fedd.net.reader` and `fedd.net.writer` are its two halves; neither ever waits for the other. An idle
connection holds no buffer and one waiting task.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import field
from typing import TYPE_CHECKING, Final, Literal

import trio

from fedd.api.errors import FeddError, NotConnected, ProtocolError, Refused, TimedOut
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.multistream import Dialer, Rejected
from fedd.core.yamux import Event, EventKind, Session, SessionUsage, YamuxLimits, YamuxStream
from fedd.net.buffers import BufferPool
from fedd.net.doors import TokenBucket
from fedd.net.reader import Reader
from fedd.net.stream import Stream
from fedd.net.tcp import broken_reason
from fedd.net.transport import Wire
from fedd.net.upgrade import Secured
from fedd.net.writer import Writer

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("fedd.net")

HANDLER_GRACE_S: Final = 5.0
"""How long handlers may go on, after their connection ended, with what has arrived."""

RETIRE_S: Final = 10.0
"""How long a peer that does not say so may still open streams on a connection given up here."""

RETIRED_STREAMS_S: Final = 60.0
"""How long streams on such a connection may go on. What needs a link has long moved to the new one; a peer
that never ends its streams must not hold a seat for ever."""

CLOSE_S: Final = 1.0
"""How long a closing connection waits for the kernel to take what was sent last."""

OPENING_ATTEMPTS: Final = 3
"""js-libp2p resets streams beyond a small limit for a moment: opening is worth a second try."""


MAX_REFUSED_STREAMS: Final = 16_384
REFUSED_STREAMS_PER_S: Final = 64.0
"""A peer that opens more streams beyond its quota, or resets so many as it opens them, is not served: one
stream refused costs 5 us."""


class _Nobody:
    """Stands for the user of a stream that was refused; events of it may still be on their way."""

    def wake(self) -> None:
        """Wake nobody."""

    wake_reader = wake_writer = wake


_NOBODY: Final = _Nobody()


@dataclass(slots=True)
class ConnectionHooks:
    """What a connection asks of its owner."""

    serve: Callable[[Stream], Awaitable[None]]
    """Runs in the connection's nursery for each stream that the peer opens; must not raise."""
    inbound_quota: Callable[[PeerId], int]
    """How many streams this peer may have open now."""
    on_up: Callable[[Connection], None]
    """Called once, when streams can be opened."""
    on_down: Callable[[Connection, str], None]
    """Called once, when the connection ends, with the reason."""
    pool: BufferPool = field(default_factory=BufferPool)


class Connection:
    """An authenticated connection to a peer.

    Times are seconds of trio's clock. `close_reason` is None while it is open, then "closed" (the
    peer's end or its kernel closed it), "local", or "error: ...".
    """

    def __init__(
        self,
        secured: Secured,
        direction: Literal["in", "out"],
        hooks: ConnectionHooks,
        limits: YamuxLimits | None = None,
        relayed_by: PeerId | None = None,
    ) -> None:
        self.peer_id: PeerId = secured.peer_id
        self.relayed_by = relayed_by
        """The member that passes its bytes on, which are encrypted from end to end; None: it is direct."""
        self.wire: Wire = secured.wire
        self.remote_address = str(secured.wire.remote_address)
        if relayed_by is not None:  # as libp2p writes it (github.com/libp2p/specs, relay/circuit-v2)
            self.remote_address += "/p2p-circuit"
        self.direction = direction
        self.opened_at = trio.current_time()
        self.last_used = self.opened_at
        """When its owner last saw a reason to keep it."""
        self.rtt_s: float | None = secured.wire.rtt_s
        """The newest measure: by yamux's ping, before the first one the kernel's."""
        self.close_reason: str | None = None
        self.retired = False
        self._hooks = hooks
        self._session = session = Session(direction == "out", limits)
        session.rtt_s = self.rtt_s
        self._first_bytes = (secured.plaintext, secured.ciphertext)
        self.writer = Writer(
            self.wire, secured.transport, session, hooks.pool, broke=self._broke, drained=self.stream_ended
        )
        self.reader = Reader(
            self.wire,
            secured.transport,
            session,
            hooks.pool,
            handle=self._handle,
            flush=self.writer.flush,
            end=self.end,
            broke=self._broke,
        )
        self._nursery: trio.Nursery | None = None
        self._ping_sent_at: float | None = None
        self._pongs = trio.Event()
        self._inbound = 0
        self._refusals = TokenBucket(MAX_REFUSED_STREAMS, REFUSED_STREAMS_PER_S, self.opened_at)
        self._idle = trio.Event()

    def __repr__(self) -> str:
        state = self.close_reason or "open"
        return f"<Connection {self.direction} {self.peer_id} at {self.remote_address}: {state}>"

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self.close_reason is not None

    @property
    def bytes_in(self) -> int:
        """Bytes received since the handshake."""
        return self.reader.bytes_in

    @property
    def bytes_out(self) -> int:
        """Bytes that the kernel took since the handshake."""
        return self.writer.bytes_out

    @property
    def last_received(self) -> float:
        """When bytes last arrived."""
        return self.reader.last_received

    @property
    def takes_streams(self) -> bool:
        """Whether streams can be opened: it is open, and neither end has given it up."""
        unusable = self._nursery is None or self.closed or self.retired or self._session.peer_gone_away
        return not unusable

    @property
    def streams(self) -> list[Stream]:
        """The open streams, those in negotiation included."""
        return [core.user for core in self._session.streams.values()]

    def usage(self) -> SessionUsage:
        """What its streams and windows hold now, and which limits were reached how often."""
        return self._session.usage()

    # ---- opening and closing -------------------------------------------------------------

    async def open_stream(self, protocol: str, deadline_s: float = 10.0) -> Stream:
        """Open a stream for `protocol`.

        Refused when the peer does not speak it with us, NotConnected when the connection ended or is
        being given up, TimedOut when no answer comes.
        """
        for attempt in range(OPENING_ATTEMPTS):
            if not self.takes_streams:
                raise NotConnected(
                    f"the connection to {self.peer_id} takes no new streams", hint="dial it anew"
                )
            stream = Stream(self, self._session, self._session.open())
            try:
                with trio.fail_after(deadline_s):
                    await self._negotiate(stream, protocol)
                return stream
            except trio.BrokenResourceError as error:
                stream.reset()
                if self.closed:
                    raise NotConnected(str(error)) from error
                if attempt == OPENING_ATTEMPTS - 1:
                    raise Refused(f"{self.peer_id} resets every stream opened for {protocol}") from error
            except trio.TooSlowError:
                stream.reset()
                raise TimedOut(f"{self.peer_id} did not answer for {protocol} in {deadline_s:g} s") from None
            except BaseException:
                stream.reset()
                raise
        raise AssertionError("unreachable")

    async def _negotiate(self, stream: Stream, protocol: str) -> None:
        dialer = Dialer([protocol])
        await stream.send_all(dialer.data_to_send())
        while not dialer.finished:
            data = await stream.receive_some()
            if not data:
                dialer.receive_eof()
            for event in dialer.receive_data(data):
                if isinstance(event, Rejected):
                    raise Refused(
                        f"{self.peer_id} does not speak {protocol} with this device",
                        hint="is it a member of the federation, and of the same version?",
                    )
        stream.unread(dialer.trailing)
        stream.protocol = protocol

    @property
    def reached(self) -> dict[str, int]:
        """How often which limit of its streams was reached."""
        return self._session.reached

    def set_limits(self, limits: YamuxLimits) -> None:
        """Let the peer take more, or less, from now on: it has proven to be a member."""
        self._session.limits = limits

    async def aclose(self) -> None:
        """End the connection: its streams break here, the peer reads what was sent, then the end."""
        if self.writer.pending is not None:
            with trio.move_on_after(CLOSE_S):
                while self.writer.pending is not None:
                    await self._changed()
        self.end("local")
        await trio.lowlevel.checkpoint()

    def retire(self) -> None:
        """Take no new streams, and close once both ends have none left."""
        if not self.retired and not self.closed and self._nursery is not None:
            self.retired = True
            self._session.go_away()
            self.flush()
            self._nursery.start_soon(self._close_when_unused)

    async def _close_when_unused(self) -> None:
        with trio.move_on_after(RETIRE_S):
            # until the peer says that it knows, it may open streams in good faith
            while not (self._session.peer_gone_away or self.closed):
                await self._changed()
        with trio.move_on_after(RETIRED_STREAMS_S):
            while self._session.streams:
                await self._changed()
        self.end("local")

    async def _changed(self) -> None:
        """Wait until a stream ended, or what was pending has been written."""
        if self._idle.is_set():
            self._idle = trio.Event()
        await self._idle.wait()

    def flush(self) -> None:
        """Write what can be written now."""
        self.writer.flush()

    def stream_ended(self) -> None:
        """A stream of this connection ended or closed (its streams call this)."""
        self._idle.set()

    def end(self, reason: str, go_away: int = 0) -> None:
        """End the connection now and break all streams; tell the peer what it did wrong, if there is room.

        That it has ended the socket says by itself.
        """
        if self.closed:
            return
        if go_away and self.writer.pending is None:
            with contextlib.suppress(OSError, ProtocolError):
                self._session.go_away(go_away)
                self.writer.write_batch()
        self.close_reason = reason
        self.reader.close()
        self.wire.close()
        self.writer.close()
        for core in self._session.close():
            if core.user is not None:
                core.user.wake()
        self._pongs.set()
        self._idle.set()
        self._hooks.on_down(self, reason)

    async def measure_rtt(self) -> float:
        """Measure the round trip time by yamux's ping, in seconds; NotConnected when it ends first."""
        if self._ping_sent_at is None:
            self._send_ping()
        if not self.closed:
            await self._pongs.wait()
        else:
            await trio.lowlevel.checkpoint()
        if self.closed or self.rtt_s is None:
            raise NotConnected(f"the connection to {self.peer_id} ended: {self.close_reason}")
        return self.rtt_s

    def _send_ping(self) -> None:
        self._ping_sent_at = trio.current_time()
        self._pongs = trio.Event()
        self._session.ping(0)
        self.flush()

    # ---- what happens on it ------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the connection until it ends. Never raises for what a peer does."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = self.writer.nursery = nursery
                try:
                    if self.rtt_s is None:
                        self._send_ping()
                    self._hooks.on_up(self)
                    task_status.started()
                    plaintext, ciphertext = self._first_bytes
                    self._first_bytes = (b"", b"")
                    await self.reader.run(plaintext, ciphertext)
                finally:  # cancelled or not: nobody may start a writer in a nursery that closes
                    self.end("local")
                if nursery.child_tasks:
                    # handlers may finish with what has arrived; what waits for the peer is broken anyway
                    nursery.cancel_scope.deadline = trio.current_time() + HANDLER_GRACE_S
        finally:
            self.end("local")

    def _broke(self, error: Exception) -> None:
        """End the connection for an error; a mistake of ours must cost no more than that."""
        if isinstance(error, OSError):
            self.end(broken_reason(error))
        elif isinstance(error, FeddError):
            log.info("closing the connection to %s: %s", self.peer_id, error.detail)
            self.end(f"error: {error.detail}", go_away=1)
        else:
            log.error("closing the connection to %s", self.peer_id, exc_info=error)
            self.end("error: internal", go_away=2)

    def _handle(self, events: Iterable[Event]) -> None:
        for kind, core, value in events:
            if core is None:
                self._handle_session_event(kind, value)
            elif kind is EventKind.READABLE:
                core.user.wake_reader()
                if core.eof:
                    self._idle.set()
            elif kind is EventKind.OPENED:
                self._opened(core)
            elif kind is EventKind.WRITABLE:
                core.user.wake_writer()
            else:
                core.user.wake()
                self.stream_ended()

    def _handle_session_event(self, kind: EventKind, value: int) -> None:
        if kind is EventKind.PONG:
            if self._ping_sent_at is not None:
                self.rtt_s = self._session.rtt_s = trio.current_time() - self._ping_sent_at
                self._ping_sent_at = None
                self._pongs.set()
        elif value:
            raise ProtocolError(f"the peer goes away because of an error ({value})")
        else:
            self._idle.set()

    def _opened(self, core: YamuxStream) -> None:
        if core.dead or self._nursery is None or self._inbound >= self._hooks.inbound_quota(self.peer_id):
            core.user = _NOBODY  # no stream for it: of a hundred thousand, collecting the garbage takes long
            reached = self._session.reached
            reached["inbound_quota"] = reached.get("inbound_quota", 0) + 1
            self._session.reset(core)
            if not self._refusals.take(trio.current_time()):
                raise ProtocolError("the peer opens streams without end, far beyond what it may")
            return
        stream = Stream(self, self._session, core)
        self._inbound += 1
        self._nursery.start_soon(self._serve, stream)

    async def _serve(self, stream: Stream) -> None:
        try:
            await self._hooks.serve(stream)
        finally:
            self._inbound -= 1
