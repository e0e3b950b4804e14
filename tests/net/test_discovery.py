"""Discovery on a network in memory: who is found, who is dialled, how often is asked, what is bounded."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
import trio
from net.federations import MemoryStore
from trio.testing import MockClock

from fedd.core import mdns
from fedd.core.certificates import federation_id, issue_certificate, make_chain
from fedd.core.dns_messages import ANY, PTR, DnsMessage, Question, decode_message, encode_message
from fedd.core.identity import PrivateKey
from fedd.core.verdicts import State
from fedd.net import discovery as discovery_module
from fedd.net.discovery import MAX_FELLOWS, MAX_STRANGERS, Discovery
from fedd.net.federation import FederationIdentity
from fedd.net.interfaces import Interface
from fedd.net.multicast import Heard
from fedd.net.own_addresses import LOOK_EVERY_S, OwnAddresses, tellable
from fedd.net.presence import Presence
from fedd.net.swarm import Swarm
from fedd.net.transport import parse_multiaddr

ETH = Interface("eth0", 2, False, True, ipv4=("192.0.2.1",), ipv6=("2001:db8::1",), has_ipv6=True)
WLAN = Interface("wlan0", 3, False, True, ipv4=("198.51.100.1",))
TUNNEL = Interface("tun0", 4, False, False, ipv4=("203.0.113.1",))
LO = Interface("lo", 1, True, True, ipv4=("127.0.0.1",), ipv6=("::1",), has_ipv6=True)
FEDERATION, ANOTHER = "ab" * 32, "cd" * 32
KEYS = [PrivateKey.from_seed(bytes([number]) * 32) for number in range(1, 6)]


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
            self.swarm,  # type: ignore[arg-type]
            self.presence,  # type: ignore[arg-type]
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


@pytest.fixture
def world() -> World:
    return World("/ip4/192.0.2.1/tcp/4747", "/ip6/2001:db8::1/tcp/4747", "/ip4/127.0.0.1/tcp/4747")


async def run_for(world: World, seconds: float, then: Callable[[], None] = lambda: None) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.discovery.run)
        await trio.sleep(seconds)
        then()
        nursery.cancel_scope.cancel()


# -- where it is heard


async def test_it_speaks_where_it_can_be_dialled_and_tells_what_is_there(
    world: World, autojump_clock: MockClock
) -> None:
    world.discovery.look([ETH, WLAN, TUNNEL, LO])
    assert world.lan.wanted == ["eth0", "lo"]
    await run_for(world, 0.5)
    (found,) = mdns.found_in(decode_message(world.lan.last_answer(2)), FEDERATION)
    assert found.is_fellow
    assert found.addresses == (world.swarm.addresses[0], world.swarm.addresses[1])
    (found,) = mdns.found_in(decode_message(world.lan.last_answer(1)), FEDERATION)
    assert found.addresses == (world.swarm.addresses[2],)


async def test_who_listens_on_the_loopback_only_is_not_heard_outside(autojump_clock: MockClock) -> None:
    world = World("/ip4/127.0.0.1/tcp/4747")
    world.discovery.look([ETH, WLAN, LO])
    assert world.lan.wanted == ["lo"]
    await run_for(world, 100.0)
    assert {index for _, index, _ in world.lan.sent} == {LO.index}


async def test_who_cannot_be_dialled_asks_and_does_not_answer(autojump_clock: MockClock) -> None:
    world = World()
    world.discovery.look([ETH, TUNNEL, LO])
    assert world.lan.wanted == ["eth0"]

    def ask() -> None:
        world.lan.heard(2, mdns.encode_query())
        world.lan.heard(2, announced(1, "/ip4/192.0.2.9/tcp/1"))

    await run_for(world, 0.5, ask)
    assert world.lan.queries() == [0.0]
    assert world.lan.answers() == []
    assert len(world.presence.hints) == 1


async def test_a_machine_of_very_many_interfaces_is_heard_on_some(
    world: World, autojump_clock: MockClock
) -> None:
    many = [replace(ETH, name=f"eth{n}", index=n, ipv4=(f"192.0.2.{n}",)) for n in range(1, 100)]
    world.swarm.addresses = [f"/ip4/192.0.2.{n}/tcp/1/p2p/{world.swarm.peer_id}" for n in range(1, 100)]
    world.discovery.look(many)
    assert len(world.lan.wanted) == discovery_module.MAX_INTERFACES


async def test_an_address_that_comes_late_is_told_and_asked_from_at_once(
    world: World, autojump_clock: MockClock
) -> None:
    world.discovery.look([])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.discovery.run)
        await trio.sleep(40)
        assert world.lan.sent == []
        world.discovery.look([ETH])
        await trio.sleep(0.5)
        assert world.lan.queries() == [40.0]
        assert len(world.lan.answers()) == 1
        world.discovery.look([ETH])  # nothing new
        await trio.sleep(0.4)
        assert len(world.lan.sent) == 2
        nursery.cancel_scope.cancel()


async def test_an_interface_that_goes_takes_what_it_told_with_it(
    world: World, autojump_clock: MockClock
) -> None:
    world.swarm.addresses.append(f"/ip4/198.51.100.1/tcp/4747/p2p/{world.swarm.peer_id}")
    world.discovery.look([ETH, WLAN])

    def hear() -> None:
        world.lan.heard(2, announced(1, "/ip4/192.0.2.9/tcp/1"))
        world.lan.heard(3, announced(1, "/ip4/198.51.100.9/tcp/1"))
        world.lan.heard(3, announced(2, "/ip4/198.51.100.8/tcp/1", federation=None))
        world.discovery.look([ETH])

    await run_for(world, 1.0, hear)
    peer = KEYS[1].peer_id
    assert world.presence.hints[-1][1] == (
        f"/ip4/192.0.2.9/tcp/1/p2p/{peer}",
        f"/ip4/198.51.100.9/tcp/1/p2p/{peer}",
    )
    assert world.discovery.found() == {peer: (f"/ip4/192.0.2.9/tcp/1/p2p/{peer}",)}
    world.lan.heard(3, announced(3, "/ip4/198.51.100.7/tcp/1"))  # not in use any more
    assert KEYS[3].peer_id not in world.discovery.found()


# -- how often


async def test_a_lonely_node_asks_at_once_and_then_ever_less(world: World, autojump_clock: MockClock) -> None:
    world.discovery.look([ETH])
    await run_for(world, 200.0)
    asked = world.lan.queries()
    assert asked[0] == 0.0
    gaps = [later - sooner for sooner, later in itertools.pairwise(asked)]
    for gap, expected in zip(gaps, (1, 3, 9, 27, 60, 60), strict=False):
        assert 0.7 * expected <= gap <= 1.3 * expected + 1.0
    assert len(asked) <= 9


async def test_losing_all_links_makes_it_ask_at_once(world: World, autojump_clock: MockClock) -> None:
    world.discovery.look([ETH])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.discovery.run)
        await trio.sleep(0.5)
        world.presence.has_links = True
        await trio.sleep(100)
        assert len(world.lan.queries()) == 1
        world.presence.has_links = False
        start = trio.current_time()
        await trio.sleep(20)
        assert world.lan.queries()[1] - start <= 1.01
        assert len(world.lan.queries()) >= 4
        nursery.cancel_scope.cancel()


async def test_without_a_federation_nobody_is_looked_for(autojump_clock: MockClock) -> None:
    world = World("/ip4/192.0.2.1/tcp/4747", federation=None)
    world.discovery.look([ETH])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.discovery.run)
        await trio.sleep(50)
        assert world.lan.queries() == []
        assert len(world.lan.answers()) == 1  # who asks for peers may find it all the same
        world.lan.heard(2, announced(1, "/ip4/192.0.2.9/tcp/1"))
        assert world.presence.hints == []
        world.presence.federation = FakeFederation(FEDERATION)
        await trio.sleep(1.2)
        assert 50.0 <= world.lan.queries()[0] <= 51.01
        (found,) = mdns.found_in(decode_message(world.lan.last_answer(2)), FEDERATION)
        assert found.is_fellow
        assert len(world.presence.hints) == 1  # what was heard before is judged by it
        world.lan.heard(2, announced(1, "/ip4/192.0.2.9/tcp/1"))
        assert len(world.presence.hints) == 2
        nursery.cancel_scope.cancel()


async def test_many_queries_get_few_answers(world: World, autojump_clock: MockClock) -> None:
    world.discovery.look([ETH, LO])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.discovery.run)
        await trio.sleep(5)
        before = len(world.lan.answers(2))
        start = trio.current_time()
        for _ in range(100):
            world.lan.heard(2, mdns.encode_query())
            await trio.sleep(0.05)
        await trio.sleep(2)
        answers = world.lan.answers(2)[before:]
        assert len(answers) <= 7
        assert 0.02 <= answers[0] - start <= 0.13
        gaps = [later - sooner for sooner, later in itertools.pairwise(answers)]
        assert min(gaps) >= mdns.ANSWER_EVERY_S
        assert all(at < start for at in world.lan.answers(1))  # nobody asked there
        nursery.cancel_scope.cancel()


async def test_it_answers_for_its_own_records_and_its_service(
    world: World, autojump_clock: MockClock
) -> None:
    world.discovery.look([ETH])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.discovery.run)
        await trio.sleep(5)
        (answer,) = decode_message(world.lan.last_answer(2)).answers
        instance = answer.data.target  # type: ignore[union-attr]
        assert len(instance[0]) >= 32
        count = len(world.lan.answers())
        world.lan.heard(2, encode_message(DnsMessage(questions=(Question(instance, ANY),))))
        await trio.sleep(0.2)
        assert len(world.lan.answers()) == count + 1
        world.lan.heard(2, encode_message(DnsMessage(questions=(Question(mdns.SERVICES, PTR),))))
        assert world.lan.sent[-1][2] == mdns.encode_services()
        nursery.cancel_scope.cancel()


# -- who is found


async def test_a_fellow_is_hinted_and_a_stranger_is_not(world: World, autojump_clock: MockClock) -> None:
    world.discovery.look([ETH])

    def hear() -> None:
        world.lan.heard(2, announced(1, "/ip4/192.0.2.9/tcp/1"))
        world.lan.heard(2, announced(2, "/ip4/192.0.2.8/tcp/1", federation=ANOTHER))
        world.lan.heard(2, announced(3, "/ip4/192.0.2.7/tcp/1", federation=None))

    await run_for(world, 0.5, hear)
    peers = [key.peer_id for key in KEYS]
    assert world.presence.hints == [(peers[1], (f"/ip4/192.0.2.9/tcp/1/p2p/{peers[1]}",))]
    assert set(world.discovery.found()) == set(peers[1:4])


async def test_the_living_need_no_hint_and_the_dead_do(world: World, autojump_clock: MockClock) -> None:
    world.discovery.look([ETH])
    peer = KEYS[1].peer_id
    world.presence.states[peer] = "alive"

    def hear() -> None:
        world.lan.heard(2, announced(1, "/ip4/192.0.2.9/tcp/1"))
        assert world.presence.hints == []
        world.presence.states[peer] = "dead"
        world.lan.heard(2, announced(1, "/ip4/192.0.2.10/tcp/1"))

    await run_for(world, 0.5, hear)
    assert world.presence.hints == [(peer, (f"/ip4/192.0.2.10/tcp/1/p2p/{peer}",))]


async def test_a_stranger_cannot_speak_for_a_fellow(world: World, autojump_clock: MockClock) -> None:
    world.discovery.look([ETH])

    def hear() -> None:
        world.lan.heard(2, announced(2, "/ip4/192.0.2.66/tcp/1", federation=None))
        world.lan.heard(2, announced(2, "/ip4/192.0.2.9/tcp/1"))
        world.lan.heard(2, announced(2, "/ip4/192.0.2.66/tcp/1", federation=None))

    await run_for(world, 0.5, hear)
    peer = KEYS[2].peer_id
    assert world.discovery.found() == {peer: (f"/ip4/192.0.2.9/tcp/1/p2p/{peer}",)}


async def test_its_own_words_are_nobodys(world: World, autojump_clock: MockClock) -> None:
    world.discovery.look([ETH])

    def hear() -> None:
        for _, index, data in list(world.lan.sent):  # multicast comes back to who sent it
            world.lan.heard(index, data)
        world.lan.heard(2, announced(0, "/ip4/192.0.2.66/tcp/1"))  # somebody else with this node's id

    await run_for(world, 0.5, hear)
    assert world.discovery.found() == {}
    assert world.presence.hints == []


@pytest.mark.parametrize(
    "address",
    [
        "/dns4/evil.example/tcp/1",
        "/dnsaddr/evil.example",
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/224.0.0.1/tcp/1",
        "/ip4/192.0.2.9/tcp/0",
        "/ip6/fe80::1/tcp/1",
        "/ip6/::1/tcp/1",
        "/memory/1",
        "/ip4/192.0.2.9/udp/1/quic-v1",
    ],
)
async def test_addresses_that_cannot_be_meant_are_left_out(
    world: World, autojump_clock: MockClock, address: str
) -> None:
    world.discovery.look([ETH])
    await run_for(world, 0.5, lambda: world.lan.heard(2, announced(1, address)))
    assert world.discovery.found() == {}


async def test_the_loopback_is_meant_on_the_loopback(world: World, autojump_clock: MockClock) -> None:
    world.discovery.look([LO])
    await run_for(world, 0.5, lambda: world.lan.heard(1, announced(1, "/ip4/127.0.0.1/tcp/1")))
    assert len(world.presence.hints) == 1


async def test_a_crowd_is_bounded(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery_module, "MAX_FELLOWS", 20)
    world.discovery.look([ETH])

    def hear() -> None:
        for number in range(100, 170):
            world.lan.heard(2, announced(number, "/ip4/192.0.2.9/tcp/1"))
            world.lan.heard(2, announced(number + 100, "/ip4/192.0.2.9/tcp/1", federation=None))

    await run_for(world, 0.5, hear)
    assert len(world.discovery._fellows) == 20
    assert len(world.discovery._strangers) == MAX_STRANGERS
    assert MAX_FELLOWS > MAX_STRANGERS
    assert len(world.presence.hints) == discovery_module.HINTS_BURST
    bounds = {bound.name: bound for bound in world.discovery.bounds()}
    assert bounds["mdns_hints"].reached == 70 - discovery_module.HINTS_BURST
    assert bounds["mdns_strangers"].present == MAX_STRANGERS


async def test_a_flood_is_not_read(world: World, autojump_clock: MockClock) -> None:
    world.discovery.look([ETH])
    flood = discovery_module.READS_BURST + 100

    def hear() -> None:
        for _ in range(flood):
            world.lan.heard(2, announced(1, "/ip4/192.0.2.9/tcp/1"))

    await run_for(world, 0.5, hear)
    bounds = {bound.name: bound for bound in world.discovery.bounds()}
    assert bounds["mdns_messages"].reached == 100
    assert bounds["mdns_messages"].present == discovery_module.READS_BURST


async def test_nonsense_and_printers_are_passed_over(world: World, autojump_clock: MockClock) -> None:
    world.discovery.look([ETH])

    def hear() -> None:
        world.lan.heard(2, b"\x04_p2p and then nonsense")
        for _ in range(1000):
            world.lan.heard(2, b"\x04_ipp and then nonsense")

    await run_for(world, 0.5, hear)
    assert world.discovery.found() == {}
    (bound,) = [bound for bound in world.discovery.bounds() if bound.name == "mdns_messages"]
    assert bound.reached == 0


async def test_a_mistake_of_ours_costs_one_message(
    world: World,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    world.discovery.look([ETH])

    def hint(peer: str, addresses: Sequence[str]) -> None:
        raise ZeroDivisionError

    def hear() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(world.presence, "hint", hint)
            world.lan.heard(2, announced(1, "/ip4/192.0.2.9/tcp/1"))
        world.lan.heard(2, announced(2, "/ip4/192.0.2.8/tcp/1"))

    await run_for(world, 0.5, hear)
    assert len(world.presence.hints) == 1
    assert "could not be taken" in caplog.text


# -- when it does not work


@contextmanager
def lines_of(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    with caplog.at_level(logging.INFO, logger="fedd"):
        lines: list[str] = []
        yield lines
        lines += [record.message for record in caplog.records]


async def test_a_network_without_multicast_costs_one_line(
    world: World, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with lines_of(caplog) as lines:
        world.lan.problems = ["no multicast over IPv4: forbidden"]
        for _ in range(5):
            world.discovery.look([ETH])
        world.lan.problems = []
        world.discovery.look([ETH])
        world.discovery.look([ETH])
    assert lines == [
        "peers on the local network cannot be found: no multicast over IPv4: forbidden; trying on",
        "peers on the local network can be found again",
    ]


async def test_a_network_that_is_down_is_tried_on_quietly(
    world: World, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    world.lan.down = True
    world.discovery.look([ETH])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.discovery.run)
        with lines_of(caplog) as lines:
            await trio.sleep(300)
        assert lines == []
        world.lan.down = False
        await trio.sleep(80)
        assert world.lan.queries()
        nursery.cancel_scope.cancel()


# -- where this node is


def test_the_loopback_is_told_only_when_there_is_nothing_else() -> None:
    lo, six, lan = "/ip4/127.0.0.1/tcp/1/p2p/x", "/ip6/::1/tcp/1/p2p/x", "/ip4/192.0.2.1/tcp/1/p2p/x"
    assert tellable([lan, lo, six]) == (lan,)
    assert tellable([lo, six]) == (lo, six)
    assert tellable([]) == ()
    assert len(tellable([f"/ip4/192.0.2.{n}/tcp/1" for n in range(99)])) == 8


class Machine:
    """Interfaces that come, go and cannot be seen."""

    def __init__(self) -> None:
        self.interfaces = [LO]
        self.error: OSError | None = None
        self.looked: list[float] = []

    def look(self) -> list[Interface]:
        self.looked.append(trio.current_time())
        if self.error is not None:
            raise self.error
        return self.interfaces


async def test_interfaces_are_looked_at_again_and_again(
    world: World, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine()
    own = OwnAddresses(world.swarm, world.presence, look=machine.look)  # type: ignore[arg-type]
    seen: list[list[Interface]] = []
    own.subscribe(seen.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(own.run)
        assert machine.looked == [0.0]
        await trio.sleep(2.5 * LOOK_EVERY_S)
        assert machine.looked == [0.0, LOOK_EVERY_S, 2 * LOOK_EVERY_S]
        assert world.presence.told == 0
        world.swarm.refreshed = True
        own.look()
        assert world.presence.told == 1
        assert seen == [[LO]] * 4
        with lines_of(caplog) as lines:
            machine.error = OSError(24, "Too many open files")
            own.look()
            own.look()
        assert [line for line in lines if "cannot see" in line] == [
            "cannot see this machine's network interfaces: [Errno 24] Too many open files"
        ]
        assert len(seen) == 4
        nursery.cancel_scope.cancel()


class FakeConnection:
    """A connection from an address of this machine."""

    def __init__(self, host: str) -> None:
        self.wire = self
        self.local_address = parse_multiaddr(f"/ip4/{host}/tcp/1")
        self.ended: list[str] = []

    def end(self, reason: str) -> None:
        self.ended.append(reason)


def test_connections_from_an_address_that_is_gone_are_ended(world: World) -> None:
    machine = Machine()
    machine.interfaces = [ETH, LO]
    own = OwnAddresses(world.swarm, world.presence, look=lambda: machine.interfaces)  # type: ignore[arg-type]
    there, elsewhere = FakeConnection("192.0.2.1"), FakeConnection("203.0.113.9")
    world.swarm.all_connections = frozenset({there, elsewhere})
    own.look()
    own.look()
    assert there.ended == []
    machine.interfaces = [replace(ETH, ipv4=("192.0.2.2",)), LO]
    own.look()
    own.look()
    assert there.ended == ["error: this node is no longer at 192.0.2.1"]
    assert elsewhere.ended == []  # relayed, or otherwise not by an address that was seen here


def identity(key: PrivateKey) -> FederationIdentity:
    root = PrivateKey.from_seed(bytes([99]) * 32)
    certificate = issue_certificate(
        root, federation=federation_id(root.public_key), name="plant", peer_id=key.peer_id, serial=1
    )
    return FederationIdentity.from_chain(make_chain(certificate), federation_id(root.public_key), key.peer_id)


class Air:
    """A network on which several discoveries hear each other, themselves included."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []

    def use(self, wanted: Sequence[Interface]) -> list[str]:
        return []

    def send(self, index: int, data: bytes) -> None:
        for heard in self.heard:
            heard(index, data)

    async def run(self, heard: Heard) -> None:
        self.heard.append(heard)
        await trio.sleep_forever()


async def test_two_that_know_nothing_but_their_federation_link_within_three_seconds() -> None:
    """Real swarms on loopback, a network in memory for multicast."""
    air = Air()
    presences = []
    async with trio.open_nursery() as nursery:
        for number, key in enumerate(KEYS[:2]):
            swarm = Swarm(key)
            presence = Presence(swarm, key, MemoryStore(), rng=random.Random(number))
            finder = Discovery(swarm, presence, lan=air, rng=random.Random(number))
            await nursery.start(swarm.run)
            await swarm.listen("/ip4/127.0.0.1/tcp/0")
            presence.enter(identity(key))
            await nursery.start(presence.run)
            nursery.start_soon(finder.run)
            finder.look([LO])
            presences.append(presence)
        with trio.fail_after(3):
            await presences[0].wait_linked(KEYS[1].peer_id, 3)
            await presences[1].wait_linked(KEYS[0].peer_id, 3)
        nursery.cancel_scope.cancel()
