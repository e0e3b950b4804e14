"""Reaching a member however it goes: the connection there is, else a direct one, else through a relay.

A device that cannot be dialled holds outbound links. Two of them exchange through a member that both are
linked with: it joins a stream from the one to a stream to the other, and inside the two ends run the same
upgrade as over TCP. So the relay sees ciphertext, and what comes out is a `Connection` like any other, with
`relayed_by`.

For membership a relayed connection is nothing: it carries no presence stream, and its bytes prove no link.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from fedd.api.errors import Conflict, FeddError, NotConnected, Refused, TimedOut
from fedd.api.types import PeerId
from fedd.core.relay_messages import (
    RELAY_IN_PROTOCOL,
    RELAY_PROTOCOL,
    decode_answer,
    decode_source,
    encode_answer,
    encode_target,
)
from fedd.core.verdicts import MemberChange
from fedd.net.bounds import Bound
from fedd.net.circuits import Circuits, RelayLimits, receive_message
from fedd.net.connection import Connection
from fedd.net.presence import Presence
from fedd.net.relay_wire import RelayWire
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("fedd.net.relay")

DIRECT_S: Final = 2.5
"""What dialling has for itself where there is a relay to turn to: a TCP handshake and one retransmission."""
RELAY_S: Final = 4.0
"""What one relay has at least, the handshake with the far end included: six round trips."""
AGAIN_S: Final = 0.5
"""After what pause a member that is alive is tried a second time."""
MAX_RELAYS: Final = 3
"""How many are asked, one after the other."""
UNDIALABLE_S: Final = 60.0
"""For so long a member whose addresses did not answer is reached through relays, if there are any."""
MAX_UNDIALABLE: Final = 1024
SWEEP_S: Final = 5.0
"""How often relayed connections without a use are looked for."""


class Relay:
    """Reaches members, and relays for them. Run it beside presence."""

    def __init__(self, swarm: Swarm, presence: Presence, limits: RelayLimits | None = None) -> None:
        self.limits = limits if limits is not None else RelayLimits()
        self._swarm = swarm
        self._presence = presence
        self._circuits = Circuits(swarm, self.limits)
        self._underway: dict[PeerId, trio.Event] = {}
        self._undialable: dict[PeerId, float] = {}
        self._unused_since: dict[Connection, float] = {}
        self._pinned: set[PeerId] = set()
        self._handshakes = 0
        self._refused_handshakes = 0
        swarm.handle(RELAY_IN_PROTOCOL, self._accept)
        swarm.subscribe(self._link_changed)
        presence.subscribe(self._member_changed)

    # ---- what there is -------------------------------------------------------------------

    def carried_for(self, peer: PeerId) -> tuple[int, int]:
        """(circuits, bytes) that this node relays with `peer` at one end, since the peer connected."""
        return self._circuits.carried_for(peer)

    def bounds(self) -> list[Bound]:
        """What is relayed here and for whom, and the most of it."""
        return [
            *self._circuits.bounds(),
            Bound(
                "relay.handshakes",
                self._handshakes,
                self.limits.handshakes,
                self._refused_handshakes,
                "handshakes under way with members that come through a relay",
            ),
        ]

    # ---- reaching ------------------------------------------------------------------------

    async def reach(self, peer: PeerId, deadline_s: float = 10.0) -> Connection:
        """A connection to `peer`: the one in use, else its addresses are dialled, else through a relay.

        Raises:
            NotConnected: none of it worked within `deadline_s` seconds; the error says what was tried.
            Conflict: `peer` is this node.
        """
        if peer == self._swarm.peer_id:
            raise Conflict("that is this node itself", hint="name another member")
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(deadline_s):
            while True:
                connection = self._swarm.connections.get(peer)
                if connection is not None:
                    return connection
                if peer not in self._underway:
                    break
                await self._underway[peer].wait()
            over = self._underway[peer] = trio.Event()
            try:
                try:
                    return await self._reach_once(peer, deadline_s)
                except NotConnected:
                    # Alive means that there is a way, so it is just changing: a relay has died, a record is
                    # on its way.
                    if self._presence.state_of(peer) != "alive":
                        raise
                    await trio.sleep(AGAIN_S)
                return self._swarm.connections.get(peer) or await self._reach_once(peer, deadline_s)
            finally:
                del self._underway[peer]
                over.set()
        raise NotConnected(f"{self._call(peer)} was not reached within {deadline_s:g} s", hint=_HINT)

    async def open_stream(self, peer: PeerId, protocol: str, deadline_s: float = 10.0) -> Stream:
        """Open a stream to a member, reached as `reach` does; errors of both."""
        ends_at = trio.current_time() + deadline_s
        await self.reach(peer, deadline_s)
        return await self._swarm.open_stream(peer, protocol, max(0.1, ends_at - trio.current_time()))

    async def _reach_once(self, peer: PeerId, deadline_s: float) -> Connection:
        tried: list[str] = []
        state = self._presence.state_of(peer)
        if state is None or state == "left":
            raise NotConnected(f"{self._call(peer)} is no member here", hint="see `fedctl members`")
        relays = self._presence.ways_to(peer)[:MAX_RELAYS]
        addresses = self._presence.addresses_of(peer)
        if not addresses:
            tried.append("it has no address")
        elif relays and self._undialable.get(peer, 0.0) > trio.current_time():
            tried.append("its addresses did not answer of late")
        else:
            # without a relay nearly all: the rest is for saying what was tried
            patience_s = min(DIRECT_S, deadline_s / 2) if relays else 0.9 * deadline_s
            direct = await self._dial(peer, addresses, patience_s, tried)
            if direct is not None:
                return direct
        for asked, relay in enumerate(relays):
            left_s = trio.current_effective_deadline() - trio.current_time()
            relayed = await self._try(relay, peer, max(RELAY_S, left_s / (len(relays) - asked)), tried)
            if relayed is not None:
                return relayed
        if not relays:
            tried.append("no member is linked with it and can be reached")
        raise NotConnected(f"{self._call(peer)} cannot be reached: {'; '.join(tried)}", hint=_HINT)

    async def _dial(
        self, peer: PeerId, addresses: tuple[str, ...], patience_s: float, tried: list[str]
    ) -> Connection | None:
        try:
            with trio.fail_after(patience_s):
                return await self._swarm.dial(addresses, peer)
        except trio.TooSlowError:
            tried.append(f"its addresses did not answer within {patience_s:g} s")
        except FeddError as error:
            tried.append(error.detail)
        if len(self._undialable) < MAX_UNDIALABLE or peer in self._undialable:
            self._undialable[peer] = trio.current_time() + UNDIALABLE_S
        return self._swarm.connections.get(peer)  # it may have dialled, or come through a relay

    async def _try(
        self, relay: PeerId, peer: PeerId, patience_s: float, tried: list[str]
    ) -> Connection | None:
        try:
            with trio.fail_after(patience_s):
                await self._go_through(relay, peer)
        except trio.TooSlowError:
            tried.append(f"no answer through {self._call(relay)} within {patience_s:.1f} s")
        except FeddError as error:
            tried.append(f"through {self._call(relay)}: {error.detail}")
        return self._swarm.connections.get(peer)

    async def _go_through(self, relay: PeerId, peer: PeerId) -> None:
        """Have a connection with `peer` by way of `relay`. Raises FeddError."""
        if self._swarm.direct(relay) is None:
            await self._swarm.dial(self._presence.addresses_of(relay), relay)
        stream = await self._swarm.open_stream(relay, RELAY_PROTOCOL)
        try:
            await stream.send_all(encode_target(peer))
            refusal = decode_answer(await receive_message(stream, self.limits.request_s))
            if refusal is not None:
                raise Refused(refusal)
            await self._swarm.adopt(RelayWire(stream), relay, peer, initiator=True)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            stream.reset()
            raise NotConnected(f"the link with the relay broke: {error}") from error
        except BaseException:
            stream.reset()
            raise

    # ---- being reached -------------------------------------------------------------------

    async def _accept(self, stream: Stream) -> None:
        """Serve `/fedd/relay-in/1.0.0`: be the far end of a circuit, until it ends."""
        source = decode_source(await receive_message(stream, self.limits.request_s))
        refusal = self._why_not(stream, source)
        await stream.send_all(encode_answer(refusal))
        if refusal is not None:
            return
        wire = RelayWire(stream)
        self._handshakes += 1
        try:
            with trio.fail_after(self.limits.handshake_s):
                await self._swarm.adopt(wire, stream.peer_id, source, initiator=False)
        except trio.TooSlowError:
            raise TimedOut(f"{source} did not finish its handshake through the relay in time") from None
        finally:
            self._handshakes -= 1
        await wire.closed.wait()

    def _why_not(self, stream: Stream, source: PeerId) -> str | None:
        if stream.connection.relayed_by is not None:
            return "a circuit does not lead through two relays"
        if source in (self._swarm.peer_id, stream.peer_id):
            return "a circuit needs three members"
        if not self._swarm.member_check(source):
            return "the source is no member"
        if self._handshakes >= self.limits.handshakes:
            self._refused_handshakes += 1
            return "too many handshakes are under way"
        return None

    # ---- keeping -------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Close relayed connections that nobody uses, until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(SWEEP_S)
            self._sweep(trio.current_time())

    def _sweep(self, now: float) -> None:
        for connection in self._relayed():
            if not self._swarm.member_check(connection.peer_id):  # it has left, or this node has
                connection.end("local")
        self._unused_since = {
            connection: self._unused_since.get(connection, now)
            for connection in self._relayed()
            if not connection.streams
        }
        for connection, since in self._unused_since.items():
            if now - since >= self.limits.unused_s:
                connection.retire()
        for peer in [peer for peer, until in self._undialable.items() if until <= now]:
            del self._undialable[peer]
        self._hold_relays()

    def _relayed(self) -> list[Connection]:
        return [link for link in self._swarm.all_connections if link.relayed_by is not None]

    def _hold_relays(self) -> None:
        """The links with relays in use are needed, so they are never shed."""
        needed = {link.relayed_by for link in self._relayed() if link.relayed_by and not link.retired}
        self._pinned = {relay for relay in self._pinned if self._presence.is_pinned(relay)}
        for relay in self._pinned - needed:
            self._pinned.discard(relay)
            self._presence.unpin(relay)
        for relay in needed - self._pinned:
            try:
                self._presence.pin(relay)
                self._pinned.add(relay)
            except Conflict as error:  # it may be shed then, which costs the circuit and no more
                log.info("the link with the relay %s is not held: %s", relay, error.detail)

    def _link_changed(self, kind: str, connection: Connection, reason: str) -> None:
        if connection.relayed_by is None:
            if kind == "down":
                self._circuits.forget(connection.peer_id)
            else:
                self._undialable.pop(connection.peer_id, None)
        self._hold_relays()

    def _member_changed(self, change: MemberChange) -> None:
        """A relay that is dead relays no more; with one who is dead or has left there is no connection."""
        if change.new not in ("dead", "left"):
            return
        for connection in self._relayed():
            if change.peer_id in (connection.relayed_by, connection.peer_id):
                connection.end(f"error: {self._call(change.peer_id)} is {change.new}")

    def _call(self, peer: PeerId) -> str:
        return self._presence.name_of(peer) or peer


_HINT: Final = "see `fedctl members` for who is linked with it"
