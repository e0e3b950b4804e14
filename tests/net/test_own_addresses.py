"""Where this node is: its interfaces are looked at again and again, and what goes with one that is gone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from net.discovery_world import ETH, LO, FakeConnection, World, lines_of
from trio.testing import MockClock

from fedd.net.interfaces import Interface
from fedd.net.own_addresses import LOOK_EVERY_S, OwnAddresses, tellable


@pytest.fixture
def world() -> World:
    return World("/ip4/192.0.2.1/tcp/4747", "/ip6/2001:db8::1/tcp/4747", "/ip4/127.0.0.1/tcp/4747")


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
    own = OwnAddresses(world.swarm, world.presence, look=machine.look)
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


def test_connections_from_an_address_that_is_gone_are_ended(world: World) -> None:
    machine = Machine()
    machine.interfaces = [ETH, LO]
    own = OwnAddresses(world.swarm, world.presence, look=lambda: machine.interfaces)
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
