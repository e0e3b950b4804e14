"""identify for as long as a link lasts: ask each new peer, tell all of what has changed, keep what they say.

libp2p's `/ipfs/id/push/1.0.0` (github.com/libp2p/specs/blob/master/identify): the same message as identify's,
sent unasked when listening addresses or protocols have changed. What peers say is kept while they are
connected, so it is bounded by the connections and MAX_MESSAGE_BYTES each.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from fedd.api.errors import FeddError, InvalidParameter
from fedd.api.types import PeerId
from fedd.core.varint import encode_uvarint
from fedd.net.connection import Connection
from fedd.net.identify import PROTOCOL as IDENTIFY
from fedd.net.identify import (
    Identification,
    decode_identification,
    encode_for,
    identify,
    receive_message,
)
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm
from fedd.net.transport import parse_multiaddr

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("fedd.net")

PUSH: Final = "/ipfs/id/push/1.0.0"
SETTLE_S: Final = 0.5
"""Changes come together, as when a peer becomes a member: they are told together, once no more come."""
SETTLE_MOST_S: Final = 3.0
"""By then at the latest. When a crowd comes together everybody has more urgent work."""
DEADLINE_S: Final = 10.0
AT_ONCE: Final = 8
"""Peers told or asked at the same time; a hundred at once would be a burst for nothing."""


class Identifier:
    """Knows what connected peers say about themselves, and tells them about this node.

    Run it beside the swarm. Nothing said is proven: it is for people and for dialling, never for access.
    """

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._known: dict[PeerId, Identification] = {}
        self._told: dict[PeerId, bytes] = {}
        self._asked: set[PeerId] = set()
        self._news = trio.Event()
        swarm.handle(IDENTIFY, self._tell, "anyone")
        swarm.handle(PUSH, self._hear, "anyone")
        swarm.subscribe(self._link_changed)
        swarm.identity_changed = self.refresh

    def known(self, peer_id: PeerId) -> Identification | None:
        """What a connected peer has said about itself, None before it has."""
        return self._known.get(peer_id)

    def observed(self) -> dict[str, int]:
        """Where peers see this node: address -> how many of them say so, most first.

        The port of a connection that this node dialled is of no use to others, so it is left out there.
        """
        seen: Counter[str] = Counter()
        for peer_id, said in self._known.items():
            connection = self._swarm.connections.get(peer_id)
            if said.observed_address is None or connection is None or connection.relayed_by is not None:
                continue
            try:
                address = parse_multiaddr(said.observed_address)
            except InvalidParameter:
                continue
            if connection.direction == "in":
                seen[str(replace(address, peer_id=None))] += 1
            else:
                seen[f"/{address.transport}/{address.host}"] += 1
        return dict(seen.most_common())

    def refresh(self) -> None:
        """Addresses, protocols, or who may speak them have changed: look whom to tell."""
        self._news.set()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask and tell until cancelled."""
        task_status.started()
        while True:
            await self._news.wait()
            latest = trio.current_time() + SETTLE_MOST_S
            while self._news.is_set() and trio.current_time() < latest:
                self._news = trio.Event()
                await trio.sleep(SETTLE_S)
            self._news = trio.Event()
            limiter = trio.CapacityLimiter(AT_ONCE)
            async with trio.open_nursery() as nursery:
                for connection in list(self._swarm.connections.values()):
                    nursery.start_soon(self._attend, connection, limiter)

    async def _attend(self, connection: Connection, limiter: trio.CapacityLimiter) -> None:
        """Ask a peer that has not been asked; tell it what it does not know yet."""
        peer_id = connection.peer_id
        async with limiter:
            try:
                if peer_id not in self._asked:
                    self._asked.add(peer_id)
                    said = await identify(self._swarm, peer_id, DEADLINE_S)
                    if peer_id in self._swarm.connections:
                        self._known[peer_id] = said
                message = encode_for(self._swarm, connection)
                known = self._known.get(peer_id)
                if known is not None and PUSH in known.protocols and self._told.get(peer_id) != message:
                    await self._push(peer_id, message)
            except (FeddError, trio.BrokenResourceError, trio.TooSlowError) as error:
                log.debug("no identification with %s: %s", peer_id, error)

    async def _push(self, peer_id: PeerId, message: bytes) -> None:
        stream = await self._swarm.open_stream(peer_id, PUSH, DEADLINE_S)
        try:
            with trio.fail_after(DEADLINE_S):
                await stream.send_all(encode_uvarint(len(message)) + message)
            await stream.aclose()
            self._told[peer_id] = message
        finally:
            stream.reset()  # does nothing to a stream that was closed

    async def _tell(self, stream: Stream) -> None:
        """Answer who asks."""
        message = encode_for(self._swarm, stream.connection)
        await stream.send_all(encode_uvarint(len(message)) + message)
        if stream.peer_id in self._swarm.connections:
            self._told[stream.peer_id] = message

    async def _hear(self, stream: Stream) -> None:
        """Take a push: what it does not say stays as it was."""
        with trio.move_on_after(DEADLINE_S):
            said = decode_identification(await receive_message(stream), stream.peer_id)
            before = self._known.get(stream.peer_id)
            if before is not None:
                said = replace(
                    said,
                    agent=said.agent or before.agent,
                    protocol_version=said.protocol_version or before.protocol_version,
                    protocols=said.protocols or before.protocols,
                    addresses=said.addresses or before.addresses,
                    observed_address=said.observed_address or before.observed_address,
                )
            if stream.peer_id in self._swarm.connections:
                self._known[stream.peer_id] = said

    def _link_changed(self, kind: str, connection: Connection, reason: str) -> None:
        if kind == "down":
            self._known.pop(connection.peer_id, None)
            self._told.pop(connection.peer_id, None)
            self._asked.discard(connection.peer_id)
        else:
            self.refresh()
