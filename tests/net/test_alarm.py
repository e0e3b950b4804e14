"""An alarm that is moved: it rings at its time, and whoever waits for it sleeps until then."""

from __future__ import annotations

import math

import trio
from net.steps import steps_of
from trio.testing import MockClock, wait_all_tasks_blocked

from fedd.net.alarm import Alarm


class Waiter:
    """Waits for an alarm once, in a task of its own."""

    def __init__(self, alarm: Alarm) -> None:
        self.alarm = alarm
        self.rang_at: float | None = None
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None

    async def run(self) -> None:
        self.task = trio.lowlevel.current_task()
        with self.scope:
            await self.alarm.wait()
            self.rang_at = trio.current_time()


async def started(nursery: trio.Nursery, alarm: Alarm) -> Waiter:
    waiter = Waiter(alarm)
    nursery.start_soon(waiter.run)
    await wait_all_tasks_blocked()
    return waiter


async def test_it_rings_at_the_time_set_before_anybody_waited(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    alarm = Alarm()
    start = trio.current_time()
    alarm.set(start + 9)
    alarm.set(start + 3)
    first = await started(nursery, alarm)
    await trio.sleep(20)
    again = await started(nursery, alarm)  # it was not set anew, and its time is over
    assert (first.rang_at, again.rang_at) == (start + 3, start + 20)


async def test_it_is_moved_both_ways_and_wakes_nobody_before_its_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    alarm = Alarm()
    start = trio.current_time()
    alarm.set(start + 5)
    waiter = await started(nursery, alarm)
    assert waiter.task is not None
    with steps_of(waiter.task) as steps:
        for due in (20, 8, 30, math.inf, 15):
            alarm.set(start + due)
            await wait_all_tasks_blocked()
        await trio.sleep(14)  # past two of those times
        assert (steps.count, alarm.due) == (0, start + 15)
        await trio.sleep(2)
        assert steps.count == 1
    assert waiter.rang_at == start + 15


async def test_advancing_only_brings_it_forward(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    alarm = Alarm()
    start = trio.current_time()
    waiter = await started(nursery, alarm)
    alarm.advance(start + 4)
    alarm.advance(start + 2)
    alarm.advance(start + 6)
    alarm.advance(math.inf)
    assert alarm.due == start + 2
    await trio.sleep(10)
    assert waiter.rang_at == start + 2


async def test_a_time_that_is_over_rings_at_once(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    await trio.sleep(5)
    alarm = Alarm()
    waiter = await started(nursery, alarm)
    start = trio.current_time()
    alarm.set(start - 1)
    await wait_all_tasks_blocked()
    assert waiter.rang_at == start


async def test_infinite_never_rings(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    alarm = Alarm()
    waiter = await started(nursery, alarm)
    await trio.sleep(80_000)
    alarm.set(trio.current_time() + 5)
    alarm.set(math.inf)
    await trio.sleep(80_000)
    assert waiter.rang_at is None
    waiter.scope.cancel()


async def test_it_goes_by_another_clock_and_never_rings_too_early_by_it(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    asked_at: list[float] = []

    def slow_clock() -> float:
        """Ahead of trio's by 1000 s; a task that is not scheduled for a moment reads it 0.25 s later."""
        autojump_clock.jump(0.25)
        asked_at.append(trio.current_time() + 1000)
        return asked_at[-1]

    alarm = Alarm(slow_clock)
    start = trio.current_time() + 1000
    alarm.set(start + 4)
    waiter = await started(nursery, alarm)
    alarm.set(start + 8)
    await trio.sleep(20)
    assert waiter.rang_at == start + 8 - 1000
    alarm.set(start + 40)
    assert len(asked_at) == 2  # to wait and to move it; nobody waited for what was set first and last


async def test_it_outlives_a_waiter_that_is_cancelled(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    alarm = Alarm()
    start = trio.current_time()
    alarm.set(start + 5)
    first = await started(nursery, alarm)
    first.scope.cancel()
    await wait_all_tasks_blocked()
    alarm.set(start + 3)
    second = await started(nursery, alarm)
    alarm.set(start + 7)
    await trio.sleep(10)
    assert (first.rang_at, second.rang_at) == (None, start + 7)
