"""The swarm: this node's listeners, its connections by peer id, and who may speak what to it."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

import trio

from fedd.api.errors import (
    Conflict,
    Denied,
    FeddError,
    InvalidParameter,
    NotConnected,
    Unhealthy,
)
from fedd.api.types import PeerId
from fedd.core.identity import PrivateKey
from fedd.core.multistream import Listener as ProtocolListener
from fedd.net.buffers import BufferPool
from fedd.net.connection import Connection, ConnectionHooks
from fedd.net.dialling import Dialling
from fedd.net.doors import Doors, SwarmLimits, TokenBucket, Visit
from fedd.net.stream import Stream
from fedd.net.tcp import TcpNetwork
from fedd.net.transport import Address, Listener, MemoryNetwork, Wire, parse_multiaddr
from fedd.net.upgrade import DoorClosed, Secured, upgrade

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("fedd.net")

Access = Literal["members", "anyone"]
Handler = Callable[[Stream], Awaitable[None]]
LinkCallback = Callable[[Literal["up", "down"], Connection, str], None]

SIMULTANEOUS_S: Final = 20.0
"""Two connections made within this time (two dial deadlines) can be a simultaneous dial. A second
one made later means that the peer has lost the first, for example by a power cut: it replaces it."""

PROBE_S: Final = 3.0
"""How long a peer that dials us has to answer on the connection that we had dialled shortly before."""

SUCCESSOR_S: Final = 5.0
"""How long an opener waits for the connection for which the peer has given up the present one."""

ACCEPT_PAUSE_S: Final = 0.2
"""How long a listener rests when the machine is out of file descriptors."""


@dataclass(frozen=True, slots=True)
class _Service:
    handler: Handler
    access: Access


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
        self._services: dict[str, _Service] = {}
        self._listeners: list[Listener] = []
        self._connections: dict[PeerId, Connection] = {}
        self._all: set[Connection] = set()  # those given up and not yet closed as well
        self._doors: Doors | None = None  # from when trio runs: it has its clock
        self._visits: dict[Connection, Visit] = {}  # strangers who came in, and may yet prove to be members
        self._stranger_streams: dict[PeerId, TokenBucket] = {}
        self._callbacks: list[LinkCallback] = []
        self._news = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._hooks = ConnectionHooks(
            serve=self._serve,
            inbound_quota=self._inbound_quota,
            on_up=self._settle,
            on_down=self._on_down,
            pool=BufferPool(),
        )
        self._dialling = Dialling(key, self.limits.dial_s, self._connections, self._network, self._begin)

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
        """The connection in use to each connected peer."""
        return MappingProxyType(self._connections)

    @property
    def all_connections(self) -> frozenset[Connection]:
        """Every open connection, those given up and not yet closed as well."""
        return frozenset(self._all)

    def protocols_for(self, peer_id: PeerId) -> list[str]:
        """The protocols that this peer may speak to us."""
        return [protocol for protocol in self._services if self._may_speak(peer_id, protocol)]

    def handle(self, protocol: str, handler: Handler, access: Access = "members") -> None:
        """Serve a protocol. The stream is closed when `handler` returns, reset when it raises.

        Strangers are refused protocols for members as if nobody here spoke them.
        """
        if protocol in self._services:
            raise Conflict(f"{protocol} is served already")
        self._services[protocol] = _Service(handler, access)
        self.identity_changed()

    def subscribe(self, callback: LinkCallback) -> None:
        """Be called, synchronously, when a peer becomes connected ("up") or unconnected ("down").

        The reason of "down" is "closed", "local" or "error: ...". "up" comes again, with the reason
        "replaced", when another connection to the same peer takes the first one's place: the first
        takes no new streams and closes once those it has have ended, without a "down".
        """
        self._callbacks.append(callback)

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
            for connection in list(self._all):
                connection.end("local")

    @property
    def doors(self) -> Doors:
        """Who may begin a handshake here."""
        if self._doors is None:
            self._doors = Doors(self.limits, trio.current_time())
        return self._doors

    def vouch(self, peer_id: PeerId) -> None:
        """This peer has shown a valid certificate: its connections have a member's limits from now on."""
        for connection in self._all:
            if connection.peer_id == peer_id:
                self._be_member(connection)

    def _be_member(self, connection: Connection) -> None:
        connection.set_limits(self.limits.streams)
        visit = self._visits.pop(connection, None)
        if visit is not None:
            self.doors.vouch(visit)

    def _show_out_idle_strangers(self) -> None:
        now = trio.current_time()
        for connection in list(self._all):
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
            with trio.fail_after(self.limits.handshake_s):
                secured = await upgrade(wire, self.key, initiator=False)
            connection = self._admit(secured, "in")
        except trio.TooSlowError:
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

    def _admit(self, secured: Secured, direction: Literal["in", "out"]) -> Connection:
        """Make the connection, if there is a seat for this peer; Unhealthy when there is none."""
        peer_id = secured.peer_id
        if peer_id == self.peer_id:
            raise Denied("a connection from this node to itself")
        seats = self.limits.connections if self.member_check(peer_id) else self.limits.strangers
        if len(self._all) >= seats and peer_id not in self._connections:
            self.reached["connections" if seats == self.limits.connections else "strangers"] += 1
            raise Unhealthy(
                f"no seat for {peer_id}: {len(self._all)} connections are open",
                hint="disconnect some, or raise the limit of connections",
            )
        member = direction == "out" or self.member_check(peer_id)
        limits = self.limits.streams if member else self.limits.stranger_streams
        connection = Connection(secured, direction, self._hooks, limits)
        self._all.add(connection)
        return connection

    def _settle(self, new: Connection) -> None:
        """Decide which of two connections to a peer stays; both ends decide alike.

        Of two dialled by each other at once, the one dialled by the lower peer id; else the newest.
        """
        if new.closed:
            return
        old = self._connections.get(new.peer_id)
        if old is None:
            self._connections[new.peer_id] = new
            self._publish("up", new, "")
            return
        at_once = new.opened_at - old.opened_at < SIMULTANEOUS_S
        if new.direction != old.direction and at_once and self._dialled_by_lower(old):
            if new.direction == "out":  # the old came while we dialled, so both ends have both
                new.retire()
            else:
                self._running().start_soon(self._settle_by_probe, old, new)
            return
        self._connections[new.peer_id] = new
        old.retire()
        self._publish("up", new, "replaced")

    async def _settle_by_probe(self, old: Connection, new: Connection) -> None:
        """Did the peer dial `new` at the same time as we dialled `old`, or because it has lost `old`?

        A peer that has both gives `new` up, as we do then. One that comes back from a power cut does not
        answer on `old`, or its kernel says that it knows no such connection.
        """
        with contextlib.suppress(NotConnected), trio.move_on_after(PROBE_S):
            await old.measure_rtt()
            new.retire()
            return
        old.end("error: the peer came back on another connection")

    def _dialled_by_lower(self, connection: Connection) -> bool:
        return (connection.direction == "out") == (self.peer_id < connection.peer_id)

    def _on_down(self, connection: Connection, reason: str) -> None:
        self._all.discard(connection)
        self._visits.pop(connection, None)
        self.reached.update(connection.usage().reached)
        if all(other.peer_id != connection.peer_id for other in self._all):
            self._stranger_streams.pop(connection.peer_id, None)
        if self._connections.get(connection.peer_id) is not connection:
            return
        for other in self._all:  # given up for this one, and still open: better than none
            if other.peer_id == connection.peer_id and not other.retired:
                self._connections[connection.peer_id] = other
                self._publish("up", other, "replaced")
                return
        del self._connections[connection.peer_id]
        self._publish("down", connection, reason)

    def _publish(self, kind: Literal["up", "down"], connection: Connection, reason: str) -> None:
        log.debug("link %s: %s %s", kind, connection, reason)
        self._news.set()
        self._news = trio.Event()
        for callback in self._callbacks:
            try:
                callback(kind, connection, reason)
            except Exception:  # a listener's mistake must not cost a link
                log.exception("a subscriber to link changes failed")

    # ---- dialling ------------------------------------------------------------------------

    async def dial(self, addresses: Sequence[str], peer_id: PeerId | None = None) -> Connection:
        """Connect to a peer at any of its addresses; an existing connection is reused.

        Every address ends in /p2p/ID, the same one, unless `peer_id` is given. Denied when somebody
        else answers, NotConnected when nobody does, TimedOut after the dial's deadline,
        InvalidParameter for addresses that cannot be right.
        """
        self._running()
        return await self._dialling.dial(addresses, peer_id)

    async def _begin(self, secured: Secured) -> Connection:
        try:
            connection = self._admit(secured, "out")
        except FeddError:
            secured.wire.close()
            raise
        with trio.CancelScope(shield=True):  # takes no time, and half a start would lose the wire
            await self._running().start(connection.run)
        return connection

    async def open_stream(self, peer_id: PeerId, protocol: str, deadline_s: float = 10.0) -> Stream:
        """Open a stream to a connected peer; NotConnected when there is no connection to it.

        While both ends agree which of two connections stays, the peer may have given up the one that is in
        use here before the other has come: then this waits for that one.
        """
        started_at = trio.current_time()
        while True:
            connection = self._connections.get(peer_id)
            if connection is None:
                raise NotConnected(f"there is no connection to {peer_id}", hint="dial it first")
            if not connection.takes_streams:
                with trio.move_on_at(min(started_at + deadline_s, trio.current_time() + SUCCESSOR_S)):
                    while self._connections.get(peer_id) is connection:
                        await self._news.wait()
            connection = self._connections.get(peer_id, connection)
            try:
                left_s = started_at + deadline_s - trio.current_time()
                return await connection.open_stream(protocol, max(left_s, 0.0))
            except NotConnected:  # nobody has used the stream yet, so it may be opened anew
                if self._connections.get(peer_id, connection) is connection:
                    raise

    async def disconnect(self, peer_id: PeerId) -> None:
        """Close all connections to a peer; NotConnected when there is none."""
        connections = [connection for connection in self._all if connection.peer_id == peer_id]
        if not connections:
            raise NotConnected(f"there is no connection to {peer_id}")
        for connection in connections:
            await connection.aclose()

    # ---- serving -------------------------------------------------------------------------

    def _may_speak(self, peer_id: PeerId, protocol: str) -> bool:
        service = self._services.get(protocol)
        return service is not None and (service.access == "anyone" or self.member_check(peer_id))

    def _inbound_quota(self, peer_id: PeerId) -> int:
        """How many streams this peer may have open; asked once for each that it opens."""
        limits = self.limits
        if self.member_check(peer_id):
            return limits.streams.inbound_streams
        now = trio.current_time()
        bucket = self._stranger_streams.get(peer_id)
        if bucket is None:
            bucket = self._stranger_streams[peer_id] = TokenBucket(
                limits.stranger_streams_burst, limits.stranger_streams_per_s, now
            )
        return limits.streams_per_stranger if bucket.take(now) else 0

    async def _serve(self, stream: Stream) -> None:
        """Negotiate an inbound stream and run its handler. Raises nothing but cancellation."""
        try:
            with trio.move_on_after(self.limits.negotiation_s):
                await self._negotiate(stream)
            if stream.protocol:
                await self._services[stream.protocol].handler(stream)
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError, EOFError) as error:
            log.debug("%r ended: %s", stream, error)
        except FeddError as error:
            log.info("%r: %s", stream, error)
        except Exception as error:
            if _is_broken_stream(error):
                log.debug("%r ended: %s", stream, error)
            else:
                log.exception("the handler of %r failed", stream)
        finally:
            stream.reset()  # does nothing to a stream that was closed

    async def _negotiate(self, stream: Stream) -> None:
        peer_id = stream.peer_id
        machine = ProtocolListener(
            lambda protocol: self._may_speak(peer_id, protocol), listed=self.protocols_for(peer_id)
        )
        protocol = ""
        while not machine.finished:
            data = await stream.receive_some()
            if not data:
                machine.receive_eof()
            for event in machine.receive_data(data):
                protocol = getattr(event, "protocol", "")
            if answer := machine.data_to_send():
                await stream.send_all(answer)
        stream.unread(machine.trailing)
        stream.protocol = protocol


def _is_broken_stream(error: BaseException) -> bool:
    """Whether a handler's nursery failed for nothing but what the peer did to its stream."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_broken_stream(part) for part in error.exceptions)
    return isinstance(error, (trio.BrokenResourceError, trio.ClosedResourceError, EOFError, FeddError))
