"""How yamux streams end: reset, abandoned, closed, and what is bounded then."""

from __future__ import annotations

import pytest
from core import yamux_peer as peer

from fedd.core.yamux import EventKind, Session, YamuxLimits
from fedd.core.yamux_stream import INITIAL_WINDOW_BYTES


def test_a_reset_lets_read_what_came_before() -> None:
    session, stream = peer.server_with_stream()
    peer.post(session, stream, b"unsent")
    events = session.receive_data(peer.data(0, 1, b"before") + peer.frame(peer.WINDOW, peer.RST, 1, 0))
    assert peer.kinds(events) == [EventKind.READABLE, EventKind.RESET]
    assert stream.dead
    assert not stream.sending
    assert peer.read_all(session, stream) == b"before"
    assert session.data_to_send() == b""
    with pytest.raises(ValueError, match="takes no bytes"):
        peer.post(session, stream, b"x")


def test_a_reset_on_a_data_frame_skips_its_payload() -> None:
    session, stream = peer.server_with_stream()
    session.receive_data(peer.data(peer.RST, 1, b"never") + peer.frame(peer.PING, peer.SYN, 0, 1))
    assert stream.dead
    assert peer.read_all(session, stream) == b""
    assert peer.frames(session.data_to_send()) == [(peer.PING, peer.ACK, 0, 1, b"")]


def test_resetting_drops_everything_and_is_said_once() -> None:
    session, stream = peer.server_with_stream()
    session.receive_data(peer.data(0, 1, b"unread"))
    peer.post(session, stream, b"unsent")
    session.reset(stream)
    session.reset(stream)
    assert peer.frames(session.data_to_send()) == [(peer.WINDOW, peer.RST, 1, 0, b"")]
    assert peer.read_all(session, stream) == b""
    assert session.receive_data(peer.data(0, 1, b"in flight")) == []
    assert session.failure is None


def test_payload_in_the_midst_of_a_reset_is_dropped() -> None:
    session, stream = peer.server_with_stream()
    session.receive_data(peer.data(peer.FIN, 1, b"abcdef")[:14])
    session.reset(stream)
    assert session.receive_data(b"cdef") == []
    assert stream.buffered_bytes == 0


def test_a_stream_of_which_nothing_has_left_is_reset_in_silence() -> None:
    session = Session(initiator=True)
    stream = session.open()
    session.reset(stream)
    assert session.data_to_send() == b""
    assert not session.streams
    session.receive_data(peer.frame(peer.WINDOW, peer.ACK, 1, 0))


def test_an_abandoned_stream_ends_and_then_tells_a_peer_that_still_sends() -> None:
    session, stream = peer.server_with_stream()
    peer.post(session, stream, b"answer")
    session.data_to_send()
    session.abandon(stream)
    session.abandon(stream)
    assert peer.frames(session.data_to_send()) == [(peer.WINDOW, peer.FIN, 1, 0, b"")]
    assert session.receive_data(peer.data(0, 1, b"x")) == []
    assert peer.frames(session.data_to_send()) == [(peer.WINDOW, peer.RST, 1, 0, b"")]
    assert not session.streams
    session.abandon(stream)
    assert not session.has_output


def test_abandoning_unread_bytes_tells_the_peer_at_once_but_after_the_end() -> None:
    session, stream = peer.server_with_stream()
    session.receive_data(peer.data(0, 1, b"unread"))
    session.abandon(stream)
    session.receive_data(peer.data(0, 1, b"x"))  # in the meantime: nothing new to say
    assert peer.frames(session.data_to_send()) == [
        (peer.WINDOW, peer.FIN, 1, 0, b""),
        (peer.WINDOW, peer.RST, 1, 0, b""),
    ]


def test_abandoning_after_the_peers_end_is_no_reset() -> None:
    session, stream = peer.server_with_stream()
    session.receive_data(peer.data(peer.FIN, 1, b"unread"))
    session.abandon(stream)
    assert peer.frames(session.data_to_send()) == [(peer.WINDOW, peer.FIN, 1, 0, b"")]
    assert not session.streams


def test_abandoning_a_stream_that_has_ended_on_both_sides_says_nothing() -> None:
    session, stream = peer.server_with_stream()
    session.receive_data(peer.data(peer.FIN, 1, b"unread"))
    session.finish(stream)
    session.data_to_send()
    session.abandon(stream)
    assert not session.has_output


def test_abandoning_half_a_message_resets() -> None:
    session, stream = peer.client_with_stream()
    peer.post(session, stream, bytes(INITIAL_WINDOW_BYTES + 1))
    session.data_to_send()
    session.abandon(stream)
    assert peer.frames(session.data_to_send()) == [(peer.WINDOW, peer.RST, 1, 0, b"")]


def test_a_peer_that_never_ends_its_half_costs_a_bounded_number_of_streams() -> None:
    session = Session(initiator=True, limits=YamuxLimits(abandoned_streams=3))
    for index in range(10):
        stream = session.open()
        session.abandon(stream)
        session.data_to_send()
        session.receive_data(peer.frame(peer.WINDOW, peer.ACK, 2 * index + 1, 0))
    assert sorted(session.streams) == [15, 17, 19]
    session.data_to_send()


def test_closing_kills_every_stream() -> None:
    session, stream = peer.server_with_stream()
    session.receive_data(peer.data(0, 1, b"unread"))
    peer.post(session, stream, b"unsent")
    session.ping(1)
    assert session.close() == [stream]
    assert stream.dead
    assert not session.has_output
    assert peer.read_all(session, stream) == b"unread"


# ---- limits ---------------------------------------------------------------------------
