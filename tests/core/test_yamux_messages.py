"""Small messages on a yamux session: a frame at once, or posted behind the others."""

from __future__ import annotations

import pytest
from core import yamux_peer as peer

from fedd.core.yamux import Event, EventKind, Session, YamuxLimits
from fedd.core.yamux_stream import INITIAL_WINDOW_BYTES


def test_a_small_message_that_overtakes_nobody_is_a_frame_at_once() -> None:
    session, stream = peer.client_with_stream()
    assert session.frame(stream, b"hello") == peer.data(0, stream.id, b"hello")
    assert stream.send_window == INITIAL_WINDOW_BYTES - 5
    assert not session.has_output


def test_a_message_that_something_else_waits_before_is_posted_instead() -> None:
    session, stream = peer.client_with_stream()
    other = session.open()  # its SYN waits
    assert session.frame(stream, b"hello") is None
    session.data_to_send()
    session.ping(1)
    assert session.frame(stream, b"hello") is None
    session.data_to_send()
    peer.post(session, other, bytes(5000))
    assert session.frame(stream, b"hello") is None
    session.data_to_send()
    session.receive_data(peer.data(peer.ACK, other.id, bytes(200_000)))
    peer.read_all(session, other)  # a window update waits
    assert session.frame(stream, b"hello") is None
    assert stream.send_window == INITIAL_WINDOW_BYTES


def test_a_message_that_does_not_fit_or_is_not_small_is_posted_instead() -> None:
    session, stream = peer.client_with_stream()
    assert session.frame(stream, b"") is None
    assert session.frame(stream, bytes(4097)) is None
    peer.post(session, stream, bytes(INITIAL_WINDOW_BYTES - 3))
    session.data_to_send()
    assert session.frame(stream, b"four") is None
    assert session.frame(stream, b"two") == peer.data(0, stream.id, b"two")
    peer.post(session, stream, b"no window")
    assert session.frame(stream, b"x") is None


def test_the_first_bytes_of_a_stream_carry_its_flag_and_are_posted() -> None:
    session = Session(initiator=True)
    stream = session.open()
    session._urgent.clear()
    assert session.frame(stream, b"hello") is None


def test_a_whole_message_arrives_as_what_was_sent() -> None:
    session, stream = peer.server_with_stream()
    assert session.receive_data(peer.data(0, 1, b"hello")) == [Event(EventKind.READABLE, stream)]
    assert stream.receive_window == INITIAL_WINDOW_BYTES - 5
    assert session.usage().buffered == 5
    assert session.receive_data(peer.data(0, 1, b", world")) == [Event(EventKind.READABLE, stream)]
    assert peer.read_all(session, stream) == b"hello, world"
    assert session.usage().buffered == 0


@pytest.mark.parametrize(
    ("arrives", "kinds_of_events"),
    [
        (peer.data(0, 1, b""), []),
        (b"\0" * 5, []),
        (peer.data(0, 1, b"one") + peer.data(0, 1, b"two"), [EventKind.READABLE, EventKind.READABLE]),
        (peer.data(0, 1, b"four")[:-1], [EventKind.READABLE]),
        (peer.data(peer.FIN, 1, b"end"), [EventKind.READABLE, EventKind.READABLE]),
        (peer.data(0, 99, b"nobody's"), []),
        (peer.frame(peer.WINDOW, 0, 1, 7) + b"1234567", []),
    ],
)
def test_whatever_is_not_one_whole_message_takes_the_long_way(
    arrives: bytes, kinds_of_events: list[EventKind]
) -> None:
    session, stream = peer.server_with_stream()
    assert peer.kinds(session.receive_data(arrives)) == kinds_of_events
    twin, twin_stream = peer.server_with_stream()
    for byte in arrives:  # one by one there is no short way
        twin.receive_data(bytes([byte]))
    assert session.failure is None
    assert twin.failure is None
    assert peer.read_all(session, stream) == peer.read_all(twin, twin_stream)
    assert (stream.eof, stream.receive_window) == (twin_stream.eof, twin_stream.receive_window)


def test_whole_messages_meet_the_same_bounds() -> None:
    limits = YamuxLimits(buffered_bytes=10)
    session, stream = peer.server_with_stream(limits)
    assert peer.kinds(session.receive_data(peer.data(0, 1, bytes(11)))) == [EventKind.RESET]
    session, stream = peer.server_with_stream()
    session.receive_data(peer.data(peer.FIN, 1, b""))
    session.receive_data(peer.data(0, 1, b"after its end"))
    assert session.failure is not None
    session, stream = peer.server_with_stream()
    stream.receive_window = 4
    session.receive_data(peer.data(0, 1, b"12345"))
    assert session.failure is not None
    assert not stream.chunks
    session, stream = peer.server_with_stream()
    session.abandon(stream)
    session.receive_data(peer.data(0, 1, b"to nobody"))
    assert (peer.RST, b"") in [
        (flags, payload) for _, flags, _, _, payload in peer.frames(session.data_to_send())
    ]
