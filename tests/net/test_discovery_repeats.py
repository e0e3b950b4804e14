"""In a crowd the living say the same again and again: that is not taken apart each time."""

from __future__ import annotations

import pytest
from net.discovery_world import (
    ANOTHER,
    ETH,
    FEDERATION,
    KEYS,
    WLAN,
    FakeFederation,
    World,
    announced,
    run_for,
    taken_apart,
)
from trio.testing import MockClock

from fedd.net import discovery

PEER = KEYS[1].peer_id
WORDS = announced(1, "/ip4/192.0.2.9/tcp/1")


@pytest.fixture
def world() -> World:
    return World("/ip4/192.0.2.1/tcp/4747", "/ip4/198.51.100.1/tcp/4747")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    return taken_apart(monkeypatch)


async def test_a_living_fellow_is_read_once_a_wording(
    world: World, read: list[bytes], autojump_clock: MockClock
) -> None:
    world.discovery.look([ETH, WLAN])
    moved = announced(1, "/ip4/192.0.2.10/tcp/1")

    def hear() -> None:
        world.lan.heard(2, WORDS)
        world.presence.states[PEER] = "alive"
        for data in (WORDS, WORDS, moved, moved):
            world.lan.heard(2, data)
        assert read == [WORDS, moved]
        world.lan.heard(2, WORDS)  # back again
        world.lan.heard(3, WORDS)  # the same elsewhere is news
        assert read == [WORDS, moved, WORDS, WORDS]
        world.presence.states[PEER] = "dead"
        world.lan.heard(2, WORDS)
        assert len(read) == 5
        assert len(world.presence.hints) == 2

    await run_for(world, 0.5, hear)


async def test_in_another_federation_everything_is_news(
    world: World, read: list[bytes], autojump_clock: MockClock
) -> None:
    world.discovery.look([ETH])
    world.presence.states[PEER] = "alive"

    def hear() -> None:
        world.lan.heard(2, WORDS)
        for identifier in (ANOTHER, FEDERATION):
            world.presence.federation = FakeFederation(identifier)
            world.discovery._check_federation(0.0)
        world.lan.heard(2, WORDS)
        assert read == [WORDS, WORDS]

    await run_for(world, 0.5, hear)


async def test_what_is_remembered_is_bounded(world: World, autojump_clock: MockClock) -> None:
    world.discovery.look([ETH])
    for number in range(discovery.MAX_FELLOWS + 9):
        world.discovery._remember(2, f"peer{number}", b"%d" % number)
    assert len(world.discovery._said) == len(world.discovery._repeats) == discovery.MAX_FELLOWS
    assert (2, b"8") not in world.discovery._repeats
    assert (2, b"9") in world.discovery._repeats
