"""Who waits for a full socket: one task for each connection, made when it is needed first."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from net.links import running, stream_pair

from fedd.net.memory import MEMORY_PIPE_BYTES, MemoryWire
from fedd.net.stream import Stream


def tasks_of(stream: Stream) -> int:
    nursery = stream.connection.writer.nursery
    assert nursery is not None
    return len(nursery.child_tasks)


def wire_of(stream: Stream) -> MemoryWire:
    wire = stream.connection.wire
    assert isinstance(wire, MemoryWire)
    return wire


async def overfill(a: Stream, b: Stream) -> None:
    """Send more than the link holds while the peer reads nothing; then it reads all."""
    count = 3 * MEMORY_PIPE_BYTES
    wire_of(a).hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.send_all, bytes(count))
        await trio.testing.wait_all_tasks_blocked()
        assert a.connection.writer.pending is not None
        wire_of(a).release()
        assert await b.receive_exactly(count) == bytes(count)


async def test_one_task_waits_whenever_the_socket_is_full() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        c, d = await stream_pair(links, "/other")
        before = tasks_of(a)
        await a.send_all(b"x" * 1000)
        assert await b.receive_some() == b"x" * 1000
        assert tasks_of(a) == before  # the socket took it
        for _ in range(3):
            await overfill(a, b)
            await overfill(c, d)
            await trio.testing.wait_all_tasks_blocked()
            assert a.connection.writer.pending is None
            assert tasks_of(a) == before + 1


async def test_what_is_posted_while_the_socket_is_full_leaves_too() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        c, d = await stream_pair(links, "/other")
        for _ in range(2):  # with a new task, and with the one that waited
            wire_of(a).hold()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.send_all, bytes(MEMORY_PIPE_BYTES * 2))
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(c.send_all, b"hello")
                await trio.testing.wait_all_tasks_blocked()
                assert a.connection.writer.pending is not None
                wire_of(a).release()
                assert await b.receive_exactly(MEMORY_PIPE_BYTES * 2) == bytes(MEMORY_PIPE_BYTES * 2)
            assert await d.receive_some() == b"hello"


def writing_tasks(stream: Stream) -> list[str]:
    nursery = stream.connection.writer.nursery
    assert nursery is not None
    return [task.name for task in nursery.child_tasks if task.name.endswith("Writer._run")]


async def test_the_task_ends_with_its_connection() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        await overfill(a, b)
        assert len(writing_tasks(a)) == 1
        await a.connection.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert not writing_tasks(a)  # at once, not after the time that handlers have


async def test_a_full_connection_that_breaks_leaves_no_task() -> None:
    async with running() as links:
        a, _ = await stream_pair(links)
        wire_of(a).hold()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await a.send_all(bytes(3 * MEMORY_PIPE_BYTES))

            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            assert len(writing_tasks(a)) == 1
            wire_of(a).cut()
        await trio.testing.wait_all_tasks_blocked()
        assert not writing_tasks(a)


async def test_senders_that_fill_the_socket_by_turns_share_the_task() -> None:
    async with running() as links:
        pairs = [await stream_pair(links, protocol) for protocol in ("/one", "/two", "/three")]
        size, times = MEMORY_PIPE_BYTES // 3, 20

        async def send(stream: Stream) -> None:
            for _ in range(times):
                await stream.send_all(bytes(size))

        async with trio.open_nursery() as nursery:
            for near, far in pairs:
                nursery.start_soon(send, near)
                nursery.start_soon(far.receive_exactly, size * times)
        await trio.testing.wait_all_tasks_blocked()
        assert len(writing_tasks(pairs[0][0])) == 1
