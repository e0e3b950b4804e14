"""Who reads the socket: a stream's receiver or the connection's own task, never two, always one."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from net.links import running, stream_pair

from fedd.net.reader import LENT_TURNS
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
