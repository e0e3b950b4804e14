"""Real sockets: the interfaces of this machine, and multicast on its loopback."""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from fedd.core.identity import PrivateKey
from fedd.net import interfaces as interfaces_module
from fedd.net import multicast, tcp
from fedd.net.interfaces import Interface, interfaces, machine_addresses
from fedd.net.multicast import MulticastDns
from fedd.net.swarm import Swarm


def loopback() -> Interface:
    return next(interface for interface in interfaces() if interface.is_loopback)


def free_port() -> int:
    """Not 5353, so that nobody else hears or is heard."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- interfaces


def test_the_loopback_is_there_and_last() -> None:
    found = interfaces()
    assert found[-1].name == "lo"
    assert "127.0.0.1" in found[-1].ipv4
    assert found[-1].can_multicast
    assert socket.if_nametoindex("lo") == found[-1].index
    assert [interface.is_loopback for interface in found] == sorted(i.is_loopback for i in found)


def test_the_machine_has_these_addresses_and_no_link_local_ones() -> None:
    for family, transport in ((4, "ip4"), (6, "ip6")):
        hosts = [ipaddress.ip_address(host) for host in machine_addresses(transport)]
        assert hosts
        assert all(host.version == family for host in hosts)
        assert not any(host.version == 6 and host.is_link_local for host in hosts)
        assert [host.is_loopback for host in hosts] == sorted(host.is_loopback for host in hosts)


def test_the_table_of_ipv6_addresses_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "if_inet6"
    table.write_text(
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "fe800000000000000000000000000001 01 40 20 80       lo\n"
        "20010db8000000000000000000000001 01 40 00 c0       lo\n"  # tentative
        "20010db8000000000000000000000002 01 40 00 88       lo\n"  # a duplicate
        "20010db8000000000000000000000003 63 40 00 80     gone\n"
    )
    monkeypatch.setattr(interfaces_module, "_IF_INET6", str(table))
    found = loopback()
    assert found.ipv6 == ("::1",)
    assert found.has_ipv6
    assert all(interface.name != "gone" for interface in interfaces())
    monkeypatch.setattr(interfaces_module, "_IF_INET6", str(tmp_path / "none"))
    assert not loopback().has_ipv6
    assert machine_addresses("ip6") == ["::1"]


def test_every_address_of_an_interface_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(name: bytes, host: str) -> bytes:
        address = struct.pack("@HH4s8x", socket.AF_INET, 0, socket.inet_aton(host))
        return (name.ljust(16, b"\0") + address).ljust(interfaces_module._REQUEST_BYTES, b"\0")

    told = entry(b"lo", "127.0.0.1") + entry(b"lo:1", "127.0.0.2") + entry(b"nosuch0", "192.0.2.1")
    real = interfaces_module.fcntl.ioctl

    def ioctl(fd: int, request: int, argument: bytes) -> bytes:
        if request != interfaces_module._SIOCGIFCONF:
            return real(fd, request, argument)
        _, address = struct.unpack("@iP", argument)
        ctypes.memmove(address, told, len(told))
        return struct.pack("@iP", len(told), address)

    monkeypatch.setattr(interfaces_module.fcntl, "ioctl", ioctl)
    assert machine_addresses("ip4") == ["127.0.0.1", "127.0.0.2"]


async def test_a_wildcard_follows_the_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = ["127.0.0.1"]
    monkeypatch.setattr(tcp, "machine_addresses", lambda transport: list(hosts))
    swarm = Swarm(PrivateKey.from_seed(bytes(32)))
    told: list[int] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        await swarm.listen("/ip4/0.0.0.0/tcp/0")
        (fixed,) = await swarm.listen("/ip4/127.0.0.1/tcp/0")
        swarm.identity_changed = lambda: told.append(1)
        assert not swarm.refresh_addresses()
        hosts.insert(0, "192.0.2.7")
        assert swarm.refresh_addresses()
        assert [address.split("/")[2] for address in swarm.addresses] == [
            "192.0.2.7",
            "127.0.0.1",
            "127.0.0.1",
        ]
        assert swarm.addresses[-1] == fixed
        assert not swarm.refresh_addresses()
        assert told == [1]
        nursery.cancel_scope.cancel()


# -- multicast


class Ear:
    """What one end has heard."""

    def __init__(self, lan: MulticastDns) -> None:
        self.lan = lan
        self.heard: list[tuple[int, bytes]] = []
        self.news = trio.Event()

    def hear(self, index: int, data: bytes) -> None:
        self.heard.append((index, data))
        self.news.set()
        self.news = trio.Event()

    async def wait(self, count: int) -> list[tuple[int, bytes]]:
        with trio.fail_after(5):
            while len(self.heard) < count:
                await self.news.wait()
        return self.heard


@asynccontextmanager
async def ears(count: int, port: int) -> AsyncIterator[list[Ear]]:
    async with trio.open_nursery() as nursery:
        made = [Ear(MulticastDns(port)) for _ in range(count)]
        for ear in made:
            nursery.start_soon(ear.lan.run, ear.hear)
        yield made
        nursery.cancel_scope.cancel()


async def test_programs_of_one_machine_hear_each_other_on_its_loopback() -> None:
    lo = loopback()
    async with ears(2, free_port()) as (one, other):
        for ear in (one, other):
            assert ear.lan.use([lo]) == []
            assert ear.lan.use([lo]) == []  # again changes nothing
        one.lan.send(lo.index, b"hello")
        assert await other.wait(1) == [(lo.index, b"hello")]
        assert await one.wait(1) == [(lo.index, b"hello")]  # one's own words come back


async def test_what_is_sent_to_this_host_alone_is_not_heard() -> None:
    lo = loopback()
    port = free_port()
    async with ears(1, port) as (ear,):
        ear.lan.use([lo])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"psst", ("127.0.0.1", port))
        ear.lan.send(lo.index, b"hello")
        await ear.wait(1)
        assert {data for _, data in ear.heard} == {b"hello"}


async def test_a_flood_leaves_time_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    lo = loopback()
    async with ears(1, free_port()) as (ear,):
        with monkeypatch.context() as patch:
            patch.setattr(multicast, "REST_S", 3600.0)
            ear.lan.use([lo])
            for number in range(3 * multicast.READS_AT_ONCE):
                ear.lan.send(lo.index, b"%d" % number)
            await ear.wait(multicast.READS_AT_ONCE)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(ear.heard) == multicast.READS_AT_ONCE


async def test_what_comes_at_once_is_heard_in_order() -> None:
    lo = loopback()
    count = 5 * multicast.READS_AT_ONCE
    async with ears(1, free_port()) as (ear,):
        ear.lan.use([lo])
        for number in range(count):
            ear.lan.send(lo.index, b"%d" % number)
        assert await ear.wait(count) == [(lo.index, b"%d" % number) for number in range(count)]


async def test_an_interface_no_longer_used_is_not_heard() -> None:
    lo = loopback()
    async with ears(2, free_port()) as (one, other):
        one.lan.use([lo])
        other.lan.use([lo])
        other.lan.use([])
        one.lan.send(lo.index, b"first")
        await one.wait(1)
        other.lan.use([lo])
        one.lan.send(lo.index, b"second")
        await other.wait(1)
        assert {data for _, data in other.heard} == {b"second"}


async def test_sockets_are_opened_before_it_runs_as_well() -> None:
    lo = loopback()
    ear = Ear(MulticastDns(free_port()))
    ear.lan.use([lo])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ear.lan.run, ear.hear)
        ear.lan.send(lo.index, b"hello")
        await ear.wait(1)
        nursery.cancel_scope.cancel()
    assert ear.lan._sockets == {}


async def test_what_cannot_be_joined_is_told_and_tried_again() -> None:
    lo = loopback()
    nowhere = replace(lo, index=9999, has_ipv6=False)
    async with ears(1, free_port()) as (ear,):
        (problem,) = ear.lan.use([nowhere])
        assert "no multicast over IPv4" in problem
        assert ear.lan.use([lo]) == []
        with pytest.raises(KeyError):
            ear.lan.send(9999, b"hello")


async def test_a_port_of_others_is_a_problem_in_words() -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as greedy:  # shares with nobody
        greedy.bind(("", port))
        lan = MulticastDns(port)
        (problem,) = lan.use([replace(loopback(), has_ipv6=False)])
    assert "in use" in problem
    assert lan._sockets == {}


async def test_what_cannot_be_sent_is_an_error_and_a_full_buffer_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing:
        def __init__(self, error: OSError) -> None:
            self.error = error

        def setsockopt(self, *arguments: object) -> None:
            pass

        def sendto(self, *arguments: object) -> None:
            raise self.error

    lo = replace(loopback(), has_ipv6=True)
    lan = MulticastDns(free_port())
    lan._interfaces = {lo.index: lo}
    lan._joined = {socket.AF_INET: {lo.index}, socket.AF_INET6: {lo.index}}
    unreachable, full = Failing(OSError(101, "Network is unreachable")), Failing(BlockingIOError())
    lan._sockets = {socket.AF_INET: unreachable, socket.AF_INET6: unreachable}
    with pytest.raises(OSError, match="unreachable"):
        lan.send(lo.index, b"hello")
    lan._sockets[socket.AF_INET6] = full
    lan.send(lo.index, b"hello")  # over IPv6 alone, as far as anybody knows


async def test_a_socket_that_fails_is_opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multicast, "FAILED_S", 0.0)
    lo = replace(loopback(), has_ipv6=False)
    ear = Ear(MulticastDns(free_port()))
    ear.lan.use([lo])
    real = multicast._read
    failing = True

    def read(raw: socket.socket, family: int) -> tuple[int, bytes]:
        if failing:
            raise OSError(100, "Network is down")
        return real(raw, family)

    monkeypatch.setattr(multicast, "_read", read)
    ear.lan.send(lo.index, b"lost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ear.lan.run, ear.hear)
        with trio.fail_after(5):
            while ear.lan._sockets:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert ear.lan._sockets == {}
        failing = False
        assert ear.lan.use([lo]) == []
        ear.lan.send(lo.index, b"hello")
        assert await ear.wait(1) == [(lo.index, b"hello")]
        nursery.cancel_scope.cancel()
