"""Real swarms that find each other on a network in memory."""

from __future__ import annotations

import random
from collections.abc import Sequence

import trio
from federation.daemons import GUARD_S
from federation.processor import Stopwatch
from net.discovery_world import KEYS, LO
from stores import MemoryStore

from fedd.core.certificates import federation_id, issue_certificate, make_chain
from fedd.core.identity import PrivateKey
from fedd.net.discovery import Discovery
from fedd.net.federation import FederationIdentity
from fedd.net.interfaces import Interface
from fedd.net.multicast import Heard
from fedd.net.presence import Presence
from fedd.net.swarm import Swarm


def identity(key: PrivateKey) -> FederationIdentity:
    root = PrivateKey.from_seed(bytes([99]) * 32)
    certificate = issue_certificate(
        root, federation=federation_id(root.public_key), name="plant", peer_id=key.peer_id, serial=1
    )
    return FederationIdentity.from_chain(make_chain(certificate), federation_id(root.public_key), key.peer_id)


class Air:
    """A network on which several discoveries hear each other, themselves included."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []

    def use(self, wanted: Sequence[Interface]) -> list[str]:
        return []

    def send(self, index: int, data: bytes) -> None:
        for heard in self.heard:
            heard(index, data)

    async def run(self, heard: Heard) -> None:
        self.heard.append(heard)
        await trio.sleep_forever()


async def test_two_that_know_nothing_but_their_federation_link_within_three_seconds() -> None:
    """Real swarms on loopback, a network in memory for multicast."""
    air = Air()
    presences = []
    async with trio.open_nursery() as nursery:
        for number, key in enumerate(KEYS[:2]):
            swarm = Swarm(key)
            presence = Presence(swarm, key, MemoryStore(), rng=random.Random(number))
            finder = Discovery(swarm, presence, lan=air, rng=random.Random(number))
            await nursery.start(swarm.run)
            await swarm.listen("/ip4/127.0.0.1/tcp/0")
            presence.enter(identity(key))
            await nursery.start(presence.run)
            nursery.start_soon(finder.run)
            finder.look([LO])
            presences.append(presence)
        watch = Stopwatch()  # others' load apart
        await presences[0].wait_linked(KEYS[1].peer_id, GUARD_S)
        await presences[1].wait_linked(KEYS[0].peer_id, GUARD_S)
        assert watch.seconds() < 3
        nursery.cancel_scope.cancel()
