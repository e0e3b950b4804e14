"""This machine's network interfaces and their addresses, as the kernel tells without netlink.

IPv4 by ioctl (netdevice(7)), which lists every address of an interface; IPv6 from /proc/self/net, which a
service that may not see the rest of /proc can still read.
"""

from __future__ import annotations

import array
import fcntl
import ipaddress
import socket
import struct
from dataclasses import field
from typing import Final

from fedd.core.dataclass import dataclass

MAX_ADDRESSES: Final = 256
"""IPv4 addresses that are looked at; a machine with more is a router of some kind."""

_SIOCGIFCONF: Final = 0x8912
_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFINDEX: Final = 0x8933
_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_IFF_MULTICAST: Final = 0x1000
_NAME_BYTES: Final = 16
# struct ifreq: the name, and a union whose largest member is a struct ifmap.
_REQUEST_BYTES: Final = _NAME_BYTES + max(16, struct.calcsize("@LLHBBB3x"))
_IF_INET6: Final = "/proc/self/net/if_inet6"
# linux/if_addr.h: duplicate found, or not yet known to be none.
_UNUSABLE_IPV6: Final = 0x08 | 0x40


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface that is up; addresses as text, those of IPv6 without the link-local ones.

    A link-local address needs a zone, whose name differs on every machine: nobody else could use it.
    `has_ipv6` says whether it has any IPv6 address, be it a link-local one.
    """

    name: str
    index: int
    is_loopback: bool
    can_multicast: bool
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = field(default=())
    has_ipv6: bool = False


def interfaces() -> list[Interface]:
    """All interfaces that are up and have an address, those of the loopback last."""
    ipv4, ipv6 = _ipv4_addresses(), _ipv6_addresses()
    found: list[Interface] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for name in {**ipv4, **ipv6}:
            try:
                flags = _ask(probe, _SIOCGIFFLAGS, name) & 0xFFFF
                index = _ask(probe, _SIOCGIFINDEX, name)
            except OSError:  # it has gone since
                continue
            loopback = bool(flags & _IFF_LOOPBACK)
            six = ipv6.get(name, ())
            if flags & _IFF_UP:
                usable = tuple(str(address) for address in six if not address.is_link_local)
                multicast = loopback or bool(flags & _IFF_MULTICAST)
                found.append(
                    Interface(name, index, loopback, multicast, ipv4.get(name, ()), usable, bool(six))
                )
    return sorted(found, key=lambda interface: (interface.is_loopback, interface.index))


def machine_addresses(transport: str) -> list[str]:
    """This machine's addresses of a family ("ip4" or "ip6"), those of the loopback last."""
    if transport == "ip4":
        return [host for interface in interfaces() for host in interface.ipv4] or ["127.0.0.1"]
    return [host for interface in interfaces() for host in interface.ipv6] or ["::1"]


def _ask(probe: socket.socket, request: int, name: str) -> int:
    reply = fcntl.ioctl(probe.fileno(), request, name.encode()[:15].ljust(_REQUEST_BYTES, b"\0"))
    return int(struct.unpack_from("@i", reply, _NAME_BYTES)[0])


def _ipv4_addresses() -> dict[str, tuple[str, ...]]:
    room = array.array("B", bytes(MAX_ADDRESSES * _REQUEST_BYTES))
    address, _ = room.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        reply = fcntl.ioctl(probe.fileno(), _SIOCGIFCONF, struct.pack("@iP", len(room), address))
    used = struct.unpack("@iP", reply)[0]
    found: dict[str, tuple[str, ...]] = {}
    for at in range(0, used, _REQUEST_BYTES):
        entry = room[at : at + _REQUEST_BYTES].tobytes()
        # An address with a label of its own is listed under it, as "eth0:1".
        name = entry[:_NAME_BYTES].split(b"\0")[0].decode(errors="replace").partition(":")[0]
        host = socket.inet_ntoa(entry[_NAME_BYTES + 4 : _NAME_BYTES + 8])
        found[name] = (*found.get(name, ()), host)
    return found


def _ipv6_addresses() -> dict[str, tuple[ipaddress.IPv6Address, ...]]:
    found: dict[str, tuple[ipaddress.IPv6Address, ...]] = {}
    try:
        with open(_IF_INET6, encoding="ascii") as table:
            for line in table:
                packed, _, _, _, flags, name = line.split()
                if not int(flags, 16) & _UNUSABLE_IPV6:
                    found[name] = (*found.get(name, ()), ipaddress.IPv6Address(int(packed, 16)))
    except OSError:  # no IPv6 here
        return {}
    return found
