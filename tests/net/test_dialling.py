"""Dialling one peer at several addresses, known from the start or learnt on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fedd.api.errors import NotConnected
from fedd.core.identity import PrivateKey
from fedd.net import dialling
from fedd.net.connection import Connection
from fedd.net.memory import MemoryNetwork
from fedd.net.swarm import Swarm
from fedd.net.transport import Address, Wire, parse_multiaddr

HOLE = "/memory/99"
MUTE = "/memory/98"


class HoledNetwork(MemoryNetwork):
    """At /memory/99 nothing answers and nothing is refused, as where packets vanish."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[int] = []
        self.last_at = 0.0

    async def connect(self, address: Address) -> Wire:
        self.dialled.append(address.port)
        self.last_at = trio.current_time()
        if address.port == 99:
            await trio.sleep_forever()
        return await super().connect(address)


@asynccontextmanager
async def two_on(network: HoledNetwork) -> AsyncIterator[tuple[Swarm, Swarm, str, trio.Nursery]]:
    """One that dials, one that listens, where, and a nursery that is cancelled at the end."""
    here, there = (Swarm(PrivateKey.from_seed(bytes([n]) * 32), network=network) for n in (1, 2))
    async with trio.open_nursery() as nursery:
        await nursery.start(here.run)
        await nursery.start(there.run)
        (address,) = await there.listen("/memory/2")
        yield here, there, address, nursery
        nursery.cancel_scope.cancel()


async def test_an_address_learnt_on_the_way_is_tried_at_once(autojump_clock: MockClock) -> None:
    network = HoledNetwork()
    made: list[Connection] = []
    async with two_on(network) as (here, there, address, _):

        async def dial(address: str) -> None:
            made.append(await here.dial([address], there.peer_id))

        start = trio.current_time()
        async with trio.open_nursery() as dials:
            dials.start_soon(dial, HOLE)
            await wait_all_tasks_blocked()
            dials.start_soon(dial, address)
        assert trio.current_time() - start < 2 * dialling.DIAL_STAGGER_S
        assert made == [here.connections[there.peer_id]] * 2
        assert network.dialled == [99, 2]


async def test_the_next_address_waits_for_the_end_of_one_that_answers(autojump_clock: MockClock) -> None:
    """A peer whose processor is busy with a crowd must not get a second connection for it."""
    network = HoledNetwork()
    async with two_on(network) as (here, there, address, _):
        await network.listen(parse_multiaddr(MUTE))  # accepts nobody: the handshake never goes on
        start = trio.current_time()
        await here.dial([MUTE, address], there.peer_id)
        assert network.dialled == [98, 2]
        assert network.last_at - start == here.limits.dial_s / 2


async def test_the_next_address_is_tried_while_a_door_is_closed(autojump_clock: MockClock) -> None:
    network = HoledNetwork()
    async with two_on(network) as (here, there, address, nursery):
        listener = await network.listen(parse_multiaddr(MUTE))

        async def turn_away() -> None:
            while True:
                (await listener.accept()).close()

        nursery.start_soon(turn_away)
        start = trio.current_time()
        await here.dial([MUTE, address], there.peer_id)
        assert trio.current_time() - start < dialling.BUSY_DOOR_RETRY_S


async def test_whoever_adds_addresses_learns_why_none_worked(autojump_clock: MockClock) -> None:
    network = HoledNetwork()
    here = Swarm(PrivateKey.from_seed(bytes([1]) * 32), network=network)
    there = PrivateKey.from_seed(bytes([2]) * 32).peer_id
    reasons: list[str] = []

    async def dial(*addresses: str) -> None:
        with pytest.raises(NotConnected) as caught:
            await here.dial(addresses, there)
        reasons.append(caught.value.detail)

    async with trio.open_nursery() as nursery:
        await nursery.start(here.run)
        async with trio.open_nursery() as dials:
            dials.start_soon(dial, "/memory/5")
            dials.start_soon(dial, "/memory/6", "/memory/5")
        assert sorted(network.dialled) == [5, 6]
        for reason in reasons:
            assert "cannot dial /memory/5: nobody listens there" in reason
            assert "cannot dial /memory/6: nobody listens there" in reason
        nursery.cancel_scope.cancel()


async def test_at_most_so_many_addresses_of_a_peer_are_tried(autojump_clock: MockClock) -> None:
    network = HoledNetwork()
    here = Swarm(PrivateKey.from_seed(bytes([1]) * 32), network=network)
    async with trio.open_nursery() as nursery:
        await nursery.start(here.run)
        with pytest.raises(NotConnected):
            await here.dial(
                [f"/memory/{number}" for number in range(1, 80)],
                PrivateKey.from_seed(bytes([2]) * 32).peer_id,
            )
        assert len(network.dialled) == dialling.MAX_TRIED
        nursery.cancel_scope.cancel()
