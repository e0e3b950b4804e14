"""One discovery with all around it faked: a swarm, a presence, and a network on which it is heard."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import trio

from fedd.core import mdns
from fedd.core.dns_messages import decode_message
from fedd.core.identity import PrivateKey
from fedd.core.verdicts import State
from fedd.net import discovery
from fedd.net.discovery import Discovery
from fedd.net.interfaces import Interface
from fedd.net.multicast import Heard
from fedd.net.transport import parse_multiaddr

ETH = Interface("eth0", 2, False, True, ipv4=("192.0.2.1",), ipv6=("2001:db8::1",), has_ipv6=True)
WLAN = Interface("wlan0", 3, False, True, ipv4=("198.51.100.1",))
TUNNEL = Interface("tun0", 4, False, False, ipv4=("203.0.113.1",))
LO = Interface("lo", 1, True, True, ipv4=("127.0.0.1",), ipv6=("::1",), has_ipv6=True)
FEDERATION, ANOTHER = "ab" * 32, "cd" * 32
KEYS = [PrivateKey.from_seed(bytes([number]) * 32) for number in range(1, 6)]


class FakeConnection:
    """A connection from an address of this machine."""

    def __init__(self, host: str) -> None:
        self.wire = self
        self.local_address = parse_multiaddr(f"/ip4/{host}/tcp/1")
        self.ended: list[str] = []

    def end(self, reason: str) -> None:
        self.ended.append(reason)


class FakeSwarm:
    """A swarm that listens where it is told."""

    def __init__(self, *addresses: str, peer_id: str = KEYS[0].peer_id) -> None:
        self.peer_id = peer_id
        self.addresses = [f"{address}/p2p/{peer_id}" for address in addresses]
        self.refreshed = False
        self.all_connections: frozenset[FakeConnection] = frozenset()

    def refresh_addresses(self) -> bool:
        changed, self.refreshed = self.refreshed, False
        return changed


class FakePresence:
    """A presence that notes the hints."""

    def __init__(self, federation: str | None = FEDERATION) -> None:
        self.federation = None if federation is None else FakeFederation(federation)
        self.has_links = False
        self.states: dict[str, State] = {}
        self.hints: list[tuple[str, tuple[str, ...]]] = []
        self.told = 0

    def state_of(self, peer: str) -> State | None:
        return self.states.get(peer)

    def hint(self, peer: str, addresses: Sequence[str]) -> None:
        self.hints.append((peer, tuple(addresses)))

    def addresses_changed(self) -> None:
        self.told += 1


class FakeFederation:
    def __init__(self, identifier: str) -> None:
        self.id = identifier


class FakeLan:
    """Notes what is sent, and when."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, int, bytes]] = []
        self.wanted: list[str] = []
        self.problems: list[str] = []
        self.down = False
        self.heard: Heard = lambda index, data: None

    def use(self, wanted: Sequence[Interface]) -> list[str]:
        self.wanted = [interface.name for interface in wanted]
        return self.problems

    def send(self, index: int, data: bytes) -> None:
        if self.down:
            raise OSError(101, "Network is unreachable")
        self.sent.append((trio.current_time(), index, data))

    async def run(self, heard: Heard) -> None:
        self.heard = heard
        await trio.sleep_forever()

    def queries(self) -> list[float]:
        return [at for at, _, data in self.sent if data == mdns.encode_query()]

    def answers(self, index: int | None = None) -> list[float]:
        return [
            at for at, where, data in self.sent if decode_message(data).is_response and index in (None, where)
        ]

    def last_answer(self, index: int) -> bytes:
        return next(
            data for _, at, data in reversed(self.sent) if at == index and decode_message(data).is_response
        )


class World:
    """One discovery with all around it faked."""

    def __init__(self, *addresses: str, federation: str | None = FEDERATION) -> None:
        self.swarm = FakeSwarm(*addresses)
        self.presence = FakePresence(federation)
        self.lan = FakeLan()
        self.discovery = Discovery(
            self.swarm,
            self.presence,
            lan=self.lan,
            rng=random.Random(1),
        )


def announced(
    number: int, *addresses: str, federation: str | None = FEDERATION, instance: bytes | None = None
) -> bytes:
    """The answer of another peer, of a number, at these addresses."""
    peer = KEYS[number].peer_id if number < len(KEYS) else PrivateKey.from_seed(number.to_bytes(32)).peer_id
    texts = [f"{address}/p2p/{peer}" for address in addresses]
    return mdns.encode_answer(instance or b"%032d" % number, texts, 4747, [], federation)


async def run_for(world: World, seconds: float, then: Callable[[], None] = lambda: None) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.discovery.run)
        await trio.sleep(seconds)
        then()
        nursery.cancel_scope.cancel()


@contextmanager
def lines_of(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    with caplog.at_level(logging.INFO, logger="fedd"):
        lines: list[str] = []
        yield lines
        lines += [record.message for record in caplog.records]


def taken_apart(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every datagram that is read from now on."""
    found: list[bytes] = []
    decode = discovery.decode_message
    monkeypatch.setattr(discovery, "decode_message", lambda data: (found.append(data), decode(data))[1])
    return found
