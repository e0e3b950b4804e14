"""TCP links: connect, listen, and say plainly why not.

This is the one place of the links where an `OSError` becomes an error of fedd.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import trio

from fedd.api.errors import Conflict, Denied, FeddError, InvalidParameter, NotConnected, Unhealthy
from fedd.net.interfaces import machine_addresses
from fedd.net.transport import Address, Wire

LISTEN_BACKLOG: Final = 1024
"""Connections that the kernel holds for us while we are busy, about 1 KiB each. When it is full the kernel
drops the first packet of an honest peer too, which tries again only a second later (RFC 6298 section 2)."""

ACCEPTS_AT_ONCE: Final = 64
"""Connections that are taken from the kernel before other tasks have their turn, at 20 us each."""

NOT_SENT_LOW_WATER_BYTES: Final = 16 * 1024
"""What the kernel may hold unsent, until the link has proven to be fast. More of it would make a heartbeat
wait behind bulk data."""

NEAR_ROUND_TRIP_US: Final = 2000
NEAR_UNREAD_BYTES: Final = 1024 * 1024
"""What the kernel may hold unread of a peer so near, which is 0.5 GB/s at that round trip. A heartbeat waits
behind it, and the streams on a link share by what their windows happen to be once it is larger than these;
without a bound it grows to several MB, as the kernel means it for far peers."""

_TCP_INFO_BYTES: Final = 104
_TCP_INFO_RTT: Final = slice(68, 72)
"""tcpi_rtt in struct tcp_info (linux/tcp.h), microseconds; at first that of the handshake, which kernels
answer without the programs."""

_SIOCOUTQNSD: Final = 0x894B  # tcp(7) has its sister SIOCOUTQ; this one counts what was never sent
_INT_BYTES: Final = 4


def broken_reason(error: OSError) -> str:
    """Name why a link broke: "closed" when the other end's kernel said so, else "error: ..."."""
    if isinstance(error, ConnectionError):
        return "closed"
    return f"error: {error.strerror or error}"


class TcpWire:
    """A TCP connection; small writes leave at once and little is held unsent in the kernel."""

    __slots__ = (
        "_low_water_bytes",
        "_socket",
        "local_address",
        "recv_into",
        "remote_address",
        "rtt_s",
        "send",
    )

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = raw
        self.limit_unsent(NOT_SENT_LOW_WATER_BYTES)
        round_trip_us = _round_trip_us(raw)
        self.rtt_s = round_trip_us / 1e6 or None
        if 0 < round_trip_us < NEAR_ROUND_TRIP_US:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, NEAR_UNREAD_BYTES)
        self.local_address = _from_sockaddr(raw.getsockname())
        self.remote_address = _from_sockaddr(raw.getpeername())
        self.send: Callable[[bytes | memoryview], int] = raw.send
        self.recv_into: Callable[[memoryview], int] = raw.recv_into

    def is_full(self) -> bool:
        """Whether the kernel holds so much unsent that `wait_writable` would wait.

        The kernel itself looks at TCP_NOTSENT_LOWAT only when it begins a segment, of up to 64 KiB: without
        this look, it holds that much, which is 50 ms at 10 Mbit/s.
        """
        try:
            unsent = fcntl.ioctl(self._socket.fileno(), _SIOCOUTQNSD, bytes(_INT_BYTES))
        except OSError:  # the socket's own error will say what is wrong
            return False
        return int.from_bytes(unsent, sys.byteorder) * 2 >= self._low_water_bytes

    async def wait_readable(self) -> None:
        """Wait until there are bytes, or the end."""
        number = self._socket.fileno()
        if number < 0:
            raise trio.ClosedResourceError("this connection was closed here")
        try:
            await trio.lowlevel.wait_readable(number)
        except trio.ClosedResourceError:
            if self._socket.fileno() < 0:
                raise

    async def wait_writable(self) -> None:
        """Wait until the kernel takes bytes."""
        number = self._socket.fileno()
        if number < 0:
            raise trio.ClosedResourceError("this connection was closed here")
        try:
            await trio.lowlevel.wait_writable(number)
        except trio.ClosedResourceError:
            if self._socket.fileno() < 0:
                raise

    def interrupt(self) -> None:
        """Let those who wait look again."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket.fileno())

    def limit_unsent(self, size_bytes: int) -> None:
        """Ask the kernel to hold no more than this unsent; it may look so only at each segment."""
        self._low_water_bytes = size_bytes
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size_bytes)

    def close(self) -> None:
        """Close the socket and wake whoever waits on it."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket.fileno())
            self._socket.close()


def _round_trip_us(raw: socket.socket) -> int:
    info = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return int.from_bytes(info[_TCP_INFO_RTT], sys.byteorder)


class TcpListener:
    """A listening TCP socket."""

    def __init__(self, raw: socket.socket, address: Address) -> None:
        raw.setblocking(False)
        self._socket = raw
        self._at_once = 0
        bound = replace(address, port=int(raw.getsockname()[1]), peer_id=None)
        self._bound = bound
        self.addresses = [bound]
        self.refresh()

    def refresh(self) -> bool:
        """Look again which addresses a wildcard means; whether they have changed."""
        if not self._bound.is_wildcard:
            return False
        before = self.addresses
        hosts = machine_addresses(self._bound.transport)
        self.addresses = [replace(self._bound, host=host) for host in hosts]
        return self.addresses != before

    async def accept(self) -> Wire:
        """Wait for the next connection; those that vanish while queued are passed over."""
        while True:
            if self._socket.fileno() < 0:
                raise trio.ClosedResourceError("this listener was closed")
            self._at_once = (self._at_once + 1) % ACCEPTS_AT_ONCE
            if not self._at_once:
                await trio.lowlevel.checkpoint()
            try:
                accepted, _ = self._socket.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket.fileno())
                continue
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    raise Unhealthy(
                        f"cannot accept connections: {error.strerror}",
                        hint="raise the limit of open files (LimitNOFILE)",
                    ) from error
                if error.errno in {errno.EBADF, errno.EINVAL}:
                    raise trio.ClosedResourceError("this listener was closed") from error
                continue
            with contextlib.suppress(OSError):  # gone between accept and the look at its name
                return _wire(accepted)

    def close(self) -> None:
        """Close the socket; its port is free again."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket.fileno())
            self._socket.close()


class TcpNetwork:
    """TCP over IPv4 and IPv6."""

    async def connect(self, address: Address) -> Wire:
        """Connect to a numeric address; NotConnected when nobody answers there."""
        family = socket.AF_INET6 if address.transport == "ip6" else socket.AF_INET
        try:
            raw = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            await trio.lowlevel.checkpoint()
            raise _not_connected(address, error) from error
        try:
            raw.setblocking(False)
            code = raw.connect_ex((address.host, address.port))
            if code == errno.EINPROGRESS:  # at addresses of this machine that is over by now, well or not
                code = raw.connect_ex((address.host, address.port))
            if code in {errno.EALREADY, errno.EINPROGRESS}:
                await trio.lowlevel.wait_writable(raw.fileno())
                code = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            else:
                await trio.lowlevel.checkpoint_if_cancelled()
            if code not in {0, errno.EISCONN}:  # the second call may say that the first has connected it
                raise OSError(code, os.strerror(code))
            return TcpWire(raw)
        except OSError as error:
            raw.close()
            raise _not_connected(address, error) from error
        except BaseException:
            raw.close()
            raise

    async def listen(self, address: Address) -> TcpListener:
        """Bind and listen; Conflict when the address is taken, with what to do about it."""
        if address.transport not in {"ip4", "ip6"}:
            raise InvalidParameter(
                f"cannot listen on {address}: a listener needs a numeric address",
                hint="for example /ip4/0.0.0.0/tcp/4001, or /ip6/::/tcp/4001",
                field="listen",
            )
        family = socket.AF_INET if address.transport == "ip4" else socket.AF_INET6
        await trio.lowlevel.checkpoint()
        try:
            raw = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise _cannot_listen(address, error) from error
        try:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            raw.bind((address.host, address.port))
            raw.listen(LISTEN_BACKLOG)
        except OSError as error:
            raw.close()
            raise _cannot_listen(address, error) from error
        return TcpListener(raw, address)


def _wire(raw: socket.socket) -> TcpWire:
    try:
        return TcpWire(raw)
    except OSError:
        raw.close()
        raise


def _not_connected(address: Address, error: OSError) -> FeddError:
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return Unhealthy(
            f"cannot dial {address}: {error.strerror}", hint="raise the limit of open files (LimitNOFILE)"
        )
    if error.errno == errno.ECONNREFUSED:
        return NotConnected(
            f"cannot dial {address}: nobody listens there",
            hint="check that the daemon there runs and that this is its port",
        )
    return NotConnected(
        f"cannot dial {address}: {error.strerror or error}", hint="check the address and the network between"
    )


def _cannot_listen(address: Address, error: OSError) -> FeddError:
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"cannot listen on {address}: the address is in use by another program",
            hint="stop that program (see `ss -ltnp`), or choose another port; /tcp/0 picks a free one",
            field="listen",
        )
    if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
        return InvalidParameter(
            f"cannot listen on {address}: this machine has no such address",
            hint="listen on one of its own addresses, or on 0.0.0.0 or :: for all of them",
            field="listen",
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Denied(
            f"cannot listen on {address}: not permitted",
            hint="ports below 1024 need privileges",
            field="listen",
        )
    return Unhealthy(f"cannot listen on {address}: {error.strerror or error}", field="listen")


def _from_sockaddr(sockaddr: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    # those of IPv6 have a flow and a scope too; to ask the socket for its family makes an enum
    return Address("ip4" if len(sockaddr) == 2 else "ip6", sockaddr[0].split("%")[0], sockaddr[1])
