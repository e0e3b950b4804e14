"""A suspend of the machine, which the monotonic clock does not show, is no news of anybody else."""

from __future__ import annotations

import time

import pytest
import trio
from net.federations import all_alive, form, full_mesh, nodes
from trio.testing import MockClock

from fedd.net.suspension import SuspensionWatch, suspended_s


def test_what_is_new_of_a_suspend_is_told_once() -> None:
    total_s = 100.0
    watch = SuspensionWatch(lambda: total_s)
    assert watch.gap_s() == 0.0
    total_s = 160.0
    assert watch.gap_s() == 60.0
    assert watch.gap_s() == 0.0


def test_this_machine_is_awake_while_this_runs() -> None:
    watch = SuspensionWatch()
    assert abs(watch.gap_s()) < 0.5


@pytest.mark.parametrize(
    ("waits", "error_s"),
    [
        ([], 0.0),
        ([0.6], 0.0),  # between the readings of the first attempt
        ([0.0, 0.6], 0.0),
        ([0.6, 0.0, 0.0] * 10, 0.6),  # in each: it cannot be told from a suspend
        ([0.6, 0.0, 0.0] * 4 + [0.3, 0.0, 0.0] + [0.6, 0.0, 0.0] * 5, 0.3),  # the least disturbed counts
    ],
)
def test_waiting_for_a_processor_is_no_suspend(waits: list[float], error_s: float) -> None:
    awake_s, after_each = 50.0, iter(waits)

    def read(clock: int) -> float:
        nonlocal awake_s
        now_s = awake_s + (100.0 if clock == time.CLOCK_BOOTTIME else 0.0)
        awake_s += next(after_each, 0.0)
        return now_s

    assert suspended_s(read) == pytest.approx(100.0 + error_s)


async def test_a_node_that_was_suspended_says_that_it_is_here_and_accuses_nobody(
    autojump_clock: MockClock,
) -> None:
    async with nodes(3) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(3.0)
        node = members[1]
        total_s = 0.0
        node.presence._suspensions = SuspensionWatch(lambda: total_s)
        core = node.presence._core
        assert core is not None
        before = core.records[node.id].seq
        await trio.sleep(3.0)
        assert core.records[node.id].seq == before
        total_s = 8 * 3600.0
        await trio.sleep(3.0)
        assert core.records[node.id].seq == before + 1
        await trio.sleep(10.0)
        assert all_alive(members)
        assert not [change for member in members for _, change in member.changes if change.new == "dead"]
