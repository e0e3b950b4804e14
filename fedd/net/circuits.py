"""What a member does as a relay: it passes the bytes of two others on, whom it cannot read.

Both must be members that hold a direct connection with this node, so a circuit never leads through two
relays. The bytes are copied with the streams' own back-pressure: what the slower end does not take is not
read from the other, so a circuit holds two windows and two chunks at the most. Each circuit has a byte rate,
and all together have one: whoever sends more is read no faster.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

import trio

from fedd.api.errors import FeddError, NotConnected, ProtocolError, Refused
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.relay_messages import (
    LENGTH,
    RELAY_IN_PROTOCOL,
    RELAY_PROTOCOL,
    check_length,
    decode_answer,
    decode_target,
    encode_answer,
    encode_source,
)
from fedd.net.bounds import Bound
from fedd.net.doors import TokenBucket
from fedd.net.rate import ByteRate
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm

log = logging.getLogger("fedd.net.relay")

MIN_CHUNK_BYTES: Final = 4 * 1024
MAX_CHUNK_BYTES: Final = 64 * 1024
"""What is read at a time at the most: a Noise frame; and where the owner allows a low rate, CHUNK_S of it."""

CHUNK_S: Final = 0.1
"""A circuit of a low rate passes something ten times a second: nobody waits longer for a word behind bulk."""

CLOSING_S: Final = 5.0
"""How long the second end may take to close after the first; what is on its way arrives meanwhile."""


@dataclass(frozen=True)
class RelayLimits:
    """What members may have relayed by this node, and how long things may take."""

    circuits: int = 64
    """In all: two streams each, and their windows at the worst."""
    circuits_per_member: int = 16
    """That a member is one end of: a device has about eight neighbours in a run."""
    requests_burst: int = 32
    requests_per_s: float = 2.0
    """Circuits that a member may ask for; each costs the target a handshake, 0.3 ms."""
    circuit_bytes_per_s: float = 8 * 2**20
    """Of one circuit, both ways together: more than the uplink of nearly every place that hides devices
    behind a NAT (67 Mbit/s), and 5 to 7 % of a core, at the 6 to 8 ns that a byte costs."""
    circuit_burst_bytes: float = 8 * 2**20
    """What passes at once before that: a model of a million parameters, both ways."""
    relayed_bytes_per_s: float = 32 * 2**20
    """Of all circuits together: a member relays for others besides its own work, so a quarter of a core and
    of a gigabit line. They share it in the order in which chunks come."""
    relayed_burst_bytes: float = 32 * 2**20
    request_s: float = 5.0
    """For a request to arrive, and for the target to answer."""
    idle_s: float = 300.0
    """A circuit without a byte for so long is closed; whoever needs it asks anew."""
    handshake_s: float = 10.0
    handshakes: int = 16
    """Inbound handshakes over circuits under way; beyond it circuits are refused."""
    unused_s: float = 60.0
    """A relayed connection without a stream for so long is closed by its ends."""


@dataclass(slots=True, eq=False)
class Circuit:
    """One pair of streams that this node joins."""

    source: PeerId
    target: PeerId
    rate: ByteRate
    relayed_bytes: int = 0
    """In both directions."""


class Circuits:
    """The relaying side: serves `/fedd/relay/1.0.0` to members."""

    def __init__(self, swarm: Swarm, limits: RelayLimits) -> None:
        self._swarm = swarm
        self._limits = limits
        self._open: set[Circuit] = set()
        self._requests: dict[PeerId, TokenBucket] = {}
        self._carried: Counter[PeerId] = Counter()
        self._reached: Counter[str] = Counter()
        self._rate = ByteRate(limits.relayed_bytes_per_s, limits.relayed_burst_bytes)
        lowest = min(limits.circuit_bytes_per_s, limits.relayed_bytes_per_s)
        self._chunk_bytes = max(MIN_CHUNK_BYTES, min(int(lowest * CHUNK_S), MAX_CHUNK_BYTES))
        swarm.handle(RELAY_PROTOCOL, self._serve)

    def carried_for(self, peer: PeerId) -> tuple[int, int]:
        """(circuits open now, bytes relayed since it connected) that have `peer` at one end."""
        mine = [circuit for circuit in self._open if peer in (circuit.source, circuit.target)]
        return len(mine), self._carried[peer] + sum(circuit.relayed_bytes for circuit in mine)

    def forget(self, peer: PeerId) -> None:
        """The peer has no direct connection any more."""
        self._requests.pop(peer, None)
        self._carried.pop(peer, None)

    def bounds(self) -> list[Bound]:
        """What is relayed, and the most of it."""
        ends = Counter(peer for circuit in self._open for peer in (circuit.source, circuit.target))
        now = trio.current_time()
        asked = self._limits.requests_burst - min(
            (bucket.level(now) for bucket in self._requests.values()),
            default=float(self._limits.requests_burst),
        )
        return [
            Bound(
                "relay.circuits",
                len(self._open),
                self._limits.circuits,
                self._reached["circuits"],
                "pairs of members whose bytes this node passes on",
            ),
            Bound(
                "relay.circuits_per_member",
                max(ends.values(), default=0),
                self._limits.circuits_per_member,
                self._reached["circuits_per_member"],
                "of one member; the busiest",
            ),
            Bound(
                "relay.requests",
                round(asked, 1),
                self._limits.requests_burst,
                self._reached["requests"],
                "circuits that one member asked for of late, the busiest; they fade",
            ),
            Bound(
                "relay.circuit_bytes_per_s",
                max((circuit.rate.present(now) for circuit in self._open), default=0.0),
                self._limits.circuit_bytes_per_s,
                self._reached["circuit_bytes_per_s"],
                "bytes a second of one circuit, the busiest; reached: chunks that waited",
            ),
            Bound(
                "relay.bytes_per_s",
                self._rate.present(now),
                self._limits.relayed_bytes_per_s,
                self._reached["bytes_per_s"],
                "bytes a second in all; max_relayed_bytes_per_s in [limits]; reached: chunks that waited",
            ),
            Bound(
                "relay.idle_s",
                0,
                self._limits.idle_s,
                self._reached["idle_s"],
                "seconds without a byte after which a circuit is closed",
            ),
        ]

    async def _serve(self, stream: Stream) -> None:
        """Join the stream of a member with one to the member that it names. Raises ProtocolError."""
        target = decode_target(await receive_message(stream, self._limits.request_s))
        source = stream.peer_id
        refusal = self._why_not(stream, target)
        if refusal is not None:
            log.info("no circuit from %s to %s: %s", source, target, refusal)
            await stream.send_all(encode_answer(refusal))
            return
        rate = ByteRate(self._limits.circuit_bytes_per_s, self._limits.circuit_burst_bytes)
        circuit = Circuit(source, target, rate)
        self._open.add(circuit)
        onward: Stream | None = None
        try:
            try:
                onward = await self._reach_target(circuit)
            except FeddError as error:
                log.info("no circuit from %s to %s: %s", source, target, error)
                await stream.send_all(encode_answer(error.detail))
                return
            await stream.send_all(encode_answer(None))
            await self._join(stream, onward, circuit)
        finally:
            if onward is not None:
                onward.reset()
            self._open.discard(circuit)
            for peer in (source, target):
                if self._swarm.direct(peer) is not None:
                    self._carried[peer] += circuit.relayed_bytes

    def _why_not(self, stream: Stream, target: PeerId) -> str | None:
        """Why this node relays nothing between the two; None when it does."""
        source, limits = stream.peer_id, self._limits
        now = trio.current_time()
        bucket = self._requests.get(source)
        if bucket is None:
            bucket = self._requests[source] = TokenBucket(limits.requests_burst, limits.requests_per_s, now)
        if not bucket.take(now):
            self._reached["requests"] += 1
            return "too many circuits asked for in a short time"
        if stream.connection.relayed_by is not None:
            return "a circuit does not lead through two relays"
        if target == self._swarm.peer_id:
            return "the relay itself is no target: it is connected already"
        if target == source:
            return "a circuit to oneself"
        if not self._swarm.member_check(target):
            return "the target is no member"
        if self._swarm.direct(target) is None:
            return "this relay has no connection with the target"
        if len(self._open) >= limits.circuits:
            self._reached["circuits"] += 1
            return f"{limits.circuits} circuits are open here"
        for peer in (source, target):
            if sum(peer in (c.source, c.target) for c in self._open) >= limits.circuits_per_member:
                self._reached["circuits_per_member"] += 1
                return f"{limits.circuits_per_member} circuits of {peer} are open here"
        return None

    async def _reach_target(self, circuit: Circuit) -> Stream:
        """A stream on which the target has agreed. Raises FeddError."""
        deadline_s = self._limits.request_s
        stream = await self._swarm.open_stream(circuit.target, RELAY_IN_PROTOCOL, deadline_s)
        try:
            if stream.connection.relayed_by is not None:  # the direct one ended this moment
                raise NotConnected("this relay has no connection with the target")
            await stream.send_all(encode_source(circuit.source))
            refusal = decode_answer(await receive_message(stream, deadline_s))
            if refusal is not None:
                raise Refused(f"the target refuses: {refusal}")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            stream.reset()
            raise NotConnected(f"the link with the target broke: {error}") from error
        except BaseException:
            stream.reset()
            raise
        return stream

    async def _join(self, one: Stream, other: Stream, circuit: Circuit) -> None:
        """Copy both ways until both ends have closed, one breaks, or nothing comes for too long."""
        closing = False

        def extend() -> None:
            if not closing:
                idle.deadline = trio.current_time() + self._limits.idle_s

        async def copy(source: Stream, sink: Stream) -> None:
            nonlocal closing
            while data := await source.receive_some(self._chunk_bytes):
                extend()
                await self._wait_turn(len(data), circuit)
                await sink.send_all(data)
                circuit.relayed_bytes += len(data)
                extend()
            # An end closes both halves at once, so nothing of use comes from the other any more.
            closing = True
            idle.deadline = trio.current_time() + CLOSING_S
            await sink.send_eof()

        with trio.move_on_after(self._limits.idle_s) as idle:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(copy, one, other)
                nursery.start_soon(copy, other, one)
            await other.aclose()
        if idle.cancelled_caught:
            self._reached["idle_s"] += not closing
            one.reset()

    async def _wait_turn(self, size_bytes: int, circuit: Circuit) -> None:
        """Wait until the rates let a chunk pass; meanwhile nothing is read, so its sender waits as well."""
        now = trio.current_time()
        pauses = {
            "circuit_bytes_per_s": circuit.rate.take(size_bytes, now),
            "bytes_per_s": self._rate.take(size_bytes, now),
        }
        for name, pause_s in pauses.items():
            self._reached[name] += pause_s > 0
        if any(pauses.values()):
            await trio.sleep(max(pauses.values()))


async def receive_message(stream: Stream, deadline_s: float) -> bytes:
    """The next message's body. Raises ProtocolError, or the stream's errors."""
    with trio.move_on_after(deadline_s):
        try:
            (length,) = LENGTH.unpack(await stream.receive_exactly(LENGTH.size))
            return await stream.receive_exactly(check_length(length))
        except EOFError as error:
            raise ProtocolError(
                f"{stream.peer_id} ended the stream before a circuit was agreed on"
            ) from error
    raise ProtocolError(f"{stream.peer_id} said nothing about the circuit within {deadline_s:g} s")
