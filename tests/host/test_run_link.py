"""One link of a run by itself."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from fedd.api.errors import NotConnected
from fedd.core.rounds import Payload
from fedd.host.run_link import FIRST_RETRY_S, RunLink
from fedd.host.run_wire import RunFrame
from fedd.net.stream import Stream


class Unreachable:
    """A run's node that has no connection to its neighbour."""

    def __init__(self) -> None:
        self.asked_at: list[float] = []
        self.settled = 0

    async def open_stream(self, peer: str, /) -> Stream:
        self.asked_at.append(trio.current_time())
        assert len(self.asked_at) < 100, "the link asks without a pause"
        raise NotConnected(f"there is no connection to {peer}")

    def backlog(self, peer: str) -> list[Payload]:
        return []

    def on_reply(self, peer: str, frame: RunFrame) -> None:
        raise AssertionError("nobody replies")

    def on_settled(self) -> None:
        self.settled += 1


async def test_a_connection_that_ends_at_once_is_tried_once(autojump_clock: MockClock) -> None:
    node = Unreachable()
    link = RunLink("p1", node)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        await trio.sleep(FIRST_RETRY_S / 2)
        link.renew()
        await trio.sleep(1.0)
        link.settle()
    assert node.asked_at[1] - node.asked_at[0] == FIRST_RETRY_S / 2
    assert len(node.asked_at) <= 6
    assert node.settled == 1
