"""What is heard on the local network while nothing waits for it is read later, and once."""

from __future__ import annotations

import pytest
import trio
from net.discovery_world import ETH, KEYS, WLAN, World, announced, taken_apart
from trio.testing import MockClock

from fedd.core import mdns
from fedd.core.dns_messages import ANY, DnsMessage, Question, encode_message
from fedd.net.discovery import MAX_UNREAD, NOTICE_S, PATIENT_S

WORDS = announced(1, "/ip4/192.0.2.9/tcp/1")


@pytest.fixture
def world() -> World:
    world = World("/ip4/192.0.2.1/tcp/4747", "/ip4/198.51.100.1/tcp/4747")
    world.presence.has_links = True
    return world


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    return taken_apart(monkeypatch)


async def running(world: World, nursery: trio.Nursery) -> None:
    world.discovery.look([ETH, WLAN])
    nursery.start_soon(world.discovery.run)
    await trio.sleep(0.5)


async def test_with_links_an_answer_is_read_later_and_once(
    world: World, read: list[bytes], autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        await running(world, nursery)
        world.lan.heard(2, WORDS)
        world.lan.heard(2, WORDS)  # over the other family
        await trio.sleep(PATIENT_S - 0.1)
        assert read == []
        await trio.sleep(NOTICE_S + 0.2)
        assert read == [WORDS]
        assert [peer for peer, _ in world.presence.hints] == [KEYS[1].peer_id]
        nursery.cancel_scope.cancel()


async def test_who_loses_its_links_reads_at_once_what_has_waited(
    world: World, read: list[bytes], autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        await running(world, nursery)
        world.lan.heard(2, WORDS)
        world.presence.has_links = False
        await trio.sleep(NOTICE_S + 0.1)
        assert read == [WORDS]
        world.lan.heard(3, WORDS)
        assert read == [WORDS, WORDS]
        nursery.cancel_scope.cancel()


async def test_questions_do_not_wait_and_the_usual_one_is_not_taken_apart(
    world: World, read: list[bytes], autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        await running(world, nursery)
        before = len(world.lan.answers())
        read.clear()
        world.lan.heard(2, mdns.encode_query())
        assert read == []
        await trio.sleep(mdns.ANSWER_EVERY_S + 0.2)
        assert len(world.lan.answers()) == before + 1
        read.clear()
        other = encode_message(DnsMessage(questions=(Question(mdns.SERVICE, ANY),)))
        world.lan.heard(2, other)
        assert read == [other]
        nursery.cancel_scope.cancel()


async def test_what_waits_is_bounded_and_told(
    world: World, read: list[bytes], autojump_clock: MockClock
) -> None:
    def unread() -> int:
        (bound,) = (each for each in world.discovery.bounds() if each.name == "mdns_messages")
        return bound.reached

    async with trio.open_nursery() as nursery:
        await running(world, nursery)
        for number in range(MAX_UNREAD):
            world.lan.heard(2, announced(1, f"/ip4/192.0.2.9/tcp/{number + 1}"))
        world.lan.heard(2, announced(1, "/ip4/192.0.2.9/tcp/1"))  # it waits already
        assert unread() == 0
        world.lan.heard(2, announced(1, "/ip4/192.0.2.10/tcp/1"))
        assert unread() == 1
        await trio.sleep(PATIENT_S + NOTICE_S + 0.1)
        assert 0 < len(read) < MAX_UNREAD  # at the pace of all reading
        assert unread() == 1 + MAX_UNREAD - len(read)
        nursery.cancel_scope.cancel()


async def test_what_came_over_an_interface_that_is_gone_is_not_read(
    world: World, read: list[bytes], autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        await running(world, nursery)
        world.lan.heard(2, WORDS)
        world.discovery.look([WLAN])
        await trio.sleep(PATIENT_S + NOTICE_S + 0.1)
        assert read == []
        assert world.discovery.found() == {}
        nursery.cancel_scope.cancel()
