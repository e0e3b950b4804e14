"""Streams keep trio's contract, over an in-memory link and over TCP."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from net.links import connected, running, stream_pair

from fedd.api.errors import ProtocolError
from fedd.core.yamux_stream import INITIAL_WINDOW_BYTES
from fedd.net.stream import Stream

Pair = tuple[Stream, Stream]


async def test_streams_are_half_closeable_streams_in_memory() -> None:
    async with running() as links:

        async def make() -> Pair:
            return await stream_pair(links)

        async def make_clogged() -> Pair:
            a, b = await stream_pair(links)
            for stream in (a, b):
                await stream.send_all(bytes(stream._core.send_window))
            return a, b

        await trio.testing.check_half_closeable_stream(make, make_clogged)


async def test_streams_are_half_closeable_streams_over_tcp() -> None:
    async with running() as links:
        a, b = links.swarms
        await b.listen("/ip4/127.0.0.1/tcp/0")
        await a.dial(b.addresses[1:])

        async def make() -> Pair:
            return await stream_pair(links)

        await trio.testing.check_half_closeable_stream(make, None)


async def test_bytes_of_any_size_arrive_in_both_directions(autojump_clock: trio.testing.MockClock) -> None:
    rng = random.Random(3)
    payloads = [rng.randbytes(size) for size in (0, 1, 100, 4095, 4096, 65_519, 65_520, 300_000, 3_000_000)]
    everything = b"".join(payloads)

    async def send(stream: Stream) -> None:
        for payload in payloads:
            await stream.send_all(payload)
        await stream.send_eof()

    async def receive(stream: Stream) -> None:
        got = bytearray()
        while part := await stream.receive_some():
            got += part
        assert got == everything

    async with running(latency_s=0.01) as links:
        a, b = await stream_pair(links)
        async with trio.open_nursery() as nursery:
            for stream in (a, b):
                nursery.start_soon(send, stream)
                nursery.start_soon(receive, stream)
        connection = a.connection
        assert connection.rtt_s == pytest.approx(0.02)
        assert connection.bytes_out > len(everything)
        assert connection.bytes_in > len(everything)
        assert a._core.target > INITIAL_WINDOW_BYTES  # it grew to keep the long link busy


async def test_many_streams_at_once_do_not_mix(autojump_clock: trio.testing.MockClock) -> None:
    async def echo(stream: Stream) -> None:
        while part := await stream.receive_some():
            await stream.send_all(part)

    async def talk(number: int) -> None:
        rng = random.Random(number)
        stream = await a.open_stream(b.peer_id, "/echo")
        for _ in range(20):
            payload = rng.randbytes(rng.choice([1, 100, 5000, 70_000]))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, payload)
                assert await stream.receive_exactly(len(payload)) == payload
        await stream.aclose()

    async with running(latency_s=0.001) as links:
        a, b = links.swarms
        b.handle("/echo", echo)
        connection, _ = await connected(links)
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(talk, number)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1)
        assert connection.streams == []


async def test_arrays_are_sent_as_their_bytes() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        await a.send_all(memoryview(b"\x01\x00\x02\x00").cast("H"))
        assert await b.receive_exactly(4) == b"\x01\x00\x02\x00"


async def test_a_cancelled_send_resets_the_stream() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        clogged = a._core.send_window
        await a.send_all(bytes(clogged))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.send_all, b"half a message is worse than none")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert a.broken
        with pytest.raises(trio.ClosedResourceError):
            await a.send_all(b"x")
        assert len(await b.receive_exactly(clogged)) == clogged
        with pytest.raises(trio.BrokenResourceError, match="reset the stream"):
            await b.receive_some()


async def test_a_send_cancelled_beforehand_sends_nothing() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        with trio.CancelScope() as scope:
            scope.cancel()
            await a.send_all(b"never")
        await a.send_all(b"then")
        assert await b.receive_some() == b"then"


async def test_receive_exactly_tells_the_end_from_a_cut() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        await a.send_all(b"abcdef")
        await a.send_eof()
        assert await b.receive_exactly(0) == b""
        assert await b.receive_exactly(4) == b"abcd"
        with pytest.raises(ProtocolError, match="after 2 of 4 bytes"):
            await b.receive_exactly(4)
        with pytest.raises(EOFError):
            await b.receive_exactly(4)


async def test_what_was_put_back_is_read_first() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        b.unread(b"12345")
        await a.send_all(b"6")
        assert await b.receive_some(2) == b"12"
        assert await b.receive_some() == b"345"
        assert await b.receive_some() == b"6"


async def test_what_came_before_the_connection_ended_can_be_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        await a.send_all(b"last words")
        await trio.testing.wait_all_tasks_blocked()
        await a.connection.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert b.connection.closed
        assert await b.receive_some() == b"last words"
        with pytest.raises(trio.BrokenResourceError, match=r"the connection to .* ended: closed"):
            await b.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="ended: closed"):
            await b.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError, match="ended: local"):
            await a.send_all(b"x")


async def test_two_readers_that_wait_collide(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        await a.send_all(b"1")
        await trio.testing.wait_all_tasks_blocked()
        outcomes: list[object] = []

        async def read() -> None:
            try:
                outcomes.append(await b.receive_some())
            except trio.BusyResourceError:
                outcomes.append("busy")

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await a.send_all(b"2")
        assert sorted(map(str, outcomes)) == ["b'1'", "b'2'", "busy"]


async def test_sending_the_end_twice_and_after_closing() -> None:
    async with running() as links:
        a, _ = await stream_pair(links)
        await a.send_eof()
        await a.send_eof()
        await a.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await a.send_eof()


async def test_a_stream_says_what_it_is() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        assert a.peer_id == links.swarms[1].peer_id
        assert b.peer_id == links.swarms[0].peer_id
        assert (a.protocol, b.protocol) == ("/pair", "/pair")
        assert a in a.connection.streams
        assert "/pair" in repr(a)
        assert not a.closed
        assert not a.broken
        a.reset()
        assert a.closed
        assert a.broken
        a.reset()


async def test_try_send_sends_all_or_nothing() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        assert a.try_send(b"small")
        assert await b.receive_exactly(5) == b"small"
        window = a._core.send_window
        assert not a.try_send(bytes(window + 1))
        assert a.try_send(bytes(window))
        assert not a.try_send(b"x")
        with trio.fail_after(5):
            assert await b.receive_exactly(window) == bytes(window)
            await a.send_all(b"after")
            assert await b.receive_exactly(5) == b"after"
        await a.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            a.try_send(b"late")
        b.reset()
        with pytest.raises(trio.ClosedResourceError):
            b.try_send(b"late")


async def test_send_all_waits_for_what_try_send_left_to_a_full_socket() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        connection = a.connection
        connection.writer.pending = memoryview(b"the socket takes no more")
        assert a.try_send(b"first")
        assert not a.try_send(b"refused")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.send_all, b"second")
            await trio.testing.wait_all_tasks_blocked()
            connection.writer.pending = None
            connection.flush()
            with trio.fail_after(5):
                assert await b.receive_exactly(11) == b"firstsecond"


async def test_a_sink_is_told_of_arrivals_the_end_and_the_break() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        c, d = await stream_pair(links)
        got: list[bytes | None] = []
        broken: list[Exception] = []

        def take() -> None:
            while (data := b.receive_nowait()) is not None:
                got.append(data)
                if not data:
                    return

        def take_broken() -> None:
            try:
                d.receive_nowait()
            except trio.BrokenResourceError as error:
                broken.append(error)

        assert b.receive_nowait() is None
        b.deliver_to(take)
        d.deliver_to(take_broken)
        await a.send_all(b"one")
        await trio.testing.wait_all_tasks_blocked()
        await a.send_all(b"two")
        await a.send_eof()
        c.reset()
        await trio.testing.wait_all_tasks_blocked()
        assert b"".join(part for part in got if part) == b"onetwo"
        assert got[-1] == b""
        assert len(broken) == 1
        b.deliver_to(None)
        d.deliver_to(None)


async def test_room_is_what_try_send_takes_and_waiting_for_it_ends_with_the_stream() -> None:
    async with running() as links:
        a, b = await stream_pair(links)
        window = a.room
        assert window > 0
        assert not b.readable
        assert a.try_send(bytes(window))
        assert a.room == 0
        with trio.move_on_after(0.05) as early:
            await a.wait_room()
        assert early.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.wait_room)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await a.wait_room()
            while (part := b.receive_nowait(1000)) is not None:
                assert 0 < len(part) <= 1000
        assert a.room > 0
        connection = a.connection
        connection.writer.pending = memoryview(b"the socket takes no more")
        assert a.try_send(b"left to the socket")
        assert a.room == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.wait_room)
            await trio.testing.wait_all_tasks_blocked()
            connection.writer.pending = None
            connection.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert b.readable
        b.reset()
        assert b.readable
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            await a.wait_room()
        a.close_nowait()
        with pytest.raises(trio.ClosedResourceError):
            await a.wait_room()
