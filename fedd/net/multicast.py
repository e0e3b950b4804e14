"""The sockets of multicast DNS: 224.0.0.251 and ff02::fb, port 5353, on chosen interfaces.

One socket a family serves all interfaces: the kernel says on which one a message came in. Other programs of
this machine use the same port (RFC 6762 section 15), so the port is shared.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from fedd.core.dns_messages import MAX_MESSAGE_BYTES
from fedd.net.interfaces import Interface

log = logging.getLogger("fedd.net.discovery")

PORT: Final = 5353
GROUP_IPV4: Final = "224.0.0.251"
GROUP_IPV6: Final = "ff02::fb"
# RFC 6762 section 11: what was not sent with the greatest time to live may have crossed a router.
TIME_TO_LIVE: Final = 255
# So many messages are read at once; then comes a rest, in which the kernel keeps some hundred more and drops
# what does not fit. A hundred peers are heard within 0.1 s, a flood costs 3 % of a core.
READS_AT_ONCE: Final = 16
REST_S: Final = 0.01
# A socket that fails to read is rested for so long: a network that is going down fails often.
FAILED_S: Final = 1.0

# linux/in.h and linux/in6.h; Python names only some of them.
_IP_PKTINFO, _IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 8, 49, 29
_PKTINFO_IPV4: Final = struct.Struct("@i4s4s")
_PKTINFO_IPV6: Final = struct.Struct("@16sI")
_ANCILLARY_BYTES: Final = 64

Heard = Callable[[int, bytes], None]


class Lan(Protocol):
    """Multicast on the interfaces of a machine, each known by its index."""

    def use(self, wanted: Sequence[Interface]) -> list[str]:
        """Take part on these interfaces and no others; give what does not work, in words."""

    def send(self, index: int, data: bytes) -> None:
        """Send to everybody on an interface in use; OSError when the network does not take it."""

    async def run(self, heard: Heard) -> None:
        """Call `heard(index, data)` for what comes in, until cancelled."""


class MulticastDns:
    """The real network; see `Lan`."""

    def __init__(self, port: int = PORT) -> None:
        self._port = port
        self._sockets: dict[int, socket.socket] = {}  # by address family
        self._joined: dict[int, set[int]] = {socket.AF_INET: set(), socket.AF_INET6: set()}
        self._interfaces: dict[int, Interface] = {}
        self._nursery: trio.Nursery | None = None
        self._heard: Heard = lambda index, data: None

    def use(self, wanted: Sequence[Interface]) -> list[str]:
        """Take part on these interfaces and no others; give what does not work, in words."""
        self._interfaces = {interface.index: interface for interface in wanted}
        problems = []
        six = (interface for interface in wanted if interface.has_ipv6)
        for family, indices in (
            (socket.AF_INET, {interface.index for interface in wanted if interface.ipv4}),
            # The kernel has no route for IPv6 multicast on the loopback.
            (socket.AF_INET6, {interface.index for interface in six if not interface.is_loopback}),
        ):
            joined = self._joined[family]
            for index in joined - indices:
                with contextlib.suppress(OSError):  # the interface itself may be gone
                    self._membership(family, index, join=False)
                joined.discard(index)
            try:
                if indices:
                    self._open(family)
                for index in indices - joined:
                    self._membership(family, index, join=True)
                    joined.add(index)
            except OSError as error:
                what = "IPv4" if family == socket.AF_INET else "IPv6"
                problems.append(f"no multicast over {what}: {error.strerror or error}")
        return problems

    def send(self, index: int, data: bytes) -> None:
        """Send to everybody on an interface in use, over IPv4 and IPv6.

        Raises:
            OSError: the network takes it over neither.
        """
        interface = self._interfaces[index]
        errors: list[OSError] = []
        sent = False
        for family, joined in self._joined.items():
            if index not in joined:
                continue
            raw = self._sockets[family]
            try:
                if family == socket.AF_INET:
                    here = socket.inet_aton(interface.ipv4[0])
                    raw.setsockopt(
                        socket.IPPROTO_IP,
                        socket.IP_MULTICAST_IF,
                        struct.pack("@4s4si", bytes(4), here, index),
                    )
                    raw.sendto(data, (GROUP_IPV4, self._port))
                else:
                    raw.sendto(data, (GROUP_IPV6, self._port, 0, index))
                sent = True
            except BlockingIOError:  # as good as lost on the way
                sent = True
            except OSError as error:
                errors.append(error)
        if errors and not sent:
            raise errors[0]

    async def run(self, heard: Heard) -> None:
        """Call `heard(index, data)` for what comes in, until cancelled."""
        self._heard = heard
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for family in self._sockets:
                    nursery.start_soon(self._receive, family)
                await trio.sleep_forever()
        finally:
            self._nursery = None
            for family in list(self._sockets):
                self._close(family)

    def _open(self, family: int) -> None:
        if family in self._sockets:
            return
        raw = socket.socket(family, socket.SOCK_DGRAM)
        try:
            raw.setblocking(False)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET:
                raw.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
                raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, TIME_TO_LIVE)
                # What other programs have joined is not ours to hear; nor what is sent to this host alone.
                raw.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
                raw.bind((GROUP_IPV4, self._port))
            else:
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, TIME_TO_LIVE)
                with contextlib.suppress(OSError):  # since Linux 4.20
                    raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
                raw.bind(("::", self._port))
        except OSError:
            raw.close()
            raise
        self._sockets[family] = raw
        if self._nursery is not None:
            self._nursery.start_soon(self._receive, family)

    def _membership(self, family: int, index: int, *, join: bool) -> None:
        raw = self._sockets[family]
        if family == socket.AF_INET:
            option = socket.IP_ADD_MEMBERSHIP if join else socket.IP_DROP_MEMBERSHIP
            group = struct.pack("@4s4si", socket.inet_aton(GROUP_IPV4), bytes(4), index)
            raw.setsockopt(socket.IPPROTO_IP, option, group)
        else:
            option = socket.IPV6_JOIN_GROUP if join else socket.IPV6_LEAVE_GROUP
            group = struct.pack("@16sI", socket.inet_pton(family, GROUP_IPV6), index)
            raw.setsockopt(socket.IPPROTO_IPV6, option, group)

    def _close(self, family: int) -> None:
        raw = self._sockets.pop(family)
        self._joined[family].clear()
        trio.lowlevel.notify_closing(raw.fileno())
        raw.close()

    async def _receive(self, family: int) -> None:
        raw = self._sockets[family]
        try:
            while True:
                await trio.lowlevel.wait_readable(raw.fileno())
                try:
                    for _ in range(READS_AT_ONCE):
                        index, data = _read(raw, family)
                        if index in self._joined[family]:
                            self._heard(index, data)
                except BlockingIOError:
                    continue
                await trio.sleep(REST_S)
        except trio.ClosedResourceError:
            return
        except OSError as error:
            log.debug("a socket of multicast DNS failed, it is opened anew: %s", error)
            if error.errno != errno.EBADF:
                await trio.sleep(FAILED_S)
                self._close(family)


def _read(raw: socket.socket, family: int) -> tuple[int, bytes]:
    """The next message and the interface it came in by, 0 for what was not sent to the group."""
    data, ancillary, _, _ = raw.recvmsg(MAX_MESSAGE_BYTES, _ANCILLARY_BYTES)
    for level, kind, value in ancillary:
        if family == socket.AF_INET and (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            return _PKTINFO_IPV4.unpack_from(value)[0], data
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            group, index = _PKTINFO_IPV6.unpack_from(value)
            return (index if group == socket.inet_pton(family, GROUP_IPV6) else 0), data
    return 0, data
