"""The multiplexer against a byte-level peer: frames, windows, and what can be read."""

from __future__ import annotations

import random

import pytest
from core import yamux_peer as peer

from fedd.api.errors import ProtocolError
from fedd.core.yamux import Event, EventKind, Session, YamuxLimits, YamuxStream
from fedd.core.yamux_stream import INITIAL_WINDOW_BYTES

# ---- frames ---------------------------------------------------------------------------


def test_the_first_bytes_open_the_stream() -> None:
    session = Session(initiator=True)
    stream = session.open()
    peer.post(session, stream, b"hello")
    session.finish(stream)
    assert stream.sending
    assert peer.frames(session.data_to_send()) == [(peer.DATA, peer.SYN | peer.FIN, 1, 5, b"hello")]
    assert not stream.sending
    assert session.open().id == 3
    assert Session(initiator=False).open().id == 2


def test_an_opened_stream_is_acknowledged_with_its_first_frame() -> None:
    session = Session(initiator=False)
    events = session.receive_data(peer.data(peer.SYN, 1, b"question"))
    assert peer.kinds(events) == [EventKind.OPENED, EventKind.READABLE]
    stream = events[0].stream
    assert stream is not None
    assert session.read(stream, None, 0.0) == b"question"
    peer.post(session, stream, b"answer")
    assert peer.frames(session.data_to_send()) == [(peer.DATA, peer.ACK, 1, 6, b"answer")]


def test_the_end_comes_after_the_payload_of_its_frame() -> None:
    session, stream = peer.server_with_stream()
    raw = peer.data(peer.FIN, 1, b"last words")
    assert session.receive_data(raw[:15]) == [Event(EventKind.READABLE, stream)]
    assert not stream.eof
    session.receive_data(raw[15:])
    assert stream.eof
    assert peer.read_all(session, stream) == b"last words"
    session.receive_data(peer.frame(peer.WINDOW, peer.FIN, 1, 0))  # said twice, heard once
    session.finish(stream)
    session.finish(stream)
    assert peer.frames(session.data_to_send()) == [(peer.WINDOW, peer.FIN, 1, 0, b"")]
    assert not session.streams


def test_a_stream_ends_when_both_ends_have_ended() -> None:
    session, stream = peer.client_with_stream()
    session.finish(stream)
    session.data_to_send()
    assert session.streams
    assert peer.kinds(session.receive_data(peer.data(peer.FIN, 1, b""))) == [EventKind.READABLE]
    assert stream.eof
    assert not session.streams
    assert not stream.dead


def test_pings_are_answered_and_pongs_reported() -> None:
    session = Session(initiator=False)
    assert session.receive_data(peer.frame(peer.PING, peer.SYN, 0, 77)) == []
    session.ping(5)
    assert peer.frames(session.data_to_send()) == [
        (peer.PING, peer.ACK, 0, 77, b""),
        (peer.PING, peer.SYN, 0, 5, b""),
    ]
    assert session.receive_data(peer.frame(peer.PING, peer.ACK, 0, 5)) == [Event(EventKind.PONG, None, 5)]


def test_go_away_is_sent_and_reported() -> None:
    session = Session(initiator=False)
    session.go_away(1)
    assert peer.frames(session.data_to_send()) == [(peer.GO_AWAY, 0, 0, 1, b"")]
    assert not session.peer_gone_away
    assert session.receive_data(peer.frame(peer.GO_AWAY, 0, 0, 2)) == [Event(EventKind.GO_AWAY, None, 2)]
    assert session.peer_gone_away


def test_frames_of_unknown_streams_are_skipped_with_their_payload() -> None:
    session = Session(initiator=False)
    raw = (
        peer.data(0, 9, b"x" * 100)
        + peer.frame(peer.WINDOW, 0, 9, 10)
        + peer.frame(peer.WINDOW, peer.RST, 9, 0)
        + peer.frame(peer.PING, peer.SYN, 0, 1)
    )
    assert session.receive_data(raw) == []
    assert session.failure is None
    assert peer.frames(session.data_to_send()) == [(peer.PING, peer.ACK, 0, 1, b"")]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (peer.frame(peer.PING, peer.SYN, 0, 0, version=1), "version 1"),
        (peer.frame(4, 0, 0, 0), "type 4"),
        (peer.frame(peer.WINDOW, peer.SYN, 1, 0), "open stream 1"),  # it is open
        (peer.frame(peer.WINDOW, peer.SYN, 2, 0), "open stream 2"),  # ours to open
        (peer.frame(peer.WINDOW, peer.SYN, 0, 0), "open stream 0"),
        (peer.frame(peer.DATA, 0, 1, INITIAL_WINDOW_BYTES + 1), "window is 262144"),
        (peer.frame(peer.DATA, 0, 7, 2**32 - 1), "larger than any window"),
        (peer.frame(peer.WINDOW, 0, 1, 2**32 - 1), "beyond 32 bits"),
        (peer.frame(peer.WINDOW, peer.FIN, 1, 0) + peer.data(0, 1, b"x"), "after its end"),
    ],
)
def test_what_the_protocol_forbids_ends_the_session(raw: bytes, says: str) -> None:
    session, _ = peer.server_with_stream()
    session.receive_data(raw)
    assert isinstance(session.failure, ProtocolError)
    assert says in session.failure.detail
    assert session.receive_data(peer.frame(peer.PING, peer.SYN, 0, 0)) == []  # nothing more is looked at
    assert not session.has_output


def test_events_before_a_broken_frame_are_reported() -> None:
    session, stream = peer.server_with_stream()
    assert session.receive_data(peer.data(0, 1, b"good") + peer.frame(9, 0, 0, 0)) == [
        Event(EventKind.READABLE, stream)
    ]
    assert session.failure is not None


# ---- windows --------------------------------------------------------------------------


def test_no_more_is_sent_than_the_window_allows() -> None:
    session, stream = peer.client_with_stream()
    payload = random.Random(1).randbytes(INITIAL_WINDOW_BYTES + 10)
    peer.post(session, stream, payload)
    sent = peer.frames(session.data_to_send())
    assert b"".join(part[4] for part in sent) == payload[:INITIAL_WINDOW_BYTES]
    assert stream.sending
    assert stream.send_window == 0
    assert session.data_to_send() == b""
    assert session.receive_data(peer.frame(peer.WINDOW, 0, 1, 7)) == [Event(EventKind.WRITABLE, stream)]
    assert peer.frames(session.data_to_send()) == [(peer.DATA, 0, 1, 7, payload[-10:-3])]
    session.receive_data(peer.frame(peer.WINDOW, 0, 1, 7) + peer.frame(peer.WINDOW, 0, 1, 7))
    assert peer.frames(session.data_to_send()) == [(peer.DATA, 0, 1, 3, payload[-3:])]
    assert stream.send_window == 11


def test_reading_half_the_window_opens_it_again() -> None:
    session, stream = peer.server_with_stream()
    half = INITIAL_WINDOW_BYTES // 2
    session.receive_data(peer.data(0, 1, bytes(half)))
    assert session.read(stream, half - 1, 0.0) == bytes(half - 1)
    assert not session.has_output
    assert session.read(stream, None, 0.0) == b"\0"
    assert peer.frames(session.data_to_send()) == [(peer.WINDOW, 0, 1, half, b"")]
    session.receive_data(peer.data(0, 1, bytes(INITIAL_WINDOW_BYTES)))  # the whole window is there again
    assert session.failure is None


def test_grants_that_wait_are_merged_and_those_of_the_dead_dropped() -> None:
    session, stream = peer.server_with_stream()
    for _ in range(2):
        session.receive_data(peer.data(0, 1, bytes(INITIAL_WINDOW_BYTES // 2)))
        peer.read_all(session, stream)
    assert peer.frames(session.data_to_send()) == [(peer.WINDOW, 0, 1, INITIAL_WINDOW_BYTES, b"")]
    session.receive_data(peer.data(0, 1, bytes(INITIAL_WINDOW_BYTES)))
    peer.read_all(session, stream)
    session.receive_data(peer.frame(peer.WINDOW, peer.RST, 1, 0))
    assert session.data_to_send() == b""


def test_no_window_is_opened_for_a_stream_that_has_ended() -> None:
    session, stream = peer.server_with_stream()
    session.receive_data(peer.data(peer.FIN, 1, bytes(INITIAL_WINDOW_BYTES)))
    assert len(peer.read_all(session, stream)) == INITIAL_WINDOW_BYTES
    assert not session.has_output


def fill_and_read(session: Session, stream: YamuxStream, now: float) -> int:
    """Send a whole window, read it, and give how much was granted anew."""
    while stream.receive_window:
        session.receive_data(peer.data(0, stream.id, bytes(min(stream.receive_window, 60_000))))
    peer.read_all(session, stream, now)
    return sum(length for kind, _, _, length, _ in peer.frames(session.data_to_send()) if kind == peer.WINDOW)


def test_a_window_used_up_within_four_round_trips_doubles_up_to_its_cap() -> None:
    limits = YamuxLimits(max_window_bytes=4 * INITIAL_WINDOW_BYTES)
    session, stream = peer.server_with_stream(limits)
    fill_and_read(session, stream, 0.0)
    assert stream.target == INITIAL_WINDOW_BYTES  # the round trip time is not known
    session.rtt_s = 0.1
    fill_and_read(session, stream, 10.0)
    assert stream.target == INITIAL_WINDOW_BYTES  # it was used up too slowly
    for _ in range(5):
        fill_and_read(session, stream, 10.1)
    assert stream.target == 4 * INITIAL_WINDOW_BYTES
    assert stream.receive_window + stream.credit == 4 * INITIAL_WINDOW_BYTES


def test_no_round_trip_is_too_short_for_a_window_to_grow() -> None:
    session, stream = peer.server_with_stream()
    session.rtt_s = 0.000_05  # loopback: the reader's process is scheduled less often than that
    fill_and_read(session, stream, 10.0)
    fill_and_read(session, stream, 10.03)
    assert stream.target == 2 * INITIAL_WINDOW_BYTES
    fill_and_read(session, stream, 10.08)
    assert stream.target == 2 * INITIAL_WINDOW_BYTES


def test_a_slow_reader_keeps_its_window() -> None:
    session, stream = peer.server_with_stream()
    session.rtt_s = 0.1
    for now in range(5):
        session.receive_data(peer.data(0, 1, bytes(INITIAL_WINDOW_BYTES // 2)))
        session.read(stream, None, float(now))
    assert stream.target == INITIAL_WINDOW_BYTES


def test_windows_share_what_they_may_grow_by_and_give_it_back() -> None:
    session = Session(initiator=False, limits=YamuxLimits(extra_window_bytes=INITIAL_WINDOW_BYTES))
    session.rtt_s = 1.0
    first, second = (session.receive_data(peer.frame(peer.WINDOW, peer.SYN, n, 0))[0].stream for n in (1, 3))
    assert first is not None
    assert second is not None
    for _ in range(3):
        fill_and_read(session, first, 0.0)
        fill_and_read(session, second, 0.0)
    assert [first.target, second.target] == [2 * INITIAL_WINDOW_BYTES, INITIAL_WINDOW_BYTES]
    session.reset(first)
    session.data_to_send()
    fill_and_read(session, second, 0.0)
    assert second.target == 2 * INITIAL_WINDOW_BYTES


def test_a_window_grows_beyond_those_of_other_busy_streams_only_if_they_can_follow() -> None:
    limits = YamuxLimits(extra_window_bytes=5 * INITIAL_WINDOW_BYTES)
    session = Session(initiator=False, limits=limits)
    session.rtt_s = 1.0
    for stream_id in (1, 3, 5):
        session.receive_data(peer.frame(peer.WINDOW, peer.SYN, stream_id, 0))
    for round_number in range(20):
        for stream_id in (1, 3):  # the third one is idle
            stream = session.streams[stream_id]
            session.receive_data(peer.data(0, stream_id, bytes(stream.receive_window)))
            peer.read_all(session, stream, now=float(round_number))
            session.data_to_send()
    targets = [session.streams[stream_id].target // INITIAL_WINDOW_BYTES for stream_id in (1, 3, 5)]
    assert targets == [2, 2, 1]
    assert session.reached["extra_window_bytes"] > 0


# ---- what can be read -----------------------------------------------------------------


def test_small_payloads_are_gathered_and_large_ones_not_copied() -> None:
    session, stream = peer.server_with_stream()
    for index in range(1000):
        session.receive_data(peer.data(0, 1, b"%04d" % index))
    assert len(stream.chunks) == 1
    assert stream.buffered_bytes == 4000
    assert session.read(stream, 6, 0.0) == b"000000"
    session.receive_data(peer.data(0, 1, b"more"))
    assert peer.read_all(session, stream) == b"".join(b"%04d" % i for i in range(1000))[6:] + b"more"
    assert stream.buffered_bytes == 0
    session.receive_data(peer.frame(peer.DATA, 0, 1, 50_000))
    payload = bytes(50_000)
    session.receive_data(payload)
    assert session.read(stream, None, 0.0) is payload


def test_gathering_has_an_end() -> None:
    session, stream = peer.server_with_stream()
    for _ in range(20):
        session.receive_data(peer.data(0, 1, bytes(4000)))
    assert 2 <= len(stream.chunks) <= 3


def test_memoryviews_are_taken_too() -> None:
    session, stream = peer.server_with_stream()
    buffer = bytearray(peer.data(0, 1, b"abc"))
    session.receive_data(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert peer.read_all(session, stream) == b"abc"
