"""Two multiplexers over a link that splits and delays, and one that hears anything at all."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace

from core import yamux_peer as peer
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import ProtocolError
from fedd.core.yamux import EventKind, Session, YamuxLimits, YamuxStream


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
            peer.post(ends[poster], stream, payload)
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
                peer.frame,
                st.integers(0, 3),
                st.sampled_from(
                    [
                        0,
                        0,
                        peer.SYN,
                        peer.ACK,
                        peer.FIN,
                        peer.RST,
                        peer.SYN | peer.FIN,
                        peer.ACK | peer.RST,
                        15,
                    ]
                ),
                st.integers(0, 6),
                st.one_of(st.integers(0, 30), st.integers(0, 2**32 - 1)),
            ),
            st.builds(
                peer.data,
                st.sampled_from([0, peer.SYN, peer.FIN, peer.RST, peer.SYN | peer.FIN]),
                st.integers(0, 6),
                st.binary(max_size=9),
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
            peer.post(session, stream, b"hello")
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
