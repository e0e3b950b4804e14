"""Swarms for the tests of net: keys that sort as they are numbered, on an in-memory network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing

from fedd.core.identity import PrivateKey
from fedd.net.connection import Connection
from fedd.net.memory import MemoryNetwork
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm, SwarmLimits

KEYS = sorted((PrivateKey.from_seed(bytes([n]) * 32) for n in range(1, 30)), key=lambda key: key.peer_id)


@dataclass
class Links:
    """Running swarms, each listening at its own in-memory address, sorted by peer id."""

    swarms: list[Swarm]
    network: MemoryNetwork
    nursery: trio.Nursery
    changes: list[list[tuple[str, str, str]]] = field(default_factory=list)
    """What each swarm's subscribers were told: (kind, direction, reason)."""


@asynccontextmanager
async def running(
    count: int = 2,
    *,
    latency_s: float = 0.0,
    limits: SwarmLimits | None = None,
    members: bool = True,
) -> AsyncIterator[Links]:
    network = MemoryNetwork(latency_s)
    async with trio.open_nursery() as nursery:
        swarms = [Swarm(key, limits, network) for key in KEYS[:count]]
        changes: list[list[tuple[str, str, str]]] = [[] for _ in swarms]
        for swarm, told in zip(swarms, changes, strict=True):
            if members:
                swarm.member_check = lambda peer_id: True
            swarm.subscribe(lambda kind, link, why, told=told: told.append((kind, link.direction, why)))
            await nursery.start(swarm.run)
            await swarm.listen("/memory/0")
        yield Links(swarms, network, nursery, changes)
        nursery.cancel_scope.cancel()


async def connected(links: Links, dialler: int = 0, listener: int = 1) -> tuple[Connection, Connection]:
    """Connect two of the swarms; give both ends of the connection."""
    a, b = links.swarms[dialler], links.swarms[listener]
    there = trio.Event()
    b.subscribe(lambda kind, link, why: there.set())
    connection = await a.dial(b.addresses)
    await there.wait()
    return connection, b.connections[a.peer_id]


async def stream_pair(links: Links, protocol: str = "/pair") -> tuple[Stream, Stream]:
    """Open a stream between the first two swarms; give both ends. The second's handler waits for ever."""
    a, b = links.swarms[:2]
    if b.peer_id not in a.connections:
        await connected(links)
    arrived: list[Stream] = []
    there = trio.Event()

    async def keep(stream: Stream) -> None:
        arrived.append(stream)
        there.set()
        await trio.sleep_forever()

    b._services.protocols.pop(protocol, None)
    b.handle(protocol, keep, "anyone")
    stream = await a.open_stream(b.peer_id, protocol)
    await there.wait()
    return stream, arrived[0]
