"""Reading a presence link: messages are handed over where the socket is read, until the stream ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from net.links import running, stream_pair
from net.steps import steps_of
from trio.testing import MockClock, wait_all_tasks_blocked

from fedd.api.errors import ProtocolError
from fedd.core.presence_messages import Hello, Message, Ping, encode_message
from fedd.net.presence_link import PresenceLink
from fedd.net.stream import Stream

HELLO = Hello("plant7", b"")


def pings(*numbers: int) -> bytes:
    return b"".join(encode_message(Ping(number)) for number in numbers)


class Reading:
    """A link read in a task of its own, and what came of it."""

    def __init__(self, far: Stream, link: PresenceLink) -> None:
        self.far = far
        self.link = link
        self.got: list[int] = []
        self.delivered_in: set[trio.lowlevel.Task] = set()
        self.on_ping: Callable[[int], object] = lambda number: None
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None
        self.error: Exception | None = None
        self.over = False

    async def run(self) -> None:
        self.task = trio.lowlevel.current_task()
        with self.scope:
            try:
                await self.link.read(self._take)
            except Exception as error:
                self.error = error
            self.over = True

    def _take(self, message: Message) -> None:
        assert isinstance(message, Ping)
        self.got.append(message.number)
        self.delivered_in.add(trio.lowlevel.current_task())
        self.on_ping(message.number)

    async def start(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self.run)
        await wait_all_tasks_blocked()

    async def say(self, data: bytes) -> None:
        await self.far.send_all(data)
        await wait_all_tasks_blocked()


@asynccontextmanager
async def reading() -> AsyncIterator[tuple[Reading, trio.Nursery]]:
    async with running() as links, trio.open_nursery() as nursery:
        far, near = await stream_pair(links)
        yield Reading(far, PresenceLink(near, opened_here=False)), nursery
        nursery.cancel_scope.cancel()


async def test_messages_are_delivered_where_the_socket_is_read_and_wake_no_task_of_the_link() -> None:
    async with reading() as (one, nursery):
        await one.start(nursery)
        assert one.task is not None
        with steps_of(one.task) as steps:
            for number in range(5):
                await one.say(pings(number))
        assert one.got == [0, 1, 2, 3, 4]
        assert steps.count == 0
        assert one.task not in one.delivered_in


async def test_what_came_with_the_hello_is_delivered_first_and_at_once() -> None:
    async with reading() as (one, nursery):
        await one.say(encode_message(HELLO) + pings(1, 2))
        await one.link.greet(HELLO, lambda peer, chain: None)
        await one.start(nursery)
        assert one.got == [1, 2]  # nothing else need arrive
        await one.say(pings(3))
        assert one.got == [1, 2, 3]


async def test_what_came_between_the_hello_and_the_reading_comes_second() -> None:
    async with reading() as (one, nursery):
        await one.say(encode_message(HELLO) + pings(1, 2) + pings(3)[:2])
        await one.link.greet(HELLO, lambda peer, chain: None)
        await one.say(pings(3)[2:] + pings(4))
        await one.start(nursery)
        assert one.got == [1, 2, 3, 4]


@pytest.mark.parametrize("how", ["reset", "finish", "connection"])
async def test_a_message_may_end_its_own_stream(how: str) -> None:
    """What came with it follows in its order, each once, though the end calls the reader again."""
    async with reading() as (one, nursery):
        depth = 0

        def end(number: int) -> None:
            nonlocal depth
            depth += 1
            assert depth == 1
            if number == 2:
                match how:
                    case "reset":
                        one.link.stream.reset()
                    case "finish":
                        one.link.finish()
                    case _:
                        one.link.stream.connection.end("local")
            depth -= 1

        one.on_ping = end
        nursery.start_soon(one.link.write)
        await one.start(nursery)
        await one.say(pings(1, 2, 3, 4))
        assert one.got == [1, 2, 3, 4]
        assert (one.over, one.error) == (True, None)


async def test_a_delivery_that_fails_is_the_last_and_reading_raises_its_very_error() -> None:
    mistake = KeyError("a mistake")

    def fail(number: int) -> None:
        if number == 2:
            raise mistake

    async with reading() as (one, nursery):
        one.on_ping = fail
        await one.start(nursery)
        await one.far.send_all(pings(1, 2, 3))
        await one.say(pings(4))
        assert one.error is mistake
        await one.say(pings(5))
        assert one.got == [1, 2]
        assert not one.link.stream.connection.closed


async def test_bytes_that_are_no_message_end_the_reading() -> None:
    async with reading() as (one, nursery):
        await one.start(nursery)
        await one.say(pings(1))
        await one.say(b"\xff\xff garbage")
        await one.say(pings(2))
        assert isinstance(one.error, ProtocolError)
        assert one.got == [1]
        assert not one.link.stream.connection.closed


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(
    "end",
    [
        lambda far, near: far.close_nowait(),
        lambda far, near: far.reset(),
        lambda far, near: near.close_nowait(),
        lambda far, near: near.reset(),
        lambda far, near: far.connection.end("local"),
        lambda far, near: near.connection.end("local"),
    ],
    ids=["their end", "their reset", "our end", "our reset", "their connection", "our connection"],
)
async def test_reading_ends_with_the_stream(end: Callable[[Stream, Stream], None], early: bool) -> None:
    async with reading() as (one, nursery):
        if not early:
            await one.start(nursery)
            await one.say(pings(1))
        end(one.far, one.link.stream)
        await wait_all_tasks_blocked()
        if early:
            await one.start(nursery)
        assert (one.over, one.error) == (True, None)
        assert one.got == ([] if early else [1])


async def test_a_reading_that_is_cancelled_leaves_the_stream_to_others(autojump_clock: MockClock) -> None:
    async with reading() as (one, nursery):
        await one.start(nursery)
        await one.say(pings(1))
        one.scope.cancel()
        await wait_all_tasks_blocked()
        nursery.start_soon(one.far.send_all, pings(2))
        with trio.fail_after(5):
            assert await one.link.stream.receive_exactly(len(pings(2))) == pings(2)
        assert (one.got, one.over) == ([1], False)
