"""What arrives for a yamux stream together is read together, and copied once."""

from __future__ import annotations

from core import yamux_peer as peer

from fedd.core.yamux import EventKind, Session, YamuxLimits

LARGE = 5000
"""More than is gathered by copying it twice."""


def test_payloads_of_one_read_are_one_chunk_of_their_stream() -> None:
    session, stream = peer.server_with_stream()
    arrived = [bytes([n]) * LARGE for n in range(3)]
    events = session.receive_data(memoryview(b"".join(peer.data(0, 1, payload) for payload in arrived)))
    assert peer.kinds(events) == [EventKind.READABLE]
    assert stream.buffered_bytes == session.usage().buffered == 3 * LARGE
    assert session.read(stream, None, 0.0) == b"".join(arrived)
    assert session.read(stream, None, 0.0) == b""
    assert session.usage().buffered == 0


def test_what_the_next_read_brings_is_a_chunk_of_its_own() -> None:
    session, stream = peer.server_with_stream()
    for n in range(2):
        session.receive_data(memoryview(peer.data(0, 1, bytes([n]) * LARGE)))
    assert [session.read(stream, None, 0.0) for _ in range(2)] == [bytes(LARGE), b"\1" * LARGE]


def test_streams_whose_payloads_alternate_keep_their_order() -> None:
    session, first = peer.server_with_stream()
    second = session.receive_data(peer.frame(peer.WINDOW, peer.SYN, 3, 0))[0].stream
    assert second is not None
    parts = [(1, b"a" * LARGE), (1, b"small"), (3, b"b" * LARGE), (3, b"tiny"), (1, b"c" * LARGE)]
    events = session.receive_data(
        memoryview(b"".join(peer.data(0, number, payload) for number, payload in parts))
    )
    assert [event.stream for event in events] == [first, second, first]
    for stream, number in ((first, 1), (second, 3)):
        sent = b"".join(payload for to, payload in parts if to == number)
        assert stream.buffered_bytes == len(sent)
        assert b"".join(iter(lambda stream=stream: session.read(stream, None, 0.0), b"")) == sent


def test_a_large_payload_cut_in_two_is_whole_for_its_reader() -> None:
    session, stream = peer.server_with_stream()
    sent = bytes(range(250)) * 80
    raw = memoryview(peer.data(0, 1, sent))
    for part in (raw[:7], raw[7 : 12 + LARGE], raw[12 + LARGE :]):
        session.receive_data(part)
    assert session.read(stream, None, 0.0) + session.read(stream, None, 0.0) == sent


def test_what_came_before_a_reset_or_a_broken_frame_can_be_read() -> None:
    for ending in (peer.frame(peer.WINDOW, peer.RST, 1, 0), peer.frame(9, 0, 1, 0)):
        session, stream = peer.server_with_stream()
        session.receive_data(
            memoryview(peer.data(0, 1, bytes(LARGE)) + peer.data(0, 1, bytes(LARGE)) + ending)
        )
        assert (session.failure is None) is stream.dead
        assert session.read(stream, None, 0.0) == bytes(2 * LARGE)


def test_what_is_dropped_for_lack_of_room_is_not_given_to_the_reader() -> None:
    session = Session(initiator=False, limits=YamuxLimits(buffered_bytes=LARGE))
    raw = peer.data(peer.SYN, 1, bytes(LARGE)) + peer.data(0, 1, b"x") + peer.data(peer.SYN, 3, b"y" * LARGE)
    events = session.receive_data(memoryview(raw))
    assert peer.kinds(events) == [
        EventKind.OPENED,
        EventKind.READABLE,
        EventKind.RESET,
        EventKind.OPENED,
        EventKind.READABLE,
    ]
    first, second = events[0].stream, events[3].stream
    assert first is not None
    assert second is not None
    assert session.read(first, None, 0.0) == b""
    assert session.read(second, None, 0.0) == b"y" * LARGE
    assert session.usage().buffered == 0
