"""yamux, libp2p's stream multiplexer (github.com/hashicorp/yamux/blob/master/spec.md), sans-IO.

A `Session` takes decrypted bytes in (`receive_data` gives events) and gives frames out
(`pull`, or `data_to_send`). Payload is neither copied on the way out (`pull` hands out views of
what the caller posted) nor on the way in when a whole `bytes` object is payload. Nothing waits:
what cannot leave yet is posted and leaves by a later `pull`.

When the peer breaks the protocol, `Session.failure` says how; the connection must then be closed.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

from fedd.api.errors import ProtocolError, Unhealthy
from fedd.core.yamux_stream import (
    ACK,
    FIN,
    INITIAL_WINDOW_BYTES,
    RST,
    SYN,
    Event,
    EventKind,
    SessionUsage,
    YamuxLimits,
    YamuxStream,
)

__all__ = ["PROTOCOL", "Event", "EventKind", "Session", "SessionUsage", "YamuxLimits", "YamuxStream"]

PROTOCOL: Final = "/yamux/1.0.0"
FAIR_QUANTUM_BYTES: Final = 16 * 1024
"""What one of several busy streams sends before it is the next one's turn."""

URGENT_BYTES: Final = 4096
"""A stream that posts no more than this goes before the busy ones: a heartbeat or a command does not wait
behind bulk data (as new flows do in RFC 8290, section 4.2). All that do so together have at most half of a
pull while others wait, so that many small messages do not starve them."""

SHORTEST_RTT_S: Final = 0.01
"""For growing windows no round trip is shorter: below it, it is not the wire but the scheduling of two
processes that decides when a window comes back."""

_HEADER: Final = struct.Struct(">BBHII")
_HEADER_BYTES: Final = 12
_DATA, _WINDOW, _PING, _GO_AWAY = range(4)
_MAX_UINT32: Final = 2**32 - 1
_COALESCE_BYTES: Final = 4096
"""Payloads below this are gathered into one buffer: an object each would cost ten times their size."""
_COALESCED_BYTES: Final = 32 * 1024


class Session:
    """One end of a yamux connection; `initiator` is the end that dialled."""

    def __init__(self, initiator: bool, limits: YamuxLimits | None = None) -> None:
        self.limits = limits if limits is not None else YamuxLimits()
        self.streams: dict[int, YamuxStream] = {}
        self.rtt_s: float | None = None
        """The round trip time, told by the user; windows grow only once it is known."""
        self.peer_gone_away = False
        self.reached: dict[str, int] = {}
        """How often which limit was reached."""
        self.failure: ProtocolError | None = None
        """What the peer did wrong. Events that `receive_data` gave up to then are valid."""
        self._initiator = initiator
        self._next_id = 1 if initiator else 2
        self._abandoned: dict[int, YamuxStream] = {}  # oldest first
        self._inbound = 0
        self._unacknowledged = 0
        self._extra = 0
        self._aborted = 0  # opened and reset by the peer since something left
        self._buffered = 0  # unread, of the streams in `streams`
        self._control: list[bytes] = []
        self._grants: list[YamuxStream] = []
        self._ready: deque[YamuxStream] = deque()
        self._urgent: deque[YamuxStream] = deque()
        self._header = bytearray()  # the part of a frame's header that has arrived
        self._remaining = 0  # of the current frame's payload
        self._current: YamuxStream | None = None  # whose payload it is; None: to be skipped
        self._current_ends = False

    # ---- verbs -------------------------------------------------------------------------

    def open(self) -> YamuxStream:
        """Open a stream; Unhealthy when too many wait for their acknowledgement."""
        if self._unacknowledged >= self.limits.unacknowledged_streams:
            self._reach("unacknowledged_streams")
            raise Unhealthy(
                f"{self._unacknowledged} streams wait for the peer to acknowledge them",
                hint="the peer is overloaded or stuck; try again later",
            )
        if self._next_id > _MAX_UINT32:
            raise Unhealthy("this connection has used up its stream numbers", hint="connect anew")
        stream = self.streams[self._next_id] = YamuxStream(self._next_id, SYN)
        self._next_id += 2
        self._unacknowledged += 1
        self._enqueue(stream)
        return stream

    def post(self, stream: YamuxStream, data: memoryview) -> None:
        """Give bytes to be sent; the memory must not change while `stream.sending`."""
        if stream.out is not None or stream.fin_wanted or stream.dead:
            raise ValueError(f"stream {stream.id} takes no bytes now")
        if len(data):
            stream.out = data
            stream.small = len(data) <= URGENT_BYTES
            self._enqueue(stream)

    def finish(self, stream: YamuxStream) -> None:
        """End the sending half, after what was posted."""
        if not (stream.fin_wanted or stream.dead):
            stream.fin_wanted = True
            self._enqueue(stream)

    def abandon(self, stream: YamuxStream) -> None:
        """Finish, and take no more bytes: a peer that still sends is told so by a reset."""
        if stream.dead or stream.refused:
            return
        if stream.out is not None:  # a part of it has left, and the rest never will
            self.reset(stream)
            return
        self.finish(stream)
        unread = stream.buffered_bytes
        self._drop_buffer(stream)
        stream.refused = True
        if self.streams.get(stream.id) is stream:
            self._abandoned[stream.id] = stream
            if len(self._abandoned) > self.limits.abandoned_streams:
                self._reach("abandoned_streams")
                self._refuse(next(iter(self._abandoned.values())))
        if unread and not stream.eof:
            self._refuse(stream)

    def reset(self, stream: YamuxStream) -> None:
        """End both halves at once; what waits to be sent or read is dropped."""
        self._drop_buffer(stream)
        if stream.dead or self.streams.get(stream.id) is not stream:
            return
        if stream.due != SYN:  # else the peer has never heard of it
            self._queue_control(_HEADER.pack(0, _WINDOW, RST, stream.id, 0))
        self._kill(stream)

    def read(self, stream: YamuxStream, max_bytes: int | None, now: float) -> bytes:
        """Take up to `max_bytes` (None: one chunk) of what has arrived, b"" when there is nothing.

        `now` is monotonic seconds: a window that is used up within 4 round trips is doubled.
        """
        if not stream.chunks:
            return b""
        chunk = stream.chunks[0]
        offset = stream.offset
        if max_bytes is None or len(chunk) - offset <= max_bytes:
            stream.chunks.popleft()
            stream.offset = 0
            data = bytes(memoryview(chunk)[offset:]) if offset else bytes(chunk)
        else:
            data = bytes(memoryview(chunk)[offset : offset + max_bytes])
            stream.offset = offset + max_bytes
        stream.buffered_bytes -= len(data)
        if not stream.dead and self.streams.get(stream.id) is stream:
            self._buffered -= len(data)
        stream.credit += len(data)
        if stream.credit * 2 >= stream.target and not (stream.eof or stream.dead):
            self._grant(stream, now)
        return data

    def _reach(self, limit: str) -> None:
        self.reached[limit] = self.reached.get(limit, 0) + 1

    def usage(self) -> SessionUsage:
        """What is in use now; counted when asked for, so that nothing is counted while bytes move."""
        streams = self.streams.values()
        return SessionUsage(
            inbound_streams=self._inbound,
            outbound_streams=len(streams) - self._inbound,
            unacknowledged_streams=self._unacknowledged,
            abandoned_streams=len(self._abandoned),
            control_frames=len(self._control),
            receive_window=sum(stream.receive_window for stream in streams),
            send_window=sum(stream.send_window for stream in streams),
            blocked_streams=sum(stream.out is not None and not stream.send_window for stream in streams),
            buffered=sum(stream.buffered_bytes for stream in streams),
            largest_window=max((stream.target for stream in streams), default=0),
            extra_window=self._extra,
            reached=dict(self.reached),
        )

    def ping(self, value: int) -> None:
        """Ask for a PONG with this value (32 bits)."""
        self._queue_control(_HEADER.pack(0, _PING, SYN, 0, value))

    def go_away(self, reason: int = 0) -> None:
        """Tell the peer that this end takes no new streams."""
        self._queue_control(_HEADER.pack(0, _GO_AWAY, 0, 0, reason))

    # ---- bytes out ---------------------------------------------------------------------

    @property
    def has_output(self) -> bool:
        """Whether `pull` would give anything."""
        return bool(self._control or self._ready or self._urgent or self._grants)

    @property
    def has_bulk(self) -> bool:
        """Whether more waits than what goes first."""
        return bool(self._ready)

    def data_to_send(self) -> bytes:
        """Everything that can leave now, as one piece."""
        pieces: list[bytes | memoryview] = []
        while self.has_output:
            pieces += self.pull(1 << 20)[0]
        return b"".join(pieces)

    def pull(self, limit: int) -> tuple[list[bytes | memoryview], list[YamuxStream]]:
        """Take the next frames with up to `limit` bytes of payload: control, small streams, busy ones.

        Gives the pieces in order (headers, and views of posted memory) and the streams of which
        the last posted byte is among them: copy the pieces out before the memory is used again.
        """
        pieces: list[bytes | memoryview] = []
        finished: list[YamuxStream] = []
        self._aborted = 0
        if self._control:
            pieces.extend(self._control)
            self._control.clear()
        if self._grants:
            for stream in self._grants:
                if stream.grant and not stream.dead:
                    pieces.append(_HEADER.pack(0, _WINDOW, stream.due, stream.id, stream.grant))
                    stream.due = 0
                stream.grant = 0
            self._grants.clear()
        ready = self._ready
        if self._urgent:
            limit -= self._pull_urgent(limit // 2 if ready else limit, pieces, finished)
        share = limit if len(ready) < 2 else max(FAIR_QUANTUM_BYTES, limit // len(ready))
        while ready and limit > 0:
            stream = ready.popleft()
            stream.queued = False
            if not stream.dead:
                limit -= self._pull_stream(stream, min(share, limit), pieces, finished)
                self._enqueue(stream)
        return pieces, finished

    def _pull_urgent(self, limit: int, pieces: list[bytes | memoryview], finished: list[YamuxStream]) -> int:
        """Let each small stream send once, as far as `limit` goes; give how many bytes they took."""
        urgent, left = self._urgent, limit
        while urgent and left > 0:
            stream = urgent.popleft()
            stream.queued = False
            if stream.dead:
                continue
            if stream.small or stream.out is None:  # else it was opened, and then much was posted
                left -= self._pull_stream(stream, min(URGENT_BYTES, left), pieces, finished)
            self._enqueue(stream)
        return limit - left

    def _pull_stream(
        self,
        stream: YamuxStream,
        limit: int,
        pieces: list[bytes | memoryview],
        finished: list[YamuxStream],
    ) -> int:
        taken = 0
        out = stream.out
        if out is not None and stream.send_window > 0:
            taken = min(len(out), stream.send_window, limit)
            stream.send_window -= taken
            flags = stream.due
            payload = out
            if taken == len(out):
                stream.out = None
                finished.append(stream)
                if stream.fin_wanted:
                    flags |= FIN
            else:
                payload = out[:taken]
                stream.out = out[taken:]
            pieces.append(_HEADER.pack(0, _DATA, flags, stream.id, taken))
            pieces.append(payload)
            stream.due = 0
            if flags & FIN:
                self._fin_left(stream, pieces)
        elif stream.out is None and stream.fin_wanted and not stream.fin_sent:
            pieces.append(_HEADER.pack(0, _WINDOW, stream.due | FIN, stream.id, 0))
            stream.due = 0
            self._fin_left(stream, pieces)
        elif stream.due:
            pieces.append(_HEADER.pack(0, _WINDOW, stream.due, stream.id, 0))
            stream.due = 0
        return taken

    def _fin_left(self, stream: YamuxStream, pieces: list[bytes | memoryview]) -> None:
        stream.fin_sent = True
        if stream.reset_after_fin:
            pieces.append(_HEADER.pack(0, _WINDOW, RST, stream.id, 0))
            self._kill(stream)
        elif stream.eof:
            self._forget(stream)

    def _enqueue(self, stream: YamuxStream) -> None:
        if not stream.queued and not stream.dead and stream.ready():
            stream.queued = True
            (self._urgent if stream.small or stream.out is None else self._ready).append(stream)

    def _queue_control(self, frame: bytes) -> None:
        if len(self._control) < self.limits.control_frames:
            self._control.append(frame)
        elif self.failure is None:
            self._reach("control_frames")
            self.failure = ProtocolError("the peer provokes control frames faster than it reads them")

    # ---- bytes in ----------------------------------------------------------------------

    def receive_data(self, data: bytes | memoryview) -> list[Event]:
        """Take bytes in the order of their arrival, and say what happened. Look at `failure` then."""
        events: list[Event] = []
        if self.failure is None:
            try:
                self._receive(data, events)
            except ProtocolError as error:
                self.failure = error
        return events

    def _receive(self, data: bytes | memoryview, events: list[Event]) -> None:
        offset, end = 0, len(data)
        while offset < end:
            if self._remaining:
                taken = min(self._remaining, end - offset)
                self._remaining -= taken
                if self._current is not None:
                    whole = taken == end and isinstance(data, bytes)
                    self._payload(self._current, data if whole else data[offset : offset + taken], events)
                offset += taken
                if not self._remaining:
                    self._payload_end(events)
            elif self._header or end - offset < _HEADER_BYTES:
                taken = min(_HEADER_BYTES - len(self._header), end - offset)
                self._header += data[offset : offset + taken]
                offset += taken
                if len(self._header) == _HEADER_BYTES:
                    header = bytes(self._header)
                    self._header.clear()
                    self._frame(header, 0, events)
            else:
                self._frame(data, offset, events)
                offset += _HEADER_BYTES

    def _frame(self, data: bytes | memoryview, offset: int, events: list[Event]) -> None:
        version, kind, flags, stream_id, length = _HEADER.unpack_from(data, offset)
        if version or kind > _GO_AWAY:
            raise ProtocolError(f"not a yamux frame: version {version}, type {kind}")
        if kind == _PING:
            if flags & SYN:
                self._queue_control(_HEADER.pack(0, _PING, ACK, 0, length))
            else:
                events.append(Event(EventKind.PONG, None, length))
            return
        if kind == _GO_AWAY:
            self.peer_gone_away = True
            events.append(Event(EventKind.GO_AWAY, None, length))
            return
        stream = self.streams.get(stream_id)
        if flags & SYN:
            stream = self._accept(stream_id, stream, events)
        if stream is not None and flags & ACK and not stream.acknowledged:
            stream.acknowledged = True
            self._unacknowledged -= 1
        if kind == _DATA:
            self._data_header(stream, length)
        elif stream is not None and length:
            self._window_update(stream, length, events)
        if stream is None:
            return
        if flags & RST:
            self._current = None
            self._kill(stream)
            if stream.due == ACK:
                self._count_aborted()
            events.append(Event(EventKind.RESET, stream))
        elif flags & FIN:
            if self._remaining:  # the end comes after this frame's payload
                self._current_ends = True
            else:
                self._end(stream, events)

    def _count_aborted(self) -> None:
        """A stream was reset before it could be acknowledged. Honest peers rarely do so; many at once are
        the cheapest way to make this end work, and none of them counts as open (CVE-2023-44487).
        """
        self._aborted += 1
        if self._aborted > 2 * self.limits.inbound_streams:
            raise ProtocolError("the peer opens streams only to reset them")

    def _accept(self, stream_id: int, known: YamuxStream | None, events: list[Event]) -> YamuxStream | None:
        if known is not None or not stream_id or (stream_id & 1) == self._initiator:
            raise ProtocolError(f"the peer may not open stream {stream_id}")
        if self._inbound >= self.limits.inbound_streams:
            self._reach("inbound_streams")
            self._queue_control(_HEADER.pack(0, _WINDOW, RST, stream_id, 0))
            return None
        stream = self.streams[stream_id] = YamuxStream(stream_id, ACK)
        self._inbound += 1
        self._enqueue(stream)
        events.append(Event(EventKind.OPENED, stream))
        return stream

    def _data_header(self, stream: YamuxStream | None, length: int) -> None:
        if stream is None:
            if length > self.limits.max_window_bytes:
                raise ProtocolError(f"a frame of {length} bytes is larger than any window")
        else:
            if length > stream.receive_window:
                raise ProtocolError(
                    f"{length} bytes on stream {stream.id}, its window is {stream.receive_window}"
                )
            if stream.eof and length:
                raise ProtocolError(f"bytes on stream {stream.id} after its end")
            stream.receive_window -= length
        self._remaining = length
        self._current = stream
        self._current_ends = False

    def _window_update(self, stream: YamuxStream, delta: int, events: list[Event]) -> None:
        was = stream.send_window
        if was + delta > _MAX_UINT32:
            raise ProtocolError(f"the window of stream {stream.id} is opened beyond 32 bits")
        stream.send_window = was + delta
        if not was:
            self._enqueue(stream)
            events.append(Event(EventKind.WRITABLE, stream))

    def _payload(self, stream: YamuxStream, payload: bytes | memoryview, events: list[Event]) -> None:
        if stream.dead:
            return
        if stream.refused:
            self._refuse(stream)
            return
        size = len(payload)
        if self._buffered + size > self.limits.buffered_bytes:
            self._reach("buffered_bytes")
            self.reset(stream)
            events.append(Event(EventKind.RESET, stream))
            return
        self._buffered += size
        last = stream.chunks[-1] if stream.chunks else None
        if last is not None and size < _COALESCE_BYTES and len(last) < _COALESCED_BYTES:
            if not isinstance(last, bytearray):
                last = stream.chunks[-1] = bytearray(last)
            last += payload
        else:
            stream.chunks.append(bytes(payload))
        stream.buffered_bytes += size
        events.append(Event(EventKind.READABLE, stream))

    def _payload_end(self, events: list[Event]) -> None:
        stream, ends = self._current, self._current_ends
        self._current, self._current_ends = None, False
        if stream is not None and ends and not stream.dead:
            self._end(stream, events)

    def _end(self, stream: YamuxStream, events: list[Event]) -> None:
        if not stream.eof:
            stream.eof = True
            if stream.fin_sent:
                self._forget(stream)
            events.append(Event(EventKind.READABLE, stream))

    # ---- the lives of streams ------------------------------------------------------------

    def _grant(self, stream: YamuxStream, now: float) -> None:
        grant = stream.credit
        rtt = self.rtt_s
        if (
            rtt is not None
            and now - stream.granted_at < 4 * max(rtt, SHORTEST_RTT_S)
            and stream.target * 2 <= self.limits.max_window_bytes
        ):
            if self._extra + stream.target <= self.limits.extra_window_bytes:
                self._extra += stream.target
                grant += stream.target
                stream.target *= 2
                if stream.target * 2 > self.limits.max_window_bytes:
                    self._reach("max_window_bytes")
            else:
                self._reach("extra_window_bytes")
        stream.granted_at = now
        stream.credit = 0
        stream.receive_window += grant
        if not stream.grant:
            self._grants.append(stream)
        stream.grant += grant

    def _refuse(self, stream: YamuxStream) -> None:
        """Reset a stream whose user has left, after the end that the user asked for."""
        if stream.fin_sent:
            self._queue_control(_HEADER.pack(0, _WINDOW, RST, stream.id, 0))
            self._kill(stream)
        else:
            self._abandoned.pop(stream.id, None)
            stream.reset_after_fin = True

    def _drop_buffer(self, stream: YamuxStream) -> None:
        if self.streams.get(stream.id) is stream:
            self._buffered -= stream.buffered_bytes
        stream.chunks.clear()
        stream.offset = stream.buffered_bytes = 0

    def _kill(self, stream: YamuxStream) -> None:
        stream.dead = True
        stream.out = None
        self._forget(stream)
        waiting = len(self._urgent) + len(self._ready) + len(self._grants)
        if waiting > 64 + 2 * len(self.streams):
            self._drop_dead()

    def _drop_dead(self) -> None:
        """Forget the dead that wait to send: a peer that reads nothing could pile them up without end."""
        for queue in (self._urgent, self._ready):
            alive = [stream for stream in queue if not stream.dead]
            queue.clear()
            queue.extend(alive)
        self._grants = [stream for stream in self._grants if not stream.dead]

    def _forget(self, stream: YamuxStream) -> None:
        del self.streams[stream.id]
        self._buffered -= stream.buffered_bytes
        self._abandoned.pop(stream.id, None)
        self._extra -= stream.target - INITIAL_WINDOW_BYTES
        if (stream.id & 1) != self._initiator:
            self._inbound -= 1
        elif not stream.acknowledged:
            stream.acknowledged = True
            self._unacknowledged -= 1

    def close(self) -> list[YamuxStream]:
        """The connection has ended: every stream dies; what was received can still be read."""
        streams = list(self.streams.values())
        for stream in streams:
            self._kill(stream)
        self._control.clear()
        self._grants.clear()
        self._ready.clear()
        self._urgent.clear()
        return streams
