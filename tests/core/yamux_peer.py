"""What the tests of yamux talk to a session with: frames byte by byte, and sessions with a stream."""

from __future__ import annotations

import struct

from fedd.core.yamux import Event, EventKind, Session, YamuxLimits, YamuxStream

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


def frame(
    kind: int, flags: int, stream_id: int, length: int, payload: bytes = b"", version: int = 0
) -> bytes:
    return struct.pack(">BBHII", version, kind, flags, stream_id, length) + payload


def data(flags: int, stream_id: int, payload: bytes) -> bytes:
    return frame(DATA, flags, stream_id, len(payload), payload)


def frames(stream: bytes) -> list[tuple[int, int, int, int, bytes]]:
    found = []
    while stream:
        _, kind, flags, stream_id, length = struct.unpack_from(">BBHII", stream)
        end = 12 + (length if kind == DATA else 0)
        found.append((kind, flags, stream_id, length, stream[12:end]))
        stream = stream[end:]
    return found


def server_with_stream(limits: YamuxLimits | None = None) -> tuple[Session, YamuxStream]:
    session = Session(initiator=False, limits=limits)
    events = session.receive_data(frame(WINDOW, SYN, 1, 0))
    stream = events[0].stream
    assert stream is not None
    assert frames(session.data_to_send()) == [(WINDOW, ACK, 1, 0, b"")]
    return session, stream


def client_with_stream(limits: YamuxLimits | None = None) -> tuple[Session, YamuxStream]:
    session = Session(initiator=True, limits=limits)
    stream = session.open()
    assert frames(session.data_to_send()) == [(WINDOW, SYN, stream.id, 0, b"")]
    session.receive_data(frame(WINDOW, ACK, stream.id, 0))
    return session, stream


def post(session: Session, stream: YamuxStream, payload: bytes) -> None:
    session.post(stream, memoryview(payload))


def kinds(events: list[Event]) -> list[EventKind]:
    return [event.kind for event in events]


def read_all(session: Session, stream: YamuxStream, now: float = 0.0) -> bytes:
    parts = []
    while part := session.read(stream, None, now):
        parts.append(part)
    return b"".join(parts)
