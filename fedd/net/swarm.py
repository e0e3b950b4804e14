"""The swarm: this node's listeners, its connections by peer id, and who may speak what to it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

import trio

from fedd.api.errors import (
    Denied,
    FeddError,
    InvalidParameter,
    NotConnected,
    Unhealthy,
)
from fedd.api.types import PeerId
from fedd.core.identity import PrivateKey
from fedd.net.buffers import BufferPool
from fedd.net.connection import Connection, ConnectionHooks
from fedd.net.connection_table import ConnectionTable, LinkCallback
from fedd.net.dialling import Dialling
from fedd.net.doors import Doors, SwarmLimits, Visit
from fedd.net.serving import Access, Handler, Services
from fedd.net.stream import Stream
from fedd.net.tcp import TcpNetwork
from fedd.net.transport import Address, Listener, Wire, parse_multiaddr
from fedd.net.upgrade import DoorClosed, Secured, upgrade

if TYPE_CHECKING:
    from trio_typing import TaskStatus

    from fedd.net.memory import MemoryNetwork

log = logging.getLogger("fedd.net")

SUCCESSOR_S: Final = 5.0
"""How long an opener waits for the connection for which the peer has given up the present one."""

ACCEPT_PAUSE_S: Final = 0.2
"""How long a listener rests when the machine is out of file descriptors."""


class _Starting:
    """Stands for `Nursery.start`, which opens a nursery in between: that costs 40 us a connection."""

    def __init__(self) -> None:
        self.over = trio.Event()

    def started(self, value: None = None) -> None:
        """Tell that the connection takes streams."""
        self.over.set()

    async def run(self, connection: Connection) -> None:
        """Run it; whether it has started or failed, nobody waits any longer."""
        try:
            await connection.run(task_status=self)
        finally:
            self.over.set()


class Swarm:
    """Connections to peers, by peer id.

    Run it first (`await nursery.start(swarm.run)`), then listen and dial. Everything it runs ends
    with `run`. `network` adds in-memory addresses (/memory/N), for tests.
    """

    def __init__(
        self,
        key: PrivateKey,
        limits: SwarmLimits | None = None,
        network: MemoryNetwork | None = None,
        agent: str = "fedd/0.1.0",
    ) -> None:
        self.key = key
        self.peer_id: PeerId = key.peer_id
        self.agent = agent
        self.limits = limits if limits is not None else SwarmLimits()
        self.member_check: Callable[[PeerId], bool] = lambda peer_id: False
        """Who may use protocols for members; nobody until somebody sets it."""
        self.reached: Counter[str] = Counter()
        """How often which limit of this swarm, or of a connection that has ended, was reached."""
        self.identity_changed: Callable[[], None] = lambda: None
        """Called when this node listens at another address or serves another protocol."""
        self._memory = network
        self._tcp = TcpNetwork()
        self._services = Services(self.limits, lambda peer_id: self.member_check(peer_id))
        self._listeners: list[Listener] = []
        self._table = ConnectionTable(
            self.peer_id, lambda settle, old, new: self._running().start_soon(settle, old, new)
        )
        self._doors: Doors | None = None  # from when trio runs: it has its clock
        self._visits: dict[Connection, Visit] = {}  # strangers who came in, and may yet prove to be members
        self._nursery: trio.Nursery | None = None
        self._hooks = ConnectionHooks(
            serve=self._services.serve,
            inbound_quota=self._services.inbound_quota,
            on_up=self._table.settle,
            on_down=self._on_down,
            pool=BufferPool(),
        )
        self._dialling = Dialling(key, self.limits.dial_s, self._table.direct, self._network, self._begin)

    # ---- what there is -------------------------------------------------------------------

    @property
    def addresses(self) -> list[str]:
        """Where this node can be dialled, with its peer id; wildcards expanded."""
        return [
            str(replace(address, peer_id=self.peer_id))
            for listener in self._listeners
            for address in listener.addresses
        ]

    @property
    def connections(self) -> Mapping[PeerId, Connection]:
        """The connection in use to each connected peer: direct, or `relayed_by` a member."""
        return MappingProxyType(self._table.in_use)

    def direct(self, peer_id: PeerId) -> Connection | None:
        """The connection in use to this peer, unless it is relayed or there is none."""
        return self._table.direct(peer_id)

    @property
    def all_connections(self) -> frozenset[Connection]:
        """Every open connection, those given up and not yet closed as well."""
        return frozenset(self._table.open)

    def protocols_for(self, peer_id: PeerId) -> list[str]:
        """The protocols that this peer may speak to us."""
        return self._services.of(peer_id)

    def handle(self, protocol: str, handler: Handler, access: Access = "members") -> None:
        """Serve a protocol. The stream is closed when `handler` returns, reset when it raises.

        Strangers are refused protocols for members as if nobody here spoke them.
        """
        self._services.add(protocol, handler, access)
        self.identity_changed()

    def handle_family(self, prefix: str, handler: Handler, access: Access = "members") -> None:
        """Serve all protocols whose ids begin with `prefix`, as `handle` does. Identify lists none."""
        self._services.add_family(prefix, handler, access)

    def subscribe(self, callback: LinkCallback) -> None:
        """Be called, synchronously, when a peer becomes connected ("up") or unconnected ("down").

        The reason of "down" is "closed", "local" or "error: ...". "up" comes again, with the reason
        "replaced", when another connection to the same peer takes the first one's place: the first
        takes no new streams and closes once those it has have ended, without a "down".
        """
        self._table.subscribe(callback)

    # ---- running ---------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold everything that the swarm runs, until cancelled; then close all connections."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                while True:
                    await trio.sleep(self.limits.stranger_idle_s / 4)
                    self._show_out_idle_strangers()
        finally:
            self._nursery = None
            for listener in self._listeners:
                listener.close()
            self._listeners.clear()
            for connection in list(self._table.open):
                connection.end("local")

    @property
    def doors(self) -> Doors:
        """Who may begin a handshake here."""
        if self._doors is None:
            self._doors = Doors(self.limits, trio.current_time())
        return self._doors

    def vouch(self, peer_id: PeerId) -> None:
        """This peer has shown a valid certificate: its connections have a member's limits from now on."""
        for connection in self._table.open:
            if connection.peer_id == peer_id:
                self._be_member(connection)

    def _be_member(self, connection: Connection) -> None:
        connection.set_limits(self.limits.streams)
        visit = self._visits.pop(connection, None)
        if visit is not None:
            self.doors.vouch(visit)

    def _show_out_idle_strangers(self) -> None:
        now = trio.current_time()
        for connection in list(self._table.open):
            if connection.direction == "out" or self.member_check(connection.peer_id):
                connection.last_used = now
                continue
            if any(stream.protocol for stream in connection.streams):  # not one that nobody answers
                connection.last_used = now
            if now - connection.last_used >= self.limits.stranger_idle_s:
                log.info("%s is a stranger and idle: closing its connection", connection.peer_id)
                connection.end("local")
            elif now - connection.opened_at >= self.limits.stranger_lease_s:
                log.info("%s is a stranger and its time is up: closing its connection", connection.peer_id)
                connection.end("local")

    def _running(self) -> trio.Nursery:
        if self._nursery is None:
            raise Unhealthy("the links are not running", hint="the daemon is starting or shutting down")
        return self._nursery

    async def listen(self, multiaddr: str) -> list[str]:
        """Listen at an address (port 0: a free one); give the real ones, with the peer id.

        Conflict when the address is in use, InvalidParameter when this machine has no such address.
        """
        nursery = self._running()
        address = parse_multiaddr(multiaddr)
        if address.peer_id not in {None, self.peer_id}:
            raise InvalidParameter(f"cannot listen on {address}: that is another peer's id", field="listen")
        listener = await self._network(address).listen(replace(address, peer_id=None))
        self._listeners.append(listener)
        nursery.start_soon(self._accept, listener)
        self.identity_changed()
        return [str(replace(bound, peer_id=self.peer_id)) for bound in listener.addresses]

    def refresh_addresses(self) -> bool:
        """Look again which addresses the wildcards mean; whether `addresses` has changed."""
        changed = [listener.refresh() for listener in self._listeners]
        if any(changed):
            self.identity_changed()
        return any(changed)

    def _network(self, address: Address) -> TcpNetwork | MemoryNetwork:
        if address.transport != "memory":
            return self._tcp
        if self._memory is None:
            raise InvalidParameter(f"{address}: there is no in-memory network here")
        return self._memory

    async def _accept(self, listener: Listener) -> None:
        while True:
            try:
                wire = await listener.accept()
            except Unhealthy as error:
                log.warning("%s", error)
                await trio.sleep(ACCEPT_PAUSE_S)
                continue
            except trio.ClosedResourceError:
                return
            visit = self.doors.enter(wire.remote_address, trio.current_time())
            if visit is None:
                wire.close()
                continue
            self._running().start_soon(self._welcome, wire, visit)

    async def _welcome(self, wire: Wire, visit: Visit) -> None:
        """Take an inbound wire through the handshake, and serve it."""
        connection = None
        silent = False
        try:
            with trio.move_on_after(self.limits.handshake_s) as scope:
                connection = self._admit(await upgrade(wire, self.key, initiator=False), "in")
            if scope.cancelled_caught:
                log.info("%s did not finish its handshake in time", wire.remote_address)
        except DoorClosed:
            silent = True
            log.debug("%s closed its connection without a word", wire.remote_address)
        except FeddError as error:
            log.info("refused a connection from %s: %s", wire.remote_address, error.detail)
        except Exception:  # a mistake of ours must cost no more than this connection
            log.exception("the handshake with %s failed", wire.remote_address)
        finally:
            self.doors.leave(visit, silent=silent)
            if connection is None:
                wire.close()
        if connection is not None:
            self._visits[connection] = visit
            if self.member_check(connection.peer_id):
                self._be_member(connection)
            await connection.run()

    # ---- the table of connections --------------------------------------------------------

    def _admit(
        self, secured: Secured, direction: Literal["in", "out"], relayed_by: PeerId | None = None
    ) -> Connection:
        """Make the connection, if there is a seat for this peer; Unhealthy when there is none."""
        peer_id = secured.peer_id
        if peer_id == self.peer_id:
            raise Denied("a connection from this node to itself")
        seats = self.limits.connections if self.member_check(peer_id) else self.limits.strangers
        if len(self._table.open) >= seats and peer_id not in self._table.in_use:
            self.reached["connections" if seats == self.limits.connections else "strangers"] += 1
            raise Unhealthy(
                f"no seat for {peer_id}: {len(self._table.open)} connections are open",
                hint="disconnect some, or raise the limit of connections",
            )
        member = direction == "out" or self.member_check(peer_id)
        limits = self.limits.streams if member else self.limits.stranger_streams
        connection = Connection(secured, direction, self._hooks, limits, relayed_by)
        self._table.open.add(connection)
        return connection

    def _on_down(self, connection: Connection, reason: str) -> None:
        self._visits.pop(connection, None)
        self.reached.update(connection.reached)
        self._table.ended(connection, reason)
        if not self._table.has(connection.peer_id):
            self._services.forget(connection.peer_id)

    # ---- dialling ------------------------------------------------------------------------

    async def dial(self, addresses: Sequence[str], peer_id: PeerId | None = None) -> Connection:
        """Connect to a peer at any of its addresses; an existing connection that is direct is reused.

        Every address ends in /p2p/ID, the same one, unless `peer_id` is given. Denied when somebody
        else answers, NotConnected when nobody does, TimedOut after the dial's deadline,
        InvalidParameter for addresses that cannot be right.
        """
        self._running()
        return await self._dialling.dial(addresses, peer_id)

    async def adopt(self, wire: Wire, relay: PeerId, peer_id: PeerId, *, initiator: bool) -> Connection:
        """Make a connection with the member `peer_id` from a wire whose bytes `relay` passes on.

        The caller sets the deadline. The wire is closed when this raises: Denied when another key answers or
        the peer is no member, ProtocolError, NotConnected when it broke, Unhealthy when no seat is free.
        """
        try:
            secured = await upgrade(wire, self.key, initiator=initiator, expected_peer=peer_id)
            if not self.member_check(peer_id):
                raise Denied(f"{peer_id} is no member: nothing is relayed for strangers")
        except BaseException:
            wire.close()
            raise
        return await self._begin(secured, "out" if initiator else "in", relay)

    async def _begin(
        self, secured: Secured, direction: Literal["in", "out"] = "out", relayed_by: PeerId | None = None
    ) -> Connection:
        try:
            connection = self._admit(secured, direction, relayed_by)
        except FeddError:
            secured.wire.close()
            raise
        starting = _Starting()
        self._running().start_soon(starting.run, connection)
        await starting.over.wait()  # cancelled or not: the connection is begun, and the swarm's
        return connection

    async def open_stream(self, peer_id: PeerId, protocol: str, deadline_s: float = 10.0) -> Stream:
        """Open a stream to a connected peer; NotConnected when there is no connection to it.

        While both ends agree which of two connections stays, the peer may have given up the one that is in
        use here before the other has come: then this waits for that one.
        """
        started_at = trio.current_time()
        while True:
            connection = self._table.in_use.get(peer_id)
            if connection is None:
                raise NotConnected(f"there is no connection to {peer_id}", hint="dial it first")
            if not connection.takes_streams:
                with trio.move_on_at(min(started_at + deadline_s, trio.current_time() + SUCCESSOR_S)):
                    while self._table.in_use.get(peer_id) is connection:
                        await self._table.changed()
            connection = self._table.in_use.get(peer_id, connection)
            try:
                left_s = started_at + deadline_s - trio.current_time()
                return await connection.open_stream(protocol, max(left_s, 0.0))
            except NotConnected:  # nobody has used the stream yet, so it may be opened anew
                if self._table.in_use.get(peer_id, connection) is connection:
                    raise

    async def disconnect(self, peer_id: PeerId) -> None:
        """Close all connections to a peer; NotConnected when there is none."""
        connections = [connection for connection in self._table.open if connection.peer_id == peer_id]
        if not connections:
            raise NotConnected(f"there is no connection to {peer_id}")
        for connection in connections:
            await connection.aclose()
