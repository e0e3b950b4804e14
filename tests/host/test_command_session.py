"""One plugin host process by itself: when it is looked at, and what a call costs. The process is played."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from host.test_command_host import Around
from net.steps import steps_of
from trio.testing import MockClock, wait_all_tasks_blocked

from fedd.core.pipe import Frame
from fedd.host.command_call import Call, HostTimes, Page
from fedd.host.command_session import _LOOK_S, Session
from fedd.host.plugin_schema import CommandInfo

TIMES = HostTimes(start_s=15.0, import_s=12.0, block_s=1.0, grace_s=3.0)
INFO = CommandInfo("work", "plugin", "fedd", "1", "Works.", (), "1.0.0", "members", 65_536, 60.0)


class Played:
    """A process that says and does what the test wants."""

    last_line = ""

    def __init__(self, page: Page) -> None:
        self.killed_at = math.nan
        self._page = page
        self._end = trio.Event()
        self._take: Callable[[Frame], None] = lambda frame: None

    def send(self, header: Mapping[str, Any], body: Sequence[object] = ()) -> None:
        pass

    def say(self, kind: str, *body: memoryview, **header: Any) -> None:
        self._take(Frame({"kind": kind, **header}, list(body)))

    def work_on(self, call: int, step: int) -> None:
        """Write into the page as the plugin host does."""
        os.pwrite(self._page.descriptor, struct.pack("<QQQ", call, step, 0), 0)

    def answer(self, call: int) -> None:
        self.say("began", call=call)
        self.say("answer", memoryview(b"\xf6"), call=call)

    async def run(self, take: Callable[[Frame], None]) -> str:
        self._take = take
        self.say("ready")
        await self._end.wait()
        return "was killed by SIGKILL"

    def kill(self) -> None:
        self.killed_at = trio.current_time()
        self._end.set()


@asynccontextmanager
async def session_of() -> AsyncIterator[tuple[Session, Played, trio.Nursery]]:
    page = Page()
    process: Any = Played(page)
    session = Session(process, page, Around(), TIMES, lambda session, blamed: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        await wait_all_tasks_blocked()
        yield session, process, nursery
        nursery.cancel_scope.cancel()


def a_call() -> Call:
    return Call(INFO, "12D3other", b"")


async def test_a_process_that_hangs_is_judged_in_time(autojump_clock: MockClock) -> None:
    async with session_of() as (session, process, nursery):
        process.work_on(1, 1)
        nursery.start_soon(session.serve, 1, a_call())
        nursery.start_soon(session.serve, 2, a_call())
        await wait_all_tasks_blocked()
        process.say("began", call=1)
        await trio.sleep(_LOOK_S * 1.5)
        process.work_on(1, 2)  # its last step
        hangs_since = trio.current_time()
        for number in range(3, 20):  # that others come does not help it
            await trio.sleep(_LOOK_S * 0.7)
            nursery.start_soon(session.serve, number, a_call())
        assert TIMES.block_s < process.killed_at - hangs_since <= TIMES.block_s + 2 * _LOOK_S


async def test_an_idle_process_is_not_looked_at_and_the_next_call_begins_anew(
    autojump_clock: MockClock,
) -> None:
    def until_anything_s() -> float:
        return trio.lowlevel.current_statistics().seconds_to_next_deadline

    async with session_of() as (session, process, nursery):
        assert until_anything_s() == math.inf
        process.work_on(1, 1)
        async with trio.open_nursery() as calls:
            calls.start_soon(session.serve, 1, a_call())
            await trio.sleep(_LOOK_S * 1.5)
            process.answer(1)
        await trio.sleep(_LOOK_S)
        assert until_anything_s() == math.inf
        await trio.sleep(100)
        process.work_on(1, 1)  # and since then it hangs, which nobody has minded
        nursery.start_soon(session.serve, 2, a_call())
        sent_at = trio.current_time()
        await wait_all_tasks_blocked()
        assert until_anything_s() == pytest.approx(_LOOK_S)
        await trio.sleep(10)
        assert TIMES.block_s < process.killed_at - sent_at <= TIMES.block_s + 2 * _LOOK_S


async def test_a_call_that_was_answered_at_once_takes_one_step_more(autojump_clock: MockClock) -> None:
    async with session_of() as (session, process, nursery):
        tasks: list[trio.lowlevel.Task] = []
        calls = [a_call(), a_call()]
        served: list[int] = []

        async def serve(number: int) -> None:
            tasks.append(trio.lowlevel.current_task())
            await session.serve(number, calls[number - 1])
            served.append(number)

        nursery.start_soon(serve, 1)
        await wait_all_tasks_blocked()
        with steps_of(tasks[0]) as steps:
            process.answer(1)
            await wait_all_tasks_blocked()
        assert (served, steps.count) == ([1], 1)
        assert bytes(calls[0].answer) == b"\xf6"
        nursery.start_soon(serve, 2)
        await wait_all_tasks_blocked()
        process.say("began", call=2)
        await trio.sleep(5)  # and one that takes its time is waited for
        assert served == [1]
        process.answer(2)
        await wait_all_tasks_blocked()
        assert served == [1, 2]
