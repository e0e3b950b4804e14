"""Multiaddresses, and the raw byte links behind them.

A `Wire` is a non-blocking byte link: the connection above it reads and writes without
awaiting, and waits only when there is nothing to read or no room to write. TCP is in
`fedd.net.tcp`, links within a process are in `fedd.net.memory`. This is the one file that
knows the `multiaddr` package, which is loaded only for what the common forms of address do
not cover: it costs an idle daemon 3 MiB.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final, Protocol

from fedd.api.errors import InvalidParameter
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.identity import parse_peer_id, peer_id_to_bytes
from fedd.core.varint import encode_uvarint

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
    rtt_s: float | None
    """The round trip as the kernel has measured it so far; None when there is no kernel between."""
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
