"""What a yamux session holds of its streams, and in which order their frames leave.

`Output` is the half of `fedd.core.yamux.Session` that gives frames out: urgent ones first, busy streams in
turns. It also keeps the table of streams, which shrinks when the last frame of one has left.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

from fedd.api.errors import ProtocolError
from fedd.core.yamux_stream import (
    FIN,
    INITIAL_WINDOW_BYTES,
    RST,
    SessionUsage,
    YamuxLimits,
    YamuxStream,
)

FAIR_QUANTUM_BYTES: Final = 16 * 1024
"""What one of several busy streams sends before it is the next one's turn."""

URGENT_BYTES: Final = 4096
"""A stream that posts no more than this goes before the busy ones: a heartbeat or a command does not wait
behind bulk data (as new flows do in RFC 8290, section 4.2). All that do so together have at most half of a
pull while others wait, so that many small messages do not starve them."""

REST_SHIFT: Final = 4
"""A sixteenth beyond what it may, a stream sends rather than leave so little for later: a block of 2**20
bytes is two writes and not three, for what fits into whole frames is a little less than a power of two."""

HEADER: Final = struct.Struct(">BBHII")
HEADER_BYTES: Final = 12
"""A frame's header: version, type, flags, stream, length."""

DATA, WINDOW, PING, GO_AWAY = range(4)
"""The types of frames."""


class Output:
    """The streams of a session and what they, and it, have to send."""

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
                    pieces.append(HEADER.pack(0, WINDOW, stream.due, stream.id, stream.grant))
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

    def frame(self, stream: YamuxStream, data: bytes) -> bytes | None:
        """Give the frame of a small message that overtakes nobody, as nothing else waits; else None: post it.

        The stream takes bytes now (see `post`). The frame must leave before anything that is pulled later.
        """
        size = len(data)
        if (
            not 0 < size <= URGENT_BYTES
            or size > stream.send_window
            or stream.due
            or stream.out is not None
            or self._control
            or self._ready
            or self._urgent
            or self._grants
        ):
            return None
        stream.send_window -= size
        self._aborted = 0
        return HEADER.pack(0, DATA, 0, stream.id, size) + data

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
            if taken == limit and len(out) - taken <= limit >> REST_SHIFT:
                taken = min(len(out), stream.send_window)
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
            pieces.append(HEADER.pack(0, DATA, flags, stream.id, taken))
            pieces.append(payload)
            stream.due = 0
            if flags & FIN:
                self._fin_left(stream, pieces)
        elif stream.out is None and stream.fin_wanted and not stream.fin_sent:
            pieces.append(HEADER.pack(0, WINDOW, stream.due | FIN, stream.id, 0))
            stream.due = 0
            self._fin_left(stream, pieces)
        elif stream.due:
            pieces.append(HEADER.pack(0, WINDOW, stream.due, stream.id, 0))
            stream.due = 0
        return taken

    def _fin_left(self, stream: YamuxStream, pieces: list[bytes | memoryview]) -> None:
        stream.fin_sent = True
        if stream.reset_after_fin:
            pieces.append(HEADER.pack(0, WINDOW, RST, stream.id, 0))
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

    # ---- the lives of streams ----

    def _refuse(self, stream: YamuxStream) -> None:
        """Reset a stream whose user has left, after the end that the user asked for."""
        if stream.fin_sent:
            self._queue_control(HEADER.pack(0, WINDOW, RST, stream.id, 0))
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
