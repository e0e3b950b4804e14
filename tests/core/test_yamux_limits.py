"""Limits of a yamux session, and whose turn it is."""

from __future__ import annotations

import pytest
from core import yamux_peer as peer

from fedd.api.errors import Unhealthy
from fedd.core.yamux import EventKind, Session, YamuxLimits


def test_streams_beyond_the_limit_are_reset_and_the_others_live() -> None:
    session = Session(initiator=False, limits=YamuxLimits(inbound_streams=2))
    for stream_id in (1, 3, 5):
        session.receive_data(peer.data(peer.SYN, stream_id, b"hello"))
    assert list(session.streams) == [1, 3]
    assert (peer.WINDOW, peer.RST, 5, 0, b"") in peer.frames(session.data_to_send())
    session.reset(session.streams[1])
    session.receive_data(peer.frame(peer.WINDOW, peer.SYN, 7, 0))
    assert list(session.streams) == [3, 7]
    session.open()  # ours do not count among the peer's
    assert len(session.streams) == 3


def test_what_all_streams_hold_unread_is_bounded() -> None:
    session = Session(initiator=False, limits=YamuxLimits(buffered_bytes=100))
    first = session.receive_data(peer.data(peer.SYN, 1, bytes(60)))[0].stream
    second = session.receive_data(peer.data(peer.SYN, 3, bytes(40)))[0].stream
    assert first is not None
    assert second is not None
    assert peer.kinds(session.receive_data(peer.data(0, 3, b"x"))) == [EventKind.RESET]
    assert second.dead
    assert session.failure is None
    assert session.read(second, None, 0.0) == b""  # what is dropped is not held
    assert peer.kinds(session.receive_data(peer.data(peer.SYN, 5, bytes(40)))) == [
        EventKind.OPENED,
        EventKind.READABLE,
    ]
    assert peer.read_all(session, first) == bytes(60)
    assert peer.kinds(session.receive_data(peer.data(0, 1, bytes(60)))) == [EventKind.READABLE]
    session.receive_data(peer.frame(peer.WINDOW, peer.RST, 1, 0))
    assert peer.read_all(session, first) == bytes(60)  # of a dead stream: counted no more
    assert peer.kinds(session.receive_data(peer.data(peer.SYN, 7, bytes(60)))) == [
        EventKind.OPENED,
        EventKind.READABLE,
    ]
    session.reset(session.streams[7])
    assert peer.kinds(session.receive_data(peer.data(peer.SYN, 9, bytes(61)))) == [
        EventKind.OPENED,
        EventKind.RESET,
    ]


def test_streams_reset_as_they_are_opened_leave_nothing_behind() -> None:
    session, kept = peer.server_with_stream(YamuxLimits(inbound_streams=10_000))
    peer.post(session, kept, b"waits")
    for number in range(3, 20_001, 2):
        session.receive_data(
            peer.frame(peer.WINDOW, peer.SYN, number, 0) + peer.frame(peer.WINDOW, peer.RST, number, 0)
        )
    assert len(session._ready) + len(session._urgent) < 70
    for number in range(20_001, 20_401, 2):
        stream = session.receive_data(peer.data(peer.SYN, number, bytes(200_000)))[0].stream
        assert stream is not None
        session.read(stream, None, 0.0)
        session.receive_data(peer.frame(peer.WINDOW, peer.RST, number, 0))
    assert len(session._grants) < 70
    assert peer.frames(session.data_to_send()) == [(peer.DATA, 0, 1, 5, b"waits")]


def test_a_peer_that_opens_streams_only_to_reset_them_is_cut_off() -> None:
    session = Session(initiator=False, limits=YamuxLimits(inbound_streams=10))

    def abort(count: int, first: int) -> None:
        for number in range(first, first + 2 * count, 2):
            session.receive_data(
                peer.data(peer.SYN, number, b"x") + peer.frame(peer.WINDOW, peer.RST, number, 0)
            )

    abort(20, 1)
    assert session.failure is None
    session.data_to_send()
    abort(20, 101)
    assert session.failure is None
    abort(1, 201)
    assert session.failure is not None
    assert "only to reset them" in session.failure.detail


def test_opening_waits_for_acknowledgements() -> None:
    session = Session(initiator=True, limits=YamuxLimits(unacknowledged_streams=2))
    first = session.open()
    session.open()
    with pytest.raises(Unhealthy, match="2 streams wait"):
        session.open()
    session.receive_data(peer.frame(peer.WINDOW, peer.ACK, first.id, 0))
    third = session.open()
    with pytest.raises(Unhealthy):
        session.open()
    session.reset(third)
    session.open()


def test_stream_numbers_run_out() -> None:
    session = Session(initiator=True)
    session._next_id = 2**32 - 1
    session.open()
    with pytest.raises(Unhealthy, match="used up"):
        session.open()


def test_a_peer_that_provokes_control_frames_without_reading_them_is_cut_off() -> None:
    session = Session(initiator=False, limits=YamuxLimits(control_frames=10))
    for index in range(11):
        assert session.failure is None
        session.receive_data(peer.frame(peer.PING, peer.SYN, 0, index))
    assert session.failure is not None
    session.ping(1)  # has no effect on the first failure
    assert "faster than it reads" in session.failure.detail
    assert len(peer.frames(session.data_to_send())) == 10


def test_busy_streams_take_turns_and_control_frames_go_first() -> None:
    session = Session(initiator=True)
    streams = [session.open() for _ in range(4)]
    for stream in streams:
        peer.post(session, stream, bytes(200_000))
    session.ping(9)
    pieces, finished = session.pull(64 * 1024)
    sent = peer.frames(b"".join(pieces))
    assert sent[0][0] == peer.PING
    assert [(part[2], part[3]) for part in sent[1:]] == [(n, 16 * 1024) for n in (1, 3, 5, 7)]
    assert finished == []
    session.reset(streams[0])
    order = [part[2] for part in peer.frames(session.data_to_send()) if part[0] == peer.DATA]
    assert set(order) == {3, 5, 7}


def sent_by(pieces: list[bytes | memoryview]) -> list[tuple[int, int]]:
    """The payloads in `pieces`, as (stream number, bytes), in order."""
    return [(part[2], part[3]) for part in peer.frames(b"".join(pieces)) if part[0] == peer.DATA]


def test_a_small_message_goes_before_bulk_data() -> None:
    session = Session(initiator=True)
    bulk = [session.open() for _ in range(3)]
    for stream in bulk:
        peer.post(session, stream, bytes(200_000))
    session.pull(16 * 1024)  # all are in the midst of it
    assert session.has_bulk
    heartbeat = session.open()
    peer.post(session, heartbeat, bytes(100))
    session.ping(1)
    pieces, finished = session.pull(16 * 1024)
    assert peer.frames(b"".join(pieces))[0][0] == peer.PING
    assert sent_by(pieces)[0] == (heartbeat.id, 100)
    assert finished == [heartbeat]
    for _ in range(5):  # again and again, with no visit of the others' in between
        peer.post(session, heartbeat, bytes(4096))
        assert sent_by(session.pull(16 * 1024)[0])[0] == (heartbeat.id, 4096)


def test_small_messages_do_not_starve_bulk_data() -> None:
    session = Session(initiator=True)
    bulk = session.open()
    peer.post(session, bulk, bytes(200_000))
    session.pull(16 * 1024)
    many = [session.open() for _ in range(20)]
    taken = dict.fromkeys([bulk.id, *(stream.id for stream in many)], 0)
    for _ in range(10):
        for stream in many:
            if stream.out is None:
                peer.post(session, stream, bytes(4096))
        for number, size in sent_by(session.pull(16 * 1024)[0]):
            taken[number] += size
    assert taken[bulk.id] == 10 * 8 * 1024
    assert {taken[stream.id] for stream in many} == {4096}  # each in its turn
    session.reset(many[0])  # while it waits for its turn
    assert many[0].id not in dict(sent_by(session.pull(1 << 20)[0]))


def test_busy_streams_have_equal_turns_whatever_they_post() -> None:
    session = Session(initiator=True)
    sizes = [5_000, 20_000, 64_000, 250_000]
    streams = [session.open() for _ in sizes]
    for stream in streams:
        stream.send_window = 1 << 30
    taken = dict.fromkeys((stream.id for stream in streams), 0)
    for _ in range(2000):
        for stream, size in zip(streams, sizes, strict=True):
            if stream.out is None:
                peer.post(session, stream, bytes(size))
        for number, size in sent_by(session.pull(16 * 1024)[0]):
            taken[number] += size
    busy = [taken[stream.id] for stream in streams[1:]]
    assert max(busy) < 2 * min(busy)  # a block of 20,000 is one turn and the rest, which is one as well
    assert busy[2] < 1.15 * busy[1]
    assert taken[streams[0].id] >= 5_000 * 400  # one of its blocks in each round


@pytest.mark.parametrize(
    ("posted", "sent"),
    [(16_384, [16_384]), (17_408, [17_408]), (17_409, [16_384, 1025]), (33_792, [16_384, 17_408])],
)
def test_a_short_rest_goes_with_what_is_before_it(posted: int, sent: list[int]) -> None:
    session = Session(initiator=True)
    stream = session.open()
    peer.post(session, stream, bytes(posted))
    pulled = []
    while session.has_output:
        pulled += [size for _, size in sent_by(session.pull(16 * 1024)[0])]
    assert pulled == sent


def test_a_short_rest_waits_for_the_peers_window() -> None:
    session = Session(initiator=True)
    stream = session.open()
    stream.send_window = 16_500
    peer.post(session, stream, bytes(17_000))
    assert sent_by(session.pull(16 * 1024)[0]) == [(stream.id, 16_500)]
    assert not session.has_output


def test_what_is_in_use_and_which_limits_were_reached() -> None:
    limits = YamuxLimits(
        inbound_streams=1,
        unacknowledged_streams=2,
        control_frames=3,
        abandoned_streams=0,
        max_window_bytes=512 * 1024,
        extra_window_bytes=256 * 1024,
    )
    client, server = Session(initiator=True), Session(initiator=False, limits=limits)
    usage = server.usage()
    assert (usage.inbound_streams, usage.largest_window, usage.reached) == (0, 0, {})
    server.rtt_s = 1.0
    first = client.open()
    peer.post(client, first, bytes(300_000))
    server.receive_data(client.data_to_send())
    peer.post(client, client.open(), b"refused")
    server.receive_data(client.data_to_send())
    core = server.streams[first.id]
    core.granted_at = 0.0  # the first grant follows within 4 round trips
    usage = server.usage()
    assert (usage.inbound_streams, usage.outbound_streams, usage.buffered) == (1, 0, 256 * 1024)
    assert (usage.receive_window, usage.largest_window) == (0, 256 * 1024)
    assert usage.reached == {"inbound_streams": 1}
    assert client.usage().blocked_streams == 1
    assert client.usage().unacknowledged_streams == 2
    while server.read(core, None, 0.1):  # the window grows as far as it may
        pass
    usage = server.usage()
    assert (usage.extra_window, usage.largest_window) == (256 * 1024, 512 * 1024)
    for _ in range(2):
        server.open()
    with pytest.raises(Unhealthy):
        server.open()
    server.abandon(core)
    for number in range(4):
        server.ping(number)
    assert server.usage().control_frames == 3
    assert server.usage().reached == {
        "inbound_streams": 1,
        "max_window_bytes": 1,
        "unacknowledged_streams": 1,
        "abandoned_streams": 1,
        "control_frames": 1,
    }


def test_a_window_that_may_not_grow_because_others_have_is_counted() -> None:
    limits = YamuxLimits(extra_window_bytes=100)
    client, server = Session(initiator=True), Session(initiator=False, limits=limits)
    stream = client.open()
    peer.post(client, stream, bytes(200_000))
    server.rtt_s = 1.0
    server.receive_data(client.data_to_send())
    server.streams[stream.id].granted_at = 0.0
    while server.read(server.streams[stream.id], None, 0.1):
        pass
    assert server.usage().reached == {"extra_window_bytes": 1}
    assert server.usage().largest_window == 256 * 1024


def test_bulk_is_handed_out_without_copying() -> None:
    session, stream = peer.client_with_stream()
    payload = bytearray(100_000)
    session.post(stream, memoryview(payload))
    pieces, finished = session.pull(1 << 20)
    assert finished == [stream]
    assert isinstance(pieces[1], memoryview)
    assert pieces[1].obj is payload
    session.post(stream, memoryview(b""))  # nothing to send is nothing
    assert not session.has_output


# ---- properties -----------------------------------------------------------------------
