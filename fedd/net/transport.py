"""Multiaddresses, the raw byte links behind them, and an in-memory network for tests.

A `Wire` is a non-blocking byte link: the connection above it reads and writes without
awaiting, and waits only when there is nothing to read or no room to write. TCP is in
`fedd.net.tcp`. This is the one file that knows the `multiaddr` package, which is loaded only
for what the common forms of address do not cover: it costs an idle daemon 3 MiB.
"""

from __future__ import annotations

import ipaddress
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from fedd.api.errors import Conflict, InvalidParameter, NotConnected
from fedd.api.types import PeerId
from fedd.core.identity import parse_peer_id, peer_id_to_bytes
from fedd.core.varint import encode_uvarint

MEMORY_PIPE_BYTES: Final = 64 * 1024
"""What an in-memory wire holds in each direction, about what a socket's buffer does."""

_COMMON: Final = re.compile(
    r"/(?:(ip4|ip6|dns|dns4|dns6)/([0-9A-Za-z.:_-]{1,253})/tcp/([0-9]{1,5})|(memory)/([0-9]{1,9})"
    r"|dnsaddr/([0-9A-Za-z._-]{1,244}))"
    r"(?:/(?:p2p|ipfs)/([0-9A-Za-z]{1,128}))?/?"
)
_TCP: Final = 6
_P2P: Final = 421
_MEMORY: Final = 777
_CODES: Final = {"ip4": 4, "ip6": 41, "dns": 53, "dns4": 54, "dns6": 55, "dnsaddr": 56}
_IP_BYTES: Final = {"ip4": 4, "ip6": 16}
_IP_BY_CODE: Final = {b"\x04": "ip4", b"\x29": "ip6"}
_EXAMPLE: Final = "an address looks like /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW..."


@dataclass(frozen=True, slots=True)
class Address:
    """A multiaddress that fedd can dial or listen on; `str()` gives its text back.

    `transport` is the first part: ip4, ip6, dns, dns4, dns6 (all over TCP), dnsaddr, which stands
    for other addresses and has no port of its own, or memory, whose number is the `port`.
    """

    transport: str
    host: str
    port: int
    peer_id: PeerId | None = None

    def __str__(self) -> str:
        end = f"/p2p/{self.peer_id}" if self.peer_id is not None else ""
        if self.transport == "memory":
            return f"/memory/{self.port}{end}"
        if self.transport == "dnsaddr":
            return f"/dnsaddr/{self.host}{end}"
        return f"/{self.transport}/{self.host}/tcp/{self.port}{end}"

    @property
    def is_name(self) -> bool:
        """Whether a name has to be resolved before this can be dialled."""
        return self.transport.startswith("dns")

    @property
    def is_wildcard(self) -> bool:
        """Whether listening here means listening on every address of the machine."""
        if self.transport not in {"ip4", "ip6"}:
            return False
        return ipaddress.ip_address(self.host).is_unspecified


def parse_multiaddr(text: str) -> Address:
    """Read a multiaddress; raise InvalidParameter saying what is wrong with it."""
    match = _COMMON.fullmatch(text)
    if match is None:
        raise InvalidParameter(f"{text[:200]!r} is not an address: {_why_not(text)}", hint=_EXAMPLE)
    transport, host, port, memory, number, name, peer = match.groups()
    peer_id = parse_peer_id(peer) if peer is not None else None
    if memory is not None:
        return Address("memory", "", int(number), peer_id)
    if name is not None:
        return Address("dnsaddr", name, 0, peer_id)
    if int(port) > 65535:
        raise InvalidParameter(f"{text[:200]!r}: a port is at most 65535, not {port}", hint=_EXAMPLE)
    if transport in {"ip4", "ip6"}:
        try:
            kind = ipaddress.IPv4Address if transport == "ip4" else ipaddress.IPv6Address
            host = str(kind(host))
        except ValueError as error:
            raise InvalidParameter(f"{text[:200]!r} is not an address: {error}", hint=_EXAMPLE) from None
    return Address(transport, host, int(port), peer_id)


def _why_not(text: str) -> str:
    from multiaddr import Multiaddr

    try:
        names = [protocol.name for protocol in Multiaddr(text).protocols()]
    except (ValueError, LookupError) as error:
        return str(error)[:200]
    return f"fedd speaks tcp, not {'/'.join(names)}"


def multiaddr_to_bytes(address: Address) -> bytes:
    """Give the binary form, as identify sends it (github.com/multiformats/multiaddr)."""
    end = b""
    if address.peer_id is not None:
        peer = peer_id_to_bytes(address.peer_id)
        end = encode_uvarint(_P2P) + encode_uvarint(len(peer)) + peer
    if address.transport == "memory":
        return encode_uvarint(_MEMORY) + address.port.to_bytes(8, "big") + end
    if address.transport in _IP_BYTES:
        host = ipaddress.ip_address(address.host).packed
    else:
        host = encode_uvarint(len(address.host)) + address.host.encode()
    code = encode_uvarint(_CODES[address.transport])
    if address.transport == "dnsaddr":
        return code + host + end
    return code + host + encode_uvarint(_TCP) + address.port.to_bytes(2, "big") + end


def multiaddr_from_bytes(data: bytes) -> str:
    """Give the text of a binary multiaddress; raise InvalidParameter when it is none."""
    if data[:1] in _IP_BY_CODE:  # /ip4/.../tcp/... and /ip6, without the package
        transport = _IP_BY_CODE[data[:1]]
        host, rest = data[1 : 1 + _IP_BYTES[transport]], data[1 + _IP_BYTES[transport] :]
        if len(rest) == 3 and rest[0] == _TCP:
            port = int.from_bytes(rest[1:], "big")
            return f"/{transport}/{ipaddress.ip_address(host)}/tcp/{port}"
    from multiaddr import Multiaddr

    try:
        return str(Multiaddr(data))
    except (ValueError, LookupError) as error:
        raise InvalidParameter(f"not a binary multiaddress: {str(error)[:200]}") from None


class Wire(Protocol):
    """A non-blocking byte link between two ends."""

    local_address: Address
    remote_address: Address
    send: Callable[[bytes | memoryview], int]
    """Take some of the bytes and say how many; BlockingIOError when there is no room."""
    recv_into: Callable[[memoryview], int]
    """Fill with what is there and say how much, 0 at the end; BlockingIOError when nothing is."""

    def is_full(self) -> bool:
        """Whether so much is unsent that nothing but what is urgent should be added."""

    async def wait_readable(self) -> None:
        """Return when `recv_into` has something to say, or on `interrupt`."""

    async def wait_writable(self) -> None:
        """Return when `send` takes bytes again, or on `interrupt`."""

    def interrupt(self) -> None:
        """Let those who wait on it look again, though nothing has happened."""

    def limit_unsent(self, size_bytes: int) -> None:
        """Hold no more than about this before it is on its way; a wire without a kernel need not."""

    def close(self) -> None:
        """Close; whoever waits on it gets trio.ClosedResourceError."""


class Listener(Protocol):
    """Where wires come in."""

    addresses: list[Address]
    """Where it listens, with the real port; a wildcard is expanded to the machine's addresses."""

    def refresh(self) -> bool:
        """Look again which addresses a wildcard means; whether they have changed."""

    async def accept(self) -> Wire:
        """Wait for the next wire; raise Unhealthy when the machine is out of descriptors."""

    def close(self) -> None:
        """Listen no longer."""


class Network(Protocol):
    """What can be dialled and listened on."""

    async def connect(self, address: Address) -> Wire:
        """Make a raw link; raise NotConnected saying why there is none."""

    async def listen(self, address: Address) -> Listener:
        """Listen; raise Conflict when the address is in use."""


class _Pipe:
    """One direction of an in-memory wire: bytes, each with the time from which it can be read."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.chunks: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.held = self.ended = self.reset = False
        self.changed = trio.Event()

    def touch(self) -> None:
        """Wake whoever waits for this direction to change."""
        self.changed.set()
        self.changed = trio.Event()

    @property
    def readable_at(self) -> float | None:
        """From when there is something to read; None while nothing is on its way."""
        if self.held:
            return None
        if self.chunks:
            return self.chunks[0][0]
        return 0.0 if self.ended or self.reset else None


class MemoryWire:
    """One end of an in-memory link, with the faults that a test wants to inject."""

    def __init__(self, local: Address, remote: Address, incoming: _Pipe, outgoing: _Pipe) -> None:
        self.local_address = local
        self.remote_address = remote
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False
        self._interrupted = False
        self.send: Callable[[bytes | memoryview], int] = self._send
        self.recv_into: Callable[[memoryview], int] = self._recv_into

    def hold(self) -> None:
        """Let no byte through, in either direction, and keep all of them: a silent link."""
        self._incoming.held = self._outgoing.held = True

    def release(self) -> None:
        """Undo `hold`; what was kept arrives now."""
        for pipe in (self._incoming, self._outgoing):
            pipe.held = False
            pipe.touch()

    def cut(self) -> None:
        """Break the link, as a TCP reset does: what was on its way is lost, both ends notice."""
        for pipe in (self._incoming, self._outgoing):
            pipe.chunks.clear()
            pipe.size = 0
            pipe.reset = True
            pipe.held = False
            pipe.touch()

    def _send(self, data: bytes | memoryview) -> int:
        pipe = self._outgoing
        if pipe.reset or self._closed:
            raise ConnectionResetError("the in-memory link was cut")
        room = MEMORY_PIPE_BYTES - pipe.size
        if room <= 0:
            raise BlockingIOError
        taken = bytes(data[:room])
        if not pipe.ended:  # else nobody will read it, and the sender learns it by a reset
            pipe.chunks.append((trio.current_time() + pipe.network.latency_s, taken))
            pipe.size += len(taken)
            pipe.touch()
        return len(taken)

    def _recv_into(self, buffer: memoryview) -> int:
        pipe = self._incoming
        if pipe.reset:
            raise ConnectionResetError("the in-memory link was cut")
        readable_at = pipe.readable_at
        if readable_at is None or readable_at > trio.current_time():
            raise BlockingIOError
        count = 0
        while pipe.chunks and count < len(buffer) and pipe.chunks[0][0] <= trio.current_time():
            at, chunk = pipe.chunks[0]
            taken = min(len(chunk), len(buffer) - count)
            buffer[count : count + taken] = chunk[:taken]
            count += taken
            pipe.chunks.popleft()
            if taken < len(chunk):
                pipe.chunks.appendleft((at, chunk[taken:]))
        pipe.size -= count
        if count:
            pipe.touch()
        return count

    def is_full(self) -> bool:
        """Whether `wait_writable` would wait."""
        return self._outgoing.size >= MEMORY_PIPE_BYTES

    def interrupt(self) -> None:
        """Let the reader look again; a writer is not in need of it, as it looks at what it waits for."""
        self._interrupted = True
        self._incoming.touch()

    def limit_unsent(self, size_bytes: int) -> None:
        """Do nothing: it holds MEMORY_PIPE_BYTES."""

    async def wait_readable(self) -> None:
        """Wait for bytes that have had the time to arrive, the end, or a cut."""
        pipe = self._incoming
        self._interrupted = False
        while True:
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this end was closed")
            if self._interrupted:
                return
            at = pipe.readable_at
            if at is not None and at <= trio.current_time():
                return
            with trio.move_on_at(at if at is not None else float("inf")):
                await pipe.changed.wait()

    async def wait_writable(self) -> None:
        """Wait for room, or a cut."""
        pipe = self._outgoing
        await trio.lowlevel.checkpoint()
        while pipe.size >= MEMORY_PIPE_BYTES and not (pipe.reset or self._closed):
            await pipe.changed.wait()
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")

    def close(self) -> None:
        """Close this end: the other reads what is on its way, then the end."""
        self._closed = True
        self._outgoing.ended = True
        self._incoming.ended = True
        self._incoming.chunks.clear()
        self._incoming.size = 0
        self._incoming.touch()
        self._outgoing.touch()


class MemoryListener:
    """A place of a `MemoryNetwork` where wires come in."""

    def __init__(self, network: MemoryNetwork, address: Address) -> None:
        self.addresses = [address]
        self._network = network
        # as many as a kernel's listen queue would hold
        self.incoming, self._accepted = trio.open_memory_channel[Wire](128)

    def refresh(self) -> bool:
        """There are no wildcards here."""
        return False

    async def accept(self) -> Wire:
        """Wait for the next wire."""
        return await self._accepted.receive()

    def close(self) -> None:
        """Give the place free."""
        self._network.listeners.pop(self.addresses[0].port, None)
        self._accepted.close()


class MemoryNetwork:
    """A network within one process and one trio run, for tests: addresses are /memory/N.

    Bytes take `latency_s` seconds (of trio's clock, so of a MockClock too) to arrive; set it at
    any time. `wires` holds the dialling end of every link made, in order. /memory/0 listens on
    the first free number.
    """

    def __init__(self, latency_s: float = 0.0) -> None:
        self.latency_s = latency_s
        self.listeners: dict[int, MemoryListener] = {}
        self.wires: list[MemoryWire] = []
        self._dialled = 0

    async def connect(self, address: Address) -> Wire:
        """Make a link to whoever listens at that number; NotConnected when nobody does."""
        await trio.lowlevel.checkpoint()
        listener = self.listeners.get(address.port)
        if listener is None:
            raise NotConnected(f"cannot dial {address}: nobody listens there")
        self._dialled += 1
        here = Address("memory", "", 1_000_000 + self._dialled)
        there = Address("memory", "", address.port)
        out, back = _Pipe(self), _Pipe(self)
        wire = MemoryWire(here, there, incoming=back, outgoing=out)
        try:
            listener.incoming.send_nowait(MemoryWire(there, here, incoming=out, outgoing=back))
        except trio.WouldBlock:
            raise NotConnected(f"cannot dial {address}: too many wait there") from None
        self.wires.append(wire)
        return wire

    async def listen(self, address: Address) -> MemoryListener:
        """Listen at a number; Conflict when it is taken."""
        await trio.lowlevel.checkpoint()
        number = address.port or next(n for n in range(1, 1_000_000) if n not in self.listeners)
        if number in self.listeners:
            raise Conflict(
                f"cannot listen on /memory/{number}: it is in use",
                hint="choose another number; /memory/0 picks a free one",
                field="listen",
            )
        listener = MemoryListener(self, Address("memory", "", number))
        self.listeners[number] = listener
        return listener
