"""yamux, libp2p's stream multiplexer (github.com/hashicorp/yamux/blob/master/spec.md), sans-IO.

A `Session` takes decrypted bytes in (`receive_data` gives events) and gives frames out
(`pull`, or `data_to_send`). Payload is neither copied on the way out (`pull` hands out views of
what the caller posted) nor on the way in when a whole `bytes` object is payload. Nothing waits:
what cannot leave yet is posted and leaves by a later `pull`.

When the peer breaks the protocol, `Session.failure` says how; the connection must then be closed.
"""

from __future__ import annotations

from typing import Final

from fedd.api.errors import ProtocolError, Unhealthy
from fedd.core.yamux_output import DATA, GO_AWAY, HEADER, HEADER_BYTES, PING, URGENT_BYTES, WINDOW, Output
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

SHORTEST_RTT_S: Final = 0.01
"""For growing windows no round trip is shorter: below it, it is not the wire but the scheduling of two
processes that decides when a window comes back."""

_PLAIN_DATA: Final = bytes((0, DATA, 0, 0))
"""How the header of a frame begins that is payload and nothing else."""

_MAX_UINT32: Final = 2**32 - 1
_COALESCE_BYTES: Final = 4096
"""Payloads below this are gathered into one buffer: an object each would cost ten times their size."""
_COALESCED_BYTES: Final = 32 * 1024


class Session(Output):
    """One end of a yamux connection; `initiator` is the end that dialled."""

    def __init__(self, initiator: bool, limits: YamuxLimits | None = None) -> None:
        super().__init__(initiator, limits)
        self._header = bytearray()  # the part of a frame's header that has arrived
        self._remaining = 0  # of the current frame's payload
        self._current: YamuxStream | None = None  # whose payload it is; None: to be skipped
        self._current_ends = False
        self._held: list[bytes | memoryview] = []  # large payloads, to be joined by one copy
        self._held_for: YamuxStream | None = None  # whose they are

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
            self._queue_control(HEADER.pack(0, WINDOW, RST, stream.id, 0))
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

    def ping(self, value: int) -> None:
        """Ask for a PONG with this value (32 bits)."""
        self._queue_control(HEADER.pack(0, PING, SYN, 0, value))

    def go_away(self, reason: int = 0) -> None:
        """Tell the peer that this end takes no new streams."""
        self._queue_control(HEADER.pack(0, GO_AWAY, 0, 0, reason))

    # ---- bytes in ----------------------------------------------------------------------

    def receive_data(self, data: bytes | memoryview) -> list[Event]:
        """Take bytes in the order of their arrival, and say what happened. Look at `failure` then."""
        if type(data) is bytes and not self._remaining and not self._header and self.failure is None:
            stream = self._whole_message(data)
            if stream is not None:
                return [Event(EventKind.READABLE, stream)]
        events: list[Event] = []
        if self.failure is None:
            try:
                self._receive(data, events)
            except ProtocolError as error:
                self.failure = error
            if self._held:
                self._join_held()
        return events

    def _whole_message(self, data: bytes) -> YamuxStream | None:
        """Take `data` if it is one small message for a stream that has nothing unread; give the stream."""
        size = len(data) - HEADER_BYTES
        if size <= 0:
            return None
        _, _, _, stream_id, length = HEADER.unpack_from(data)
        stream = self.streams.get(stream_id)
        if (
            stream is None
            or length != size
            or data[:4] != _PLAIN_DATA
            or stream.chunks
            or stream.eof
            or stream.refused
            or size > stream.receive_window
            or self._buffered + size > self.limits.buffered_bytes
        ):
            return None
        stream.receive_window -= size
        self._buffered += size
        stream.buffered_bytes += size
        stream.chunks.append(data[HEADER_BYTES:])
        return stream

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
            elif self._header or end - offset < HEADER_BYTES:
                taken = min(HEADER_BYTES - len(self._header), end - offset)
                self._header += data[offset : offset + taken]
                offset += taken
                if len(self._header) == HEADER_BYTES:
                    header = bytes(self._header)
                    self._header.clear()
                    self._frame(header, 0, events)
            else:
                self._frame(data, offset, events)
                offset += HEADER_BYTES

    def _frame(self, data: bytes | memoryview, offset: int, events: list[Event]) -> None:
        version, kind, flags, stream_id, length = HEADER.unpack_from(data, offset)
        if version or kind > GO_AWAY:
            raise ProtocolError(f"not a yamux frame: version {version}, type {kind}")
        if kind == PING:
            if flags & SYN:
                self._queue_control(HEADER.pack(0, PING, ACK, 0, length))
            else:
                events.append(Event(EventKind.PONG, None, length))
            return
        if kind == GO_AWAY:
            self.peer_gone_away = True
            events.append(Event(EventKind.GO_AWAY, None, length))
            return
        stream = self.streams.get(stream_id)
        if flags & SYN:
            stream = self._accept(stream_id, stream, events)
        if stream is not None and flags & ACK and not stream.acknowledged:
            stream.acknowledged = True
            self._unacknowledged -= 1
        if kind == DATA:
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
            self._queue_control(HEADER.pack(0, WINDOW, RST, stream_id, 0))
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
        stream.buffered_bytes += size
        if self._held_for is stream:
            self._held.append(payload)
            return
        events.append(Event(EventKind.READABLE, stream))
        if size >= _COALESCE_BYTES:
            self._join_held()
            self._held_for = stream
            self._held.append(payload)
            return
        last = stream.chunks[-1] if stream.chunks else None
        if last is not None and size < _COALESCE_BYTES and len(last) < _COALESCED_BYTES:
            if not isinstance(last, bytearray):
                last = stream.chunks[-1] = bytearray(last)
            last += payload
        else:
            stream.chunks.append(bytes(payload))

    def _join_held(self) -> None:
        """Give a stream the payloads that came for it together as one chunk: each costs its reader a turn."""
        stream = self._held_for
        if stream is not None:
            if stream.buffered_bytes:  # else they were dropped meanwhile
                stream.chunks.append(b"".join(self._held))
            self._held.clear()
            self._held_for = None

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
            if self._extra + stream.target * self._alike(stream) <= self.limits.extra_window_bytes:
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

    def _alike(self, stream: YamuxStream) -> int:
        """How many streams there must be room for before this one's window grows.

        Busy streams share a link equally as long as their windows are equal, so one grows beyond the others
        only if they can follow. Those that have never grown are not busy.
        """
        target = stream.target
        if target == INITIAL_WINDOW_BYTES:
            return 1
        return sum(other.target == target for other in self.streams.values())

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
