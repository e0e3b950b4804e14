"""Discovery on a network in memory: who is found, who is dialled, how often is asked, what is bounded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio
from net.discovery_world import (
    ANOTHER,
    ETH,
    FEDERATION,
    KEYS,
    LO,
    TUNNEL,
    WLAN,
    FakeFederation,
    World,
    announced,
    lines_of,
    run_for,
)
from trio.testing import MockClock

from fedd.core import mdns
from fedd.core.dns_messages import ANY, PTR, DnsMessage, Question, decode_message, encode_message
from fedd.net import discovery as discovery_module
from fedd.net.discovery import MAX_FELLOWS, MAX_STRANGERS


@pytest.fixture
def world() -> World:
    return World("/ip4/192.0.2.1/tcp/4747", "/ip6/2001:db8::1/tcp/4747", "/ip4/127.0.0.1/tcp/4747")


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
        instance = answer.data.target
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
