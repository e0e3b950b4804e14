"""Devices of one federation on an in-memory network, some of which cannot be dialled."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from stores import MemoryStore
from waiting import until

from fedd.core.certificates import ADMIN, MEMBER, federation_id, issue_certificate, make_chain
from fedd.core.identity import PrivateKey
from fedd.core.verdicts import MemberChange
from fedd.net.circuits import RelayLimits
from fedd.net.connection import Connection
from fedd.net.federation import FederationIdentity
from fedd.net.memory import MemoryNetwork
from fedd.net.ping import serve_ping
from fedd.net.presence import Presence
from fedd.net.relay import Relay
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm

ROOT = PrivateKey.from_seed(b"R" * 32)
FEDERATION = federation_id(ROOT.public_key)
ECHO = "/echo"


async def echo(stream: Stream) -> None:
    """Send back what comes."""
    while data := await stream.receive_some():
        await stream.send_all(data)


class Device:
    """A swarm, presence and a relay. Without `listens` nobody can dial it, whatever it `announce`s."""

    def __init__(
        self,
        number: int,
        network: MemoryNetwork,
        *,
        listens: bool = True,
        announce: tuple[str, ...] = (),
        limits: RelayLimits | None = None,
    ) -> None:
        self.name = f"d{number}"
        self.number = number
        self.network = network
        self.listens = listens
        self.announce = announce
        self.limits = limits
        self.key = PrivateKey.from_seed(bytes([number + 1]) * 32)
        self.store = MemoryStore()
        self.scope: trio.CancelScope | None = None
        self.changes: list[tuple[float, MemberChange]] = []

    @property
    def id(self) -> str:
        return self.key.peer_id

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.CancelScope() as self.scope:
            async with trio.open_nursery() as nursery:
                self.swarm = Swarm(self.key, network=self.network)
                serve_ping(self.swarm)
                self.swarm.handle(ECHO, echo)
                self.presence = Presence(
                    self.swarm,
                    self.key,
                    self.store,
                    name=self.name,
                    announce=self.announce,
                    rng=random.Random(self.number),
                )
                self.presence.subscribe(lambda change: self.changes.append((trio.current_time(), change)))
                self.relay = Relay(self.swarm, self.presence, self.limits)
                await nursery.start(self.swarm.run)
                if self.listens:
                    await self.swarm.listen(f"/memory/{self.number + 1}")
                self.enter()
                await nursery.start(self.presence.run)
                await nursery.start(self.relay.run)
                task_status.started()
                await trio.sleep_forever()

    def enter(self) -> None:
        certificate = issue_certificate(
            ROOT,
            federation=FEDERATION,
            name="plant",
            peer_id=self.id,
            serial=self.number,
            roles=(MEMBER, ADMIN),
        )
        chain = make_chain(certificate)
        self.presence.enter(FederationIdentity("plant", FEDERATION, ROOT.public_key, chain, True))

    def kill(self) -> None:
        """End everything at once, as the kernel ends a process."""
        assert self.scope is not None
        self.scope.cancel()

    def states(self) -> dict[str, str]:
        return {view.name: view.state for view in self.presence.members()}

    def link_to(self, other: Device) -> str:
        return {view.peer_id: view.link for view in self.presence.members()}[other.id]

    def relayed(self) -> list[Connection]:
        return [link for link in self.swarm.all_connections if link.relayed_by is not None]


def know_each_other(devices: list[Device]) -> bool:
    names = {device.name for device in devices}
    return all(
        {name for name, state in device.states().items() if state == "alive"} == names for device in devices
    )


@asynccontextmanager
async def devices(
    dialable: int,
    undialable: int,
    *,
    announce: tuple[str, ...] = (),
    limits: RelayLimits | None = None,
    latency_s: float = 0.002,
) -> AsyncIterator[list[Device]]:
    """Devices that all know each other: first those that can be dialled, then those that cannot.

    `announce` are addresses at which nobody answers, told by those that cannot be dialled.
    """
    network = MemoryNetwork(latency_s)
    made = [Device(number, network, limits=limits) for number in range(dialable)]
    made += [
        Device(dialable + number, network, listens=False, announce=announce, limits=limits)
        for number in range(undialable)
    ]
    async with trio.open_nursery() as nursery:
        for device in made:
            await nursery.start(device.run)
            if device is not made[0]:
                device.presence.hint(made[0].id, made[0].swarm.addresses)
        await until(lambda: know_each_other(made))
        await until(
            lambda: all(
                device.presence.is_linked(other.id)
                for device in made
                for other in made[:dialable]
                if device is not other
            )
        )
        await until(
            lambda: all(
                len(device.presence.ways_to(other.id)) == dialable
                for device in made[dialable:]
                for other in made[dialable:]
                if device is not other
            )
        )
        yield made
        nursery.cancel_scope.cancel()


async def echoes(stream: Stream, data: bytes) -> bool:
    """Whether `data` comes back."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        return await stream.receive_exactly(len(data)) == data
