"""Whole nodes in one trio run: swarm, presence and admission over an in-memory network or real TCP."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from stores import MemoryStore
from waiting import until

from fedd.core.identity import PrivateKey
from fedd.core.verdicts import MemberChange
from fedd.net.admission import Admission
from fedd.net.broadcast import Broadcaster
from fedd.net.memory import MemoryNetwork
from fedd.net.presence import Presence
from fedd.net.swarm import Swarm


class Node:
    """One device: what survives a restart is its key, its store and its address."""

    def __init__(
        self, name: str, network: MemoryNetwork | None, number: int, announce: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.network = network
        self.number = number
        self.announce = announce
        self.key = PrivateKey.from_seed(bytes([number]) * 32)
        self.store = MemoryStore()
        self.listen = f"/memory/{number}" if network is not None else "/ip4/127.0.0.1/tcp/0"
        self.scope: trio.CancelScope | None = None
        self.changes: list[tuple[float, MemberChange]] = []
        self.notices: list[str] = []

    @property
    def id(self) -> str:
        return self.key.peer_id

    async def start(self, nursery: trio.Nursery) -> Node:
        await nursery.start(self._run)
        return self

    async def _run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.CancelScope() as self.scope:
            async with trio.open_nursery() as nursery:
                self.swarm = Swarm(self.key, network=self.network)
                self.presence = Presence(
                    self.swarm,
                    self.key,
                    self.store,
                    name=self.name,
                    version="0.1.0",
                    announce=self.announce,
                    rng=random.Random(self.number),
                )
                self.broadcaster = Broadcaster(self.presence, self.key, rng=random.Random(self.number))
                self.admission = Admission(self.swarm, self.presence, self.key, self.store)
                self.presence.subscribe(lambda change: self.changes.append((trio.current_time(), change)))
                self.presence.subscribe_notices(self.notices.append)
                await nursery.start(self.swarm.run)
                (address, *_) = await self.swarm.listen(self.listen)
                self.listen = address
                self.admission.restore()
                await nursery.start(self.presence.run)
                await nursery.start(self.broadcaster.run)
                await nursery.start(self.admission.run)
                task_status.started()
                await trio.sleep_forever()

    def kill(self) -> None:
        """End everything at once, as the kernel ends a process: its connections close, nothing is said."""
        assert self.scope is not None
        self.scope.cancel()

    def wires(self) -> list[object]:
        """Every in-memory wire that ends here."""
        assert self.network is not None
        return [connection.wire for connection in self.swarm.connections.values()]

    def states(self) -> dict[str, str]:
        return {view.name: view.state for view in self.presence.members()}

    def saw(self, peer: Node, *states: str) -> list[float]:
        return [at for at, change in self.changes if change.peer_id == peer.id and change.new in states]


@asynccontextmanager
async def nodes(count: int, *, memory: bool = True, latency_s: float = 0.002) -> AsyncIterator[list[Node]]:
    """`count` running nodes that belong to nothing yet."""
    network = MemoryNetwork(latency_s) if memory else None
    async with trio.open_nursery() as nursery:
        made = [Node(chr(ord("a") + i), network, i + 1) for i in range(count)]
        for node in made:
            await node.start(nursery)
        yield made
        nursery.cancel_scope.cancel()


def all_alive(members: list[Node]) -> bool:
    return all(
        [view.state for view in node.presence.members()] == ["alive"] * len(members) for node in members
    )


async def form(members: list[Node]) -> None:
    """The first begins a federation and the others join by one token, one after the other."""
    members[0].admission.init("plant7")
    if len(members) > 1:
        token = members[0].admission.invite(uses=len(members) - 1).token
        for node in members[1:]:
            await node.admission.join(token)
    await until(lambda: all_alive(members), 10.0)


async def full_mesh(members: list[Node]) -> None:
    await until(lambda: all(a.presence.is_linked(b.id) for a in members for b in members if a is not b), 10.0)


def said(node: Node) -> list[tuple[str, dict[str, Any]]]:
    """What the node's operator is told, from now on."""
    notes: list[tuple[str, dict[str, Any]]] = []
    node.admission.subscribe(lambda what, fields: notes.append((what, fields)))
    return notes


def others_say(members: list[Node], subject: Node, state: str) -> bool:
    return all(node.presence.state_of(subject.id) == state for node in members if node is not subject)
