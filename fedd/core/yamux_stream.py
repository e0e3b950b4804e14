"""What `fedd.core.yamux` works with: its limits, its events and the state of one stream."""

from __future__ import annotations

import enum
from collections import deque
from typing import Any, Final, NamedTuple

from fedd.core.dataclass import dataclass

INITIAL_WINDOW_BYTES: Final = 256 * 1024
"""Every stream starts with this in both directions; the specification leaves no choice."""

SYN, ACK, FIN, RST = 1, 2, 4, 8
"""The flags of a frame."""


@dataclass(frozen=True, slots=True)
class YamuxLimits:
    """What one peer may make us hold."""

    inbound_streams: int = 256
    """Further streams are reset at once; 256 is what other implementations queue."""
    unacknowledged_streams: int = 64
    """Opened here and not yet acknowledged; beyond it opening is refused."""
    control_frames: int = 1024
    """Pongs and resets that wait to leave; a peer that provokes more without reading is closed."""
    abandoned_streams: int = 64
    """Closed here and not by the peer; the oldest of more is reset."""
    max_window_bytes: int = 4 * 1024 * 1024
    """To what one stream's receive window may grow: 1 GB/s at 4 ms."""
    extra_window_bytes: int = 16 * 1024 * 1024
    """What all windows of a session together may grow above their initial size."""
    buffered_bytes: int = 32 * 1024 * 1024
    """What all streams together may hold unread; the stream whose bytes come beyond it is reset. Streams
    that are read stay far below: this is 8 of the largest windows, or 128 initial ones."""


@dataclass(frozen=True, slots=True)
class SessionUsage:
    """What a session holds now. Bytes unless the name says otherwise."""

    inbound_streams: int
    outbound_streams: int
    unacknowledged_streams: int
    abandoned_streams: int
    control_frames: int
    receive_window: int
    """What the peer may send in all, if nothing is read meanwhile."""
    send_window: int
    """What the peer takes now, of all streams together."""
    blocked_streams: int
    """Streams that have bytes to send and no window."""
    buffered: int
    """Received and not yet read."""
    largest_window: int
    extra_window: int
    """What the receive windows have grown by, together."""
    reached: dict[str, int]
    """How often which of `YamuxLimits` was reached."""


class EventKind(enum.Enum):
    """What happened to a stream or the session."""

    OPENED = enum.auto()
    """The peer opened a stream."""
    READABLE = enum.auto()
    """Bytes or the end arrived on a stream."""
    WRITABLE = enum.auto()
    """A stream whose window was used up may send again."""
    RESET = enum.auto()
    """The peer reset a stream; what arrived before can still be read."""
    PONG = enum.auto()
    """The answer to the ping with this value came."""
    GO_AWAY = enum.auto()
    """The peer takes no new streams; the value is its reason (0: normal, 1: protocol, 2: internal)."""


class Event(NamedTuple):
    """Something that happened; `stream` is None for PONG and GO_AWAY."""

    kind: EventKind
    stream: YamuxStream | None
    value: int = 0


class YamuxStream:
    """The state of one stream. Only the session changes it; its user looks at it."""

    __slots__ = (
        "acknowledged",
        "buffered_bytes",
        "chunks",
        "credit",
        "dead",
        "due",
        "eof",
        "fin_sent",
        "fin_wanted",
        "grant",
        "granted_at",
        "id",
        "offset",
        "out",
        "queued",
        "receive_window",
        "refused",
        "reset_after_fin",
        "send_window",
        "small",
        "target",
        "user",
    )

    def __init__(self, stream_id: int, due: int) -> None:
        self.id = stream_id
        self.buffered_bytes = 0
        """Received and not yet read."""
        self.eof = False
        """The peer sends no more; what is buffered can still be read."""
        self.fin_sent = False
        self.dead = False
        """Reset by either end, or the connection ended."""
        self.send_window = INITIAL_WINDOW_BYTES
        """Bytes that the peer takes now."""
        self.acknowledged = due == ACK
        self.due = due  # SYN or ACK, until it rides on this stream's first frame
        self.chunks: deque[bytes | bytearray] = deque()
        self.offset = 0  # into the first chunk
        self.out: memoryview | None = None
        self.small = True  # what it has to send is little; until bytes are posted, a header at most
        self.queued = self.fin_wanted = self.refused = self.reset_after_fin = False
        self.receive_window = self.target = INITIAL_WINDOW_BYTES
        self.credit = 0  # read, not yet granted again
        self.grant = 0  # granted, the update not yet sent
        self.granted_at = float("-inf")
        self.user: Any = None
        """What the session's user knows this stream by; nothing here looks at it."""

    @property
    def sending(self) -> bool:
        """Whether posted bytes have not all left yet."""
        return self.out is not None

    def ready(self) -> bool:
        """Whether a frame of this stream can leave now."""
        if self.out is not None:
            return self.send_window > 0  # at first it is: SYN or ACK ride along
        return self.due != 0 or (self.fin_wanted and not self.fin_sent)
