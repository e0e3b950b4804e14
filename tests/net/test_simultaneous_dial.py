"""Two peers that dial each other at once: one connection stays, and no stream is lost."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio
import trio.testing
from net.links import KEYS

from fedd.net.memory import MemoryNetwork
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm

PROTOCOL = "/ask"
STREAMS = 3


class Jitter(MemoryNetwork):
    """A network on which every write takes its own time; what was written first still arrives first."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.longest_s = 0.0
        super().__init__()

    @property
    def latency_s(self) -> float:
        return self._rng.uniform(0, self.longest_s)

    @latency_s.setter
    def latency_s(self, value: float) -> None:
        self.longest_s = value


async def answer(stream: Stream) -> None:
    """Answer after the time that the stream asks for: over that in which a connection is given up."""
    request = await stream.receive_exactly(8)
    await trio.sleep(int.from_bytes(request[:4], "big") / 1000)
    await stream.send_all(request)


async def dial_and_ask(
    here: Swarm, there: Swarm, rng: random.Random, longest_s: float, tally: list[int]
) -> None:
    """Dial, and open streams in the first moments, whichever connection is in use then."""
    await trio.sleep(rng.uniform(0, 2 * longest_s))
    await here.dial(there.addresses)

    async def ask() -> None:
        await trio.sleep(rng.uniform(0, 4 * longest_s))
        stream = await here.open_stream(there.peer_id, PROTOCOL)
        request = rng.randrange(round(4000 * longest_s) + 1).to_bytes(4, "big") + rng.randbytes(4)
        await stream.send_all(request)
        assert await stream.receive_exactly(8) == request
        await stream.aclose()
        tally[0] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(STREAMS):
            nursery.start_soon(ask)


async def until(holds: Callable[[], bool], pause_s: float) -> None:
    for _ in range(2000):
        if holds():
            return
        await trio.sleep(pause_s)
    raise AssertionError("it did not come to rest")


async def settled(a: Swarm, b: Swarm) -> None:
    """Wait until the connections that lost have closed, and look that both ends kept the same one."""
    await until(lambda: len(a.all_connections) == len(b.all_connections) == 1, 0.05)
    kept, mirror = a.connections[b.peer_id], b.connections[a.peer_id]
    assert {kept.direction, mirror.direction} == {"in", "out"}
    assert kept.takes_streams
    assert mirror.takes_streams


async def pair(nursery: trio.Nursery, network: MemoryNetwork | None, address: str) -> tuple[Swarm, Swarm]:
    swarms = [Swarm(key, network=network) for key in KEYS[:2]]
    for swarm in swarms:
        swarm.member_check = lambda peer_id: True
        swarm.handle(PROTOCOL, answer)
        await nursery.start(swarm.run)
        await swarm.listen(address)
    return swarms[0], swarms[1]


@pytest.mark.parametrize("longest_s", [0.002, 0.02, 0.1, 0.5])
async def test_250_simultaneous_dials_on_virtual_time(
    autojump_clock: trio.testing.MockClock, longest_s: float
) -> None:
    rng = random.Random(f"dials {longest_s}")
    tally, both = [0], 0
    async with trio.open_nursery() as nursery:
        network = Jitter(rng)
        network.longest_s = longest_s
        a, b = await pair(nursery, network, "/memory/0")
        for _ in range(250):
            made = len(network.wires)
            async with trio.open_nursery() as dials:
                dials.start_soon(dial_and_ask, a, b, rng, longest_s, tally)
                dials.start_soon(dial_and_ask, b, a, rng, longest_s, tally)
            both += len(network.wires) == made + 2
            await settled(a, b)
            await a.disconnect(b.peer_id)
            await until(lambda: not b.connections, 0.05)
            await trio.sleep(30)  # what is remembered of them at the doors fades
        nursery.cancel_scope.cancel()
    assert tally[0] == 250 * 2 * STREAMS
    assert both > 100  # else they were not simultaneous


async def test_50_simultaneous_dials_on_sockets() -> None:
    rng = random.Random(50)
    tally = [0]
    async with trio.open_nursery() as nursery:
        a, b = await pair(nursery, None, "/ip4/127.0.0.1/tcp/0")
        for _ in range(50):
            async with trio.open_nursery() as dials:
                dials.start_soon(dial_and_ask, a, b, rng, 0.001, tally)
                dials.start_soon(dial_and_ask, b, a, rng, 0.001, tally)
            await settled(a, b)
            await a.disconnect(b.peer_id)
            await until(lambda: not b.connections, 0.002)
        nursery.cancel_scope.cancel()
    assert tally[0] == 50 * 2 * STREAMS
