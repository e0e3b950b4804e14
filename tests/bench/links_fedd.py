"""Ends of the links benchmark over fedd's own links.

links_fedd.py serve|call DIRECTORY [ADDRESS]

Nobody remembers whom it has met, so every handshake is as dear as a first one, until the command "remember".
"""

from __future__ import annotations

import secrets
import sys
from typing import Any

import links_end
import trio

from fedd.core import noise_handshake
from fedd.core.identity import PrivateKey
from fedd.net.connection import Connection
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm, SwarmLimits

PROTOCOL = "/bench/1.0.0"


class Memory:
    """Whether this process keeps what handshakes have proven."""

    def __init__(self) -> None:
        self.kept = False

    async def remember(self, count: int) -> dict[str, float]:
        self.kept = True
        return {}

    def met(self, kind: str, connection: Connection, reason: str) -> None:
        if not self.kept:
            noise_handshake.known_identity.cache_clear()


def new_swarm(memory: Memory) -> Swarm:
    """A node that treats all others as members: strangers would not keep idle connections for long."""
    swarm = Swarm(
        PrivateKey.from_seed(secrets.token_bytes(32)),
        limits=SwarmLimits(connections=1024, handshakes_per_s=1e6),
    )
    swarm.member_check = lambda peer_id: True
    swarm.subscribe(memory.met)
    return swarm


async def serve() -> None:
    memory = Memory()
    swarm = new_swarm(memory)
    swarm.handle(PROTOCOL, links_end.serve_stream, access="anyone")
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        links_end.say(address=(await swarm.listen("/ip4/127.0.0.1/tcp/0"))[0])
        await links_end.obey({"remember": memory.remember})
        nursery.cancel_scope.cancel()


async def call(address: str) -> None:
    memory = Memory()
    swarm = new_swarm(memory)
    peer_id = address.rpartition("/")[2]
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        await swarm.dial([address])

        async def open_stream() -> Stream:
            return await swarm.open_stream(peer_id, PROTOCOL)

        async def bulk(count: int) -> dict[str, float]:
            return await links_end.send_bulk(await open_stream(), count)

        async def small(count: int) -> dict[str, float]:
            return await links_end.send_small(await open_stream(), count)

        async def streams(count: int) -> dict[str, float]:
            return await links_end.ask_streams(open_stream, count)

        async def handshakes(count: int) -> dict[str, float]:
            for _ in range(count):
                await swarm.disconnect(peer_id)
                await swarm.dial([address])
            return {}

        async def hold(count: int) -> dict[str, float]:
            for _ in range(count):
                more = new_swarm(memory)
                await nursery.start(more.run)
                await more.dial([address])
            return {}

        links_end.say(ready=True)
        commands: dict[str, Any] = {
            "bulk": bulk,
            "small": small,
            "streams": streams,
            "handshakes": handshakes,
            "handshakes_again": handshakes,
            "remember": memory.remember,
            "hold": hold,
        }
        await links_end.obey(commands)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        trio.run(serve)
    else:
        trio.run(call, sys.argv[3])
