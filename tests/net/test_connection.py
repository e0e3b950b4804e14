"""One connection against a peer made by hand, and its buffers."""

from __future__ import annotations

import logging
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from net.links import KEYS, connected, running, stream_pair
from net.test_upgrade import Client

from fedd.core.noise import NoiseTransport
from fedd.net.buffers import BUFFER_BYTES, MAX_QUANTUM_BYTES, MIN_QUANTUM_BYTES, BufferPool
from fedd.net.memory import MemoryNetwork
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm
from fedd.net.transport import Address
from fedd.net.writer import Writer

SYN, ACK, FIN, RST = 1, 2, 4, 8


def frame(kind: int, flags: int, stream_id: int, length: int, payload: bytes = b"") -> bytes:
    return struct.pack(">BBHII", 0, kind, flags, stream_id, length) + payload


@asynccontextmanager
async def peer() -> AsyncIterator[tuple[Swarm, Client, NoiseTransport]]:
    """A swarm, and a client that has shaken hands with it."""
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        swarm = Swarm(KEYS[1], network=network)
        swarm.member_check = lambda peer_id: True
        await nursery.start(swarm.run)
        await swarm.listen("/memory/1")
        client = Client(await network.connect(Address("memory", "", 1)))
        transport = await client.handshake()
        await trio.testing.wait_all_tasks_blocked()
        yield swarm, client, transport
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"\x01\x00" + bytes(10), "not a yamux frame"),
        (frame(0, SYN, 1, 2**32 - 1), "its window is"),
        (frame(3, 0, 0, 1), "goes away because of an error"),
        (frame(1, SYN, 2, 0), "may not open stream 2"),
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_cut_off(
    said: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fedd.net")
    async with peer() as (swarm, client, transport):
        connection = swarm.connections[KEYS[0].peer_id]
        client.send(transport.encrypt(said))
        await trio.testing.wait_all_tasks_blocked()
        assert connection.closed
        assert connection.close_reason is not None
        assert connection.close_reason.startswith("error: ")
        assert reason in connection.close_reason
        assert not swarm.connections
        assert reason in caplog.text


@pytest.mark.parametrize("raw", [b"\x00\x20" + bytes(32), b"\x00\x00", b"\x00\x0f" + bytes(15)])
async def test_bytes_that_are_not_authentic_cut_it_off(raw: bytes) -> None:
    async with peer() as (swarm, client, _):
        client.send(raw)
        await trio.testing.wait_all_tasks_blocked()
        assert not swarm.connections


async def test_frames_split_anywhere_are_put_together() -> None:
    async with peer() as (swarm, client, transport):
        connection = swarm.connections[KEYS[0].peer_id]
        raw = transport.encrypt(frame(2, SYN, 0, 1)) + transport.encrypt(frame(2, SYN, 0, 2)[:5])
        raw += transport.encrypt(frame(2, SYN, 0, 2)[5:])
        transport.receive_data(await client.receive())  # its ping
        for byte in raw:
            client.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        pongs = b""
        while len(pongs) < 24:
            pongs += b"".join(transport.receive_data(await client.receive()))
        assert pongs[-24:] == frame(2, ACK, 0, 1) + frame(2, ACK, 0, 2)
        assert connection.bytes_in == len(raw)


async def test_a_stream_that_a_broken_frame_follows_still_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its reader must not wait for ever because the bad frame came in the same record."""
    got: list[bytes] = []

    async with peer() as (swarm, client, transport):

        async def read(stream: Stream) -> None:
            while data := await stream.receive_some():
                got.append(data)
            got.append(b"end")

        swarm.handle("/read", read)
        proposal = b"\x13/multistream/1.0.0\n\x06/read\n"
        client.send(transport.encrypt(frame(0, SYN, 1, len(proposal), proposal)))
        await trio.testing.wait_all_tasks_blocked()
        client.send(transport.encrypt(frame(0, FIN, 1, 3, b"abc") + frame(9, 0, 0, 0)))
        await trio.sleep(1)
        assert got == [b"abc", b"end"]


async def test_a_peer_that_reads_nothing_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    """It pings without reading the answers: they pile up to their limit, then it is cut off."""
    async with peer() as (swarm, client, transport):
        connection = swarm.connections[KEYS[0].peer_id]
        for _ in range(300):
            try:
                client.send(transport.encrypt(frame(2, SYN, 0, 0) * 100))
            except (ConnectionResetError, AssertionError, BlockingIOError):
                break
            await trio.testing.wait_all_tasks_blocked()
        assert connection.close_reason is not None
        assert "faster than it reads" in connection.close_reason


async def test_an_idle_connection_holds_no_buffer() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        await a.send_all(bytes(200_000))
        assert len(await b.receive_exactly(200_000)) == 200_000
        await trio.testing.wait_all_tasks_blocked()
        for connection in (a.connection, b.connection):
            assert connection.writer.pending is None
            assert connection.writer._buffer is None
            assert 1 <= len(connection._hooks.pool._free) <= 4


def test_the_pool_keeps_few_buffers() -> None:
    pool = BufferPool(keep=2)
    buffers = [pool.take() for _ in range(3)]
    assert all(len(buffer) == BUFFER_BYTES for buffer in buffers)
    for buffer in buffers:
        pool.give(buffer)
    assert pool.take() is buffers[1]
    assert pool.take() is buffers[0]
    assert pool.take() is not buffers[2]


@pytest.mark.parametrize("slow", [True, False])
async def test_writes_are_small_on_a_slow_link_and_large_on_a_fast_one(
    slow: bool, autojump_clock: trio.testing.MockClock
) -> None:
    latency_s = 0.1 if slow else 0.0
    async with running(latency_s=latency_s) as links:
        a, b = await stream_pair(links)
        connection = a.connection
        for before in (MIN_QUANTUM_BYTES, MAX_QUANTUM_BYTES):
            connection.writer.pace.quantum_bytes = before
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.send_all, bytes(1_000_000))
                assert len(await b.receive_exactly(1_000_000)) == 1_000_000
            # A slow link takes a small write or two at once when it has just become empty.
            assert (connection.writer.pace.quantum_bytes <= 4 * MIN_QUANTUM_BYTES) is slow
            assert (connection.writer.pace.quantum_bytes == MAX_QUANTUM_BYTES) is not slow


async def test_small_writes_do_not_say_that_the_link_is_fast(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        for _ in range(10):
            await a.send_all(b"small")
            await b.receive_some()
        assert a.connection.writer.pace.quantum_bytes == MIN_QUANTUM_BYTES


async def test_control_frames_overtake_bulk(autojump_clock: trio.testing.MockClock) -> None:
    async with running(latency_s=0.01) as links:
        a, _ = await stream_pair(links)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.send_all, bytes(250_000))
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            await a.connection.measure_rtt()
            assert trio.current_time() - start < 0.2
            nursery.cancel_scope.cancel()


async def test_closing_waits_for_what_is_on_its_way(autojump_clock: trio.testing.MockClock) -> None:
    async with running(latency_s=0.1) as links:
        a, b = await stream_pair(links)
        payload = bytes(range(256)) * 390
        await a.send_all(payload)
        assert a.connection.writer.pending
        await a.connection.aclose()
        assert await b.receive_exactly(len(payload)) == payload
        await trio.sleep(1)
        assert b.connection.close_reason == "closed"


async def test_closing_does_not_wait_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as links:
        connection, _ = await connected(links)
        a, _ = await stream_pair(links)
        links.network.wires[0].hold()
        await a.send_all(bytes(100_000))
        start = trio.current_time()
        await connection.aclose()
        assert trio.current_time() - start == pytest.approx(1.0)
        assert connection.close_reason == "local"


async def test_a_write_that_breaks_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as links:
        connection, _ = await connected(links)
        a, _ = await stream_pair(links)
        held = connection.wire.send

        def fail(_: bytes | memoryview) -> int:
            raise OSError(113, "No route to host")

        connection.wire.send = fail
        with pytest.raises(trio.BrokenResourceError, match="No route to host"):
            await a.send_all(b"x")
        assert connection.close_reason == "error: No route to host"
        connection.wire.send = held


async def test_a_write_that_breaks_later_ends_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as links:
        a, _ = await stream_pair(links)
        links.network.wires[0].hold()
        await a.send_all(bytes(100_000))
        links.network.wires[0].cut()
        await trio.testing.wait_all_tasks_blocked()
        assert a.connection.close_reason == "closed"


async def test_many_small_messages_of_many_streams_share_noise_frames(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(latency_s=0.05) as links:
        pairs = [await stream_pair(links, f"/pair/{n}") for n in range(40)]
        blocker, sink = await stream_pair(links, "/blocker")
        blocker.connection.writer.pace.quantum_bytes = MAX_QUANTUM_BYTES
        async with trio.open_nursery() as nursery:
            nursery.start_soon(blocker.send_all, bytes(250_000))
            await trio.testing.wait_all_tasks_blocked()
            for here, _ in pairs:
                nursery.start_soon(here.send_all, b"\x55" * 3000)
            assert len(await sink.receive_exactly(250_000)) == 250_000
            for _, there in pairs:
                assert await there.receive_exactly(3000) == b"\x55" * 3000


async def test_what_is_sent_while_the_connection_is_cancelled_starts_no_writer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as links:
        connection, _ = await connected(links)
        assert connection._nursery is not None

        def full(writer: Writer) -> bool:
            writer.pending = memoryview(b"left over")
            return False

        monkeypatch.setattr(Writer, "write_batch", full)  # the socket is full
        connection._nursery.cancel_scope.cancel()
        while not connection.closed:
            connection._session.ping(1)
            connection.flush()
            await trio.lowlevel.cancel_shielded_checkpoint()
        assert connection.close_reason == "local"
