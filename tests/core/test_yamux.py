"""The multiplexer: against a byte-level peer, and two sessions over a link that splits and delays."""

from __future__ import annotations

import random
import struct
from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import ProtocolError
from fedd.core.yamux import Event, EventKind, Session, YamuxLimits, YamuxStream
from fedd.core.yamux_stream import INITIAL_WINDOW_BYTES

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


# ---- frames ---------------------------------------------------------------------------


def test_the_first_bytes_open_the_stream() -> None:
    session = Session(initiator=True)
    stream = session.open()
    post(session, stream, b"hello")
    session.finish(stream)
    assert stream.sending
    assert frames(session.data_to_send()) == [(DATA, SYN | FIN, 1, 5, b"hello")]
    assert not stream.sending
    assert session.open().id == 3
    assert Session(initiator=False).open().id == 2


def test_an_opened_stream_is_acknowledged_with_its_first_frame() -> None:
    session = Session(initiator=False)
    events = session.receive_data(data(SYN, 1, b"question"))
    assert kinds(events) == [EventKind.OPENED, EventKind.READABLE]
    stream = events[0].stream
    assert stream is not None
    assert session.read(stream, None, 0.0) == b"question"
    post(session, stream, b"answer")
    assert frames(session.data_to_send()) == [(DATA, ACK, 1, 6, b"answer")]


def test_the_end_comes_after_the_payload_of_its_frame() -> None:
    session, stream = server_with_stream()
    raw = data(FIN, 1, b"last words")
    assert session.receive_data(raw[:15]) == [Event(EventKind.READABLE, stream)]
    assert not stream.eof
    session.receive_data(raw[15:])
    assert stream.eof
    assert read_all(session, stream) == b"last words"
    session.receive_data(frame(WINDOW, FIN, 1, 0))  # said twice, heard once
    session.finish(stream)
    session.finish(stream)
    assert frames(session.data_to_send()) == [(WINDOW, FIN, 1, 0, b"")]
    assert not session.streams


def test_a_stream_ends_when_both_ends_have_ended() -> None:
    session, stream = client_with_stream()
    session.finish(stream)
    session.data_to_send()
    assert session.streams
    assert kinds(session.receive_data(data(FIN, 1, b""))) == [EventKind.READABLE]
    assert stream.eof
    assert not session.streams
    assert not stream.dead


def test_pings_are_answered_and_pongs_reported() -> None:
    session = Session(initiator=False)
    assert session.receive_data(frame(PING, SYN, 0, 77)) == []
    session.ping(5)
    assert frames(session.data_to_send()) == [(PING, ACK, 0, 77, b""), (PING, SYN, 0, 5, b"")]
    assert session.receive_data(frame(PING, ACK, 0, 5)) == [Event(EventKind.PONG, None, 5)]


def test_go_away_is_sent_and_reported() -> None:
    session = Session(initiator=False)
    session.go_away(1)
    assert frames(session.data_to_send()) == [(GO_AWAY, 0, 0, 1, b"")]
    assert not session.peer_gone_away
    assert session.receive_data(frame(GO_AWAY, 0, 0, 2)) == [Event(EventKind.GO_AWAY, None, 2)]
    assert session.peer_gone_away


def test_frames_of_unknown_streams_are_skipped_with_their_payload() -> None:
    session = Session(initiator=False)
    raw = data(0, 9, b"x" * 100) + frame(WINDOW, 0, 9, 10) + frame(WINDOW, RST, 9, 0) + frame(PING, SYN, 0, 1)
    assert session.receive_data(raw) == []
    assert session.failure is None
    assert frames(session.data_to_send()) == [(PING, ACK, 0, 1, b"")]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (frame(PING, SYN, 0, 0, version=1), "version 1"),
        (frame(4, 0, 0, 0), "type 4"),
        (frame(WINDOW, SYN, 1, 0), "open stream 1"),  # it is open
        (frame(WINDOW, SYN, 2, 0), "open stream 2"),  # ours to open
        (frame(WINDOW, SYN, 0, 0), "open stream 0"),
        (frame(DATA, 0, 1, INITIAL_WINDOW_BYTES + 1), "window is 262144"),
        (frame(DATA, 0, 7, 2**32 - 1), "larger than any window"),
        (frame(WINDOW, 0, 1, 2**32 - 1), "beyond 32 bits"),
        (frame(WINDOW, FIN, 1, 0) + data(0, 1, b"x"), "after its end"),
    ],
)
def test_what_the_protocol_forbids_ends_the_session(raw: bytes, says: str) -> None:
    session, _ = server_with_stream()
    session.receive_data(raw)
    assert isinstance(session.failure, ProtocolError)
    assert says in session.failure.detail
    assert session.receive_data(frame(PING, SYN, 0, 0)) == []  # nothing more is looked at
    assert not session.has_output


def test_events_before_a_broken_frame_are_reported() -> None:
    session, stream = server_with_stream()
    assert session.receive_data(data(0, 1, b"good") + frame(9, 0, 0, 0)) == [
        Event(EventKind.READABLE, stream)
    ]
    assert session.failure is not None


# ---- windows --------------------------------------------------------------------------


def test_no_more_is_sent_than_the_window_allows() -> None:
    session, stream = client_with_stream()
    payload = random.Random(1).randbytes(INITIAL_WINDOW_BYTES + 10)
    post(session, stream, payload)
    sent = frames(session.data_to_send())
    assert b"".join(part[4] for part in sent) == payload[:INITIAL_WINDOW_BYTES]
    assert stream.sending
    assert stream.send_window == 0
    assert session.data_to_send() == b""
    assert session.receive_data(frame(WINDOW, 0, 1, 7)) == [Event(EventKind.WRITABLE, stream)]
    assert frames(session.data_to_send()) == [(DATA, 0, 1, 7, payload[-10:-3])]
    session.receive_data(frame(WINDOW, 0, 1, 7) + frame(WINDOW, 0, 1, 7))
    assert frames(session.data_to_send()) == [(DATA, 0, 1, 3, payload[-3:])]
    assert stream.send_window == 11


def test_reading_half_the_window_opens_it_again() -> None:
    session, stream = server_with_stream()
    half = INITIAL_WINDOW_BYTES // 2
    session.receive_data(data(0, 1, bytes(half)))
    assert session.read(stream, half - 1, 0.0) == bytes(half - 1)
    assert not session.has_output
    assert session.read(stream, None, 0.0) == b"\0"
    assert frames(session.data_to_send()) == [(WINDOW, 0, 1, half, b"")]
    session.receive_data(data(0, 1, bytes(INITIAL_WINDOW_BYTES)))  # the whole window is there again
    assert session.failure is None


def test_grants_that_wait_are_merged_and_those_of_the_dead_dropped() -> None:
    session, stream = server_with_stream()
    for _ in range(2):
        session.receive_data(data(0, 1, bytes(INITIAL_WINDOW_BYTES // 2)))
        read_all(session, stream)
    assert frames(session.data_to_send()) == [(WINDOW, 0, 1, INITIAL_WINDOW_BYTES, b"")]
    session.receive_data(data(0, 1, bytes(INITIAL_WINDOW_BYTES)))
    read_all(session, stream)
    session.receive_data(frame(WINDOW, RST, 1, 0))
    assert session.data_to_send() == b""


def test_no_window_is_opened_for_a_stream_that_has_ended() -> None:
    session, stream = server_with_stream()
    session.receive_data(data(FIN, 1, bytes(INITIAL_WINDOW_BYTES)))
    assert len(read_all(session, stream)) == INITIAL_WINDOW_BYTES
    assert not session.has_output


def fill_and_read(session: Session, stream: YamuxStream, now: float) -> int:
    """Send a whole window, read it, and give how much was granted anew."""
    while stream.receive_window:
        session.receive_data(data(0, stream.id, bytes(min(stream.receive_window, 60_000))))
    read_all(session, stream, now)
    return sum(length for kind, _, _, length, _ in frames(session.data_to_send()) if kind == WINDOW)


def test_a_window_used_up_within_four_round_trips_doubles_up_to_its_cap() -> None:
    limits = YamuxLimits(max_window_bytes=4 * INITIAL_WINDOW_BYTES)
    session, stream = server_with_stream(limits)
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
    session, stream = server_with_stream()
    session.rtt_s = 0.000_05  # loopback: the reader's process is scheduled less often than that
    fill_and_read(session, stream, 10.0)
    fill_and_read(session, stream, 10.03)
    assert stream.target == 2 * INITIAL_WINDOW_BYTES
    fill_and_read(session, stream, 10.08)
    assert stream.target == 2 * INITIAL_WINDOW_BYTES


def test_a_slow_reader_keeps_its_window() -> None:
    session, stream = server_with_stream()
    session.rtt_s = 0.1
    for now in range(5):
        session.receive_data(data(0, 1, bytes(INITIAL_WINDOW_BYTES // 2)))
        session.read(stream, None, float(now))
    assert stream.target == INITIAL_WINDOW_BYTES


def test_windows_share_what_they_may_grow_by_and_give_it_back() -> None:
    session = Session(initiator=False, limits=YamuxLimits(extra_window_bytes=INITIAL_WINDOW_BYTES))
    session.rtt_s = 1.0
    first, second = (session.receive_data(frame(WINDOW, SYN, n, 0))[0].stream for n in (1, 3))
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


# ---- what can be read -----------------------------------------------------------------


def test_small_payloads_are_gathered_and_large_ones_not_copied() -> None:
    session, stream = server_with_stream()
    for index in range(1000):
        session.receive_data(data(0, 1, b"%04d" % index))
    assert len(stream.chunks) == 1
    assert stream.buffered_bytes == 4000
    assert session.read(stream, 6, 0.0) == b"000000"
    session.receive_data(data(0, 1, b"more"))
    assert read_all(session, stream) == b"".join(b"%04d" % i for i in range(1000))[6:] + b"more"
    assert stream.buffered_bytes == 0
    session.receive_data(frame(DATA, 0, 1, 50_000))
    payload = bytes(50_000)
    session.receive_data(payload)
    assert session.read(stream, None, 0.0) is payload


def test_gathering_has_an_end() -> None:
    session, stream = server_with_stream()
    for _ in range(20):
        session.receive_data(data(0, 1, bytes(4000)))
    assert 2 <= len(stream.chunks) <= 3


def test_memoryviews_are_taken_too() -> None:
    session, stream = server_with_stream()
    buffer = bytearray(data(0, 1, b"abc"))
    session.receive_data(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert read_all(session, stream) == b"abc"


# ---- ends -----------------------------------------------------------------------------


class Wire:
    """A direction of a link that splits and delays: bytes in order, in pieces of any size."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.bytes = bytearray()

    def take(self) -> bytes:
        size = self.rng.choice([1, 5, 11, 12, 13, 1000, 20_000, len(self.bytes)])
        part = bytes(self.bytes[:size])
        del self.bytes[:size]
        return part


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    messages=st.lists(st.tuples(st.booleans(), st.integers(0, 400_000)), min_size=1, max_size=6),
    rtt_s=st.sampled_from([None, 0.01]),
)
def test_two_sessions_over_a_link_that_splits_and_delays(
    seed: int, messages: list[tuple[bool, int]], rtt_s: float | None
) -> None:
    """Every stream carries its bytes and its end, both ways, and both ends forget it."""
    rng = random.Random(seed)
    ends = [Session(initiator=True), Session(initiator=False)]
    for end in ends:
        end.rtt_s = rtt_s
    wires = [Wire(rng), Wire(rng)]  # wires[i]: from ends[i]
    sent: dict[int, bytes] = {}
    got: dict[tuple[int, int], bytearray] = {}
    to_post: deque[tuple[int, YamuxStream, bytes]] = deque()
    for from_client, size in messages:
        who = 0 if from_client else 1
        stream = ends[who].open()
        sent[stream.id] = rng.randbytes(size)
        to_post.append((who, stream, sent[stream.id]))
    live: list[tuple[int, YamuxStream]] = [(who, stream) for who, stream, _ in to_post]
    done: set[tuple[int, int]] = set()

    def step(now: float) -> None:
        who = rng.randrange(2)
        if to_post and rng.random() < 0.3:
            poster, stream, payload = to_post.popleft()
            post(ends[poster], stream, payload)
            ends[poster].finish(stream)
        if rng.random() < 0.7:
            pieces, _ = ends[who].pull(rng.choice([1, 1000, 100_000]))
            wires[who].bytes += b"".join(pieces)
        for event in ends[1 - who].receive_data(wires[who].take()):
            if event.kind is EventKind.OPENED:
                assert event.stream is not None
                live.append((1 - who, event.stream))
        for reader, stream in list(live):
            if rng.random() < 0.5:
                part = ends[reader].read(stream, rng.choice([None, 1, 3000]), now)
                got.setdefault((reader, stream.id), bytearray()).extend(part)
                key = (reader, stream.id)
                if stream.eof and not stream.buffered_bytes and key not in done:
                    done.add(key)
                    ends[reader].finish(stream)

    for turn in range(200_000):
        step(turn * 1e-4)
        if len(done) == 2 * len(messages) and not ends[0].streams and not ends[1].streams:
            break
    assert [end.failure for end in ends] == [None, None]
    for (from_client, _), (stream_id, payload) in zip(
        messages, sorted(sent.items(), key=lambda _: 0), strict=True
    ):
        assert got[(1 if from_client else 0, stream_id)] == payload
        assert got.get((0 if from_client else 1, stream_id), b"") == b""
    assert ends[0].streams == ends[1].streams == {}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(
                frame,
                st.integers(0, 3),
                st.sampled_from([0, 0, SYN, ACK, FIN, RST, SYN | FIN, ACK | RST, 15]),
                st.integers(0, 6),
                st.one_of(st.integers(0, 30), st.integers(0, 2**32 - 1)),
            ),
            st.builds(
                data, st.sampled_from([0, SYN, FIN, RST, SYN | FIN]), st.integers(0, 6), st.binary(max_size=9)
            ),
        ),
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
def test_arbitrary_bytes_end_in_nothing_worse_than_a_failure(pieces: list[bytes], rng: random.Random) -> None:
    limits = replace(YamuxLimits(), inbound_streams=3, control_frames=16, abandoned_streams=1)
    session = Session(initiator=False, limits=limits)
    known = [session.open()]
    for piece in pieces:
        for event in session.receive_data(piece):
            if event.kind is EventKind.OPENED and event.stream is not None:
                known.append(event.stream)
        stream = rng.choice(known)
        verb = rng.randrange(6)
        if verb == 0 and not (stream.dead or stream.fin_wanted or stream.sending):
            post(session, stream, b"hello")
        elif verb == 1:
            session.read(stream, 7, 0.0)
        elif verb == 2:
            session.finish(stream)
        elif verb == 3:
            session.abandon(stream)
        elif verb == 4:
            session.reset(stream)
        else:
            session.pull(100)
        assert len(session.streams) <= 4
        assert sum(stream.buffered_bytes for stream in known) <= sum(map(len, pieces))
    assert session.failure is None or isinstance(session.failure, ProtocolError)
    session.close()
    assert not session.streams


def test_a_window_grows_beyond_those_of_other_busy_streams_only_if_they_can_follow() -> None:
    limits = YamuxLimits(extra_window_bytes=5 * INITIAL_WINDOW_BYTES)
    session = Session(initiator=False, limits=limits)
    session.rtt_s = 1.0
    for stream_id in (1, 3, 5):
        session.receive_data(frame(WINDOW, SYN, stream_id, 0))
    for round_number in range(20):
        for stream_id in (1, 3):  # the third one is idle
            stream = session.streams[stream_id]
            session.receive_data(data(0, stream_id, bytes(stream.receive_window)))
            read_all(session, stream, now=float(round_number))
            session.data_to_send()
    targets = [session.streams[stream_id].target // INITIAL_WINDOW_BYTES for stream_id in (1, 3, 5)]
    assert targets == [2, 2, 1]
    assert session.reached["extra_window_bytes"] > 0


# ---- small messages -------------------------------------------------------------------
