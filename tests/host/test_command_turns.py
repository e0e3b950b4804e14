"""Places for senders: so many at once, nobody's flood before the others, the operator's own kept free."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fedd.api.errors import Unhealthy
from fedd.host.command_turns import RUNNING, RUNNING_PER_SENDER, WAITING_PER_SENDER, Turns
from fedd.host.command_wire import HELD_BYTES, Memory

Clock = trio.testing.MockClock


class Queue:
    """Senders that hold their places until they are told."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.turns = Turns("me")
        self.nursery = nursery
        self.holding: list[tuple[str, trio.CancelScope]] = []
        self.refused: list[str] = []

    async def come(self, sender: str, count: int = 1) -> None:
        for _ in range(count):
            self.nursery.start_soon(self._hold, sender)
            await trio.testing.wait_all_tasks_blocked()

    async def _hold(self, sender: str) -> None:
        try:
            async with self.turns.turn(sender):
                with trio.CancelScope() as scope:
                    self.holding.append((sender, scope))
                    await trio.sleep_forever()
        except Unhealthy:
            self.refused.append(sender)

    async def leave(self) -> None:
        self.holding.pop(0)[1].cancel()
        await trio.testing.wait_all_tasks_blocked()

    @property
    def who(self) -> str:
        return "".join(sender[0] for sender, _ in self.holding)


async def test_places_are_shared(nursery: trio.Nursery) -> None:
    queue = Queue(nursery)
    await queue.come("a", 10)
    assert queue.who == "a" * RUNNING_PER_SENDER
    await queue.come("b", 2)
    await queue.come("c", 3)
    assert queue.who == "aaaabbc"
    assert len(queue.holding) == RUNNING - 1
    await queue.come("me")  # the last place is kept for this node
    assert queue.who == "aaaabbcm"
    await queue.leave()
    assert queue.who == "aaabbcm"  # the place that it left is this node's own
    await queue.leave()
    await queue.leave()
    assert queue.who == "abbcmac"  # in turn: each sender that waits gets one
    assert queue.turns.bounds()[0].present == 7
    assert queue.refused == []


async def test_nobody_waits_for_ever_or_in_crowds(nursery: trio.Nursery, autojump_clock: Clock) -> None:
    queue = Queue(nursery)
    await queue.come("a", RUNNING_PER_SENDER + WAITING_PER_SENDER)
    assert queue.refused == []
    await queue.come("a")
    assert queue.refused == ["a"]
    await trio.sleep(11)
    assert len(queue.refused) == 1 + WAITING_PER_SENDER
    assert queue.turns._waiting == {}
    assert queue.turns.bounds()[0].reached == 1 + WAITING_PER_SENDER


async def test_who_gives_up_leaves_no_trace(nursery: trio.Nursery) -> None:
    queue = Queue(nursery)
    await queue.come("a", RUNNING_PER_SENDER)
    with trio.move_on_after(0.01):
        async with queue.turns.turn("a", None):
            raise AssertionError("there was no place")
    assert queue.turns._waiting == {}
    for _ in range(RUNNING_PER_SENDER):
        await queue.leave()
    assert not queue.turns._running


def test_requests_have_a_bound_in_bytes() -> None:
    memory = Memory()
    share = HELD_BYTES // 4
    memory.take("a", share)
    with pytest.raises(Unhealthy):
        memory.take("a", 1)
    for sender in "bcd":
        memory.take(sender, share)
    with pytest.raises(Unhealthy):
        memory.take("e", 1)
    memory.give_back("a", share)
    memory.take("e", 1)
    assert memory.bounds()[0].present == 3 * share + 1
    memory.give_back("b", 1)
    assert memory.bounds()[0].reached == 2
