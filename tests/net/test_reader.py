"""Who reads the socket: a stream's receiver or the connection's own task, never two, always one."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from net.links import running, stream_pair

from fedd.core.noise import NoiseTransport
from fedd.core.yamux import EventKind, Session
from fedd.core.yamux_stream import INITIAL_WINDOW_BYTES
from fedd.net.buffers import BUFFER_BYTES, BufferPool, seal
from fedd.net.reader import LENT_TURNS, Reader
from fedd.net.stream import Stream


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def wait_on_the_socket(nursery: trio.Nursery, stream: Stream) -> None:
    """Start a receiver just after another was served, so that it finds nobody waiting for the socket."""
    reader = stream.connection.reader
    nursery.start_soon(stream.receive_some)
    for _ in range(LENT_TURNS + 2):
        if reader.waiting is not None:
            break
        await trio.lowlevel.checkpoint()
    assert reader.waiting is stream


async def exchange(a: Stream, b: Stream) -> None:
    """Let the task that receives on `a` be served a few times."""
    for _ in range(3):
        await b.send_all(b"x")
        assert await a.receive_some() == b"x"


async def test_a_receiver_that_comes_back_reads_the_socket_itself() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        reader = a.connection.reader
        async with trio.open_nursery() as nursery:
            await exchange(a, b)
            await wait_on_the_socket(nursery, a)
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert reader.waiting is reader


async def test_when_the_receiver_does_not_come_back_the_connection_reads() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        await exchange(a, b)
        for _ in range(LENT_TURNS + 3):
            await trio.lowlevel.checkpoint()
        assert a.connection.reader.waiting is a.connection.reader
        assert await b.connection.measure_rtt() >= 0


async def test_whoever_reads_reads_for_all() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        c, d = await stream_pair(links, "/other")
        await exchange(a, b)
        got: list[bytes] = []

        async def receive(stream: Stream) -> None:
            got.append(await stream.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, a)
            await trio.testing.wait_all_tasks_blocked()
            assert a.connection.reader.waiting is not None
            nursery.start_soon(receive, c)
            await trio.testing.wait_all_tasks_blocked()
            await d.send_all(b"for the other")
            await trio.testing.wait_all_tasks_blocked()
            assert got == [b"for the other"]
            await b.send_all(b"for the reader")
        assert got == [b"for the other", b"for the reader"]


@pytest.mark.parametrize("how", ["cancelled", "reset", "closed", "connection"])
async def test_a_receiver_that_reads_the_socket_can_be_stopped(
    how: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(latency_s=0.001) as links:
        a, b = await stream_pair(links)
        other, peer = await stream_pair(links, "/other")
        await exchange(a, b)
        ended: list[BaseException] = []

        async def receive() -> None:
            try:
                await a.receive_some()
            except (trio.Cancelled, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                ended.append(error)
                if how == "cancelled":
                    raise

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            assert a.connection.reader.waiting is a
            match how:
                case "cancelled":
                    nursery.cancel_scope.cancel()
                case "reset":
                    a.reset()
                case "closed":
                    await a.aclose()
                case _:
                    await a.connection.aclose()
        assert len(ended) == 1
        if how != "connection":  # all others go on
            await peer.send_all(b"still here")
            assert await other.receive_some() == b"still here"


async def test_two_may_not_receive_on_one_stream_whoever_reads() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        await exchange(a, b)
        async with trio.open_nursery() as nursery:
            await wait_on_the_socket(nursery, a)
            with pytest.raises(trio.BusyResourceError):
                await a.receive_some()
            nursery.cancel_scope.cancel()


async def test_on_sockets_too() -> None:
    """Interrupting a wait for a socket, with a writer waiting for the same socket."""
    async with running() as links:
        dialler, listener = links.swarms
        here = await dialler.dial(await listener.listen("/ip4/127.0.0.1/tcp/0"))
        a, b = await stream_pair(links)
        c, d = await stream_pair(links, "/other")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(c.send_all, bytes(50_000_000))
            nursery.start_soon(echo, b)
            for _ in range(20):
                await a.send_all(b"message")
                assert await a.receive_some() == b"message"
            nursery.start_soon(a.receive_some)
            await trio.lowlevel.checkpoint()
            here.wire.interrupt()
            b.connection.wire.interrupt()
            received = 0
            while received < 50_000_000:
                received += len(await d.receive_some())
            assert not here.closed
            nursery.cancel_scope.cancel()


class Source:
    """A wire that gives portions, each as one read, None for nothing; it counts who waits for it."""

    def __init__(self, portions: list[bytes | None]) -> None:
        self.portions = portions
        self.waits = 0

    def recv_into(self, buffer: memoryview) -> int:
        portion = self.portions.pop(0)
        if portion is None:
            raise BlockingIOError
        buffer[: len(portion)] = portion
        return len(portion)

    async def wait_readable(self) -> None:
        self.waits += 1
        await trio.lowlevel.checkpoint()


async def test_after_much_was_read_the_next_read_is_tried_at_once() -> None:
    near, far = NoiseTransport(b"1" * 32, b"2" * 32), NoiseTransport(b"2" * 32, b"1" * 32)
    peer, session = Session(initiator=True), Session(initiator=False)

    def frames(*sizes: int) -> bytes:
        for size in sizes:
            peer.post(peer.open(), memoryview(bytes(size)))
        buffer = memoryview(bytearray(BUFFER_BYTES))
        return bytes(buffer[: seal(near, buffer, peer.pull(sum(sizes))[0])])

    full = (INITIAL_WINDOW_BYTES, INITIAL_WINDOW_BYTES)
    portions = [frames(100), frames(*full), frames(*full), frames(200_000), None]
    source = Source([*portions, frames(*full), None, frames(100)])
    kinds: list[EventKind] = []
    reader = Reader(
        source,
        far,
        session,
        BufferPool(),
        handle=lambda events: kinds.extend(event.kind for event in events),
        flush=lambda: None,
        end=lambda reason: None,
        broke=lambda error: pytest.fail(str(error)),
    )
    waited = []
    while source.portions:
        before = source.waits
        await reader.wait(reader)
        reader.read()
        waited.append(source.waits > before)
    # 100 bytes, full, full, 200,000, nothing, full, nothing, 100 bytes
    assert waited == [True, True, False, False, True, True, False, True]
    assert kinds.count(EventKind.OPENED) == 9
