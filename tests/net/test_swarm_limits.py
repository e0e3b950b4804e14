"""How many connections and streams there may be, and listeners over TCP."""

from __future__ import annotations

import contextlib

import pytest
import trio
import trio.testing
from net.links import KEYS, Links, connected, running
from net.test_swarm import Clock, echo, settle

from fedd.api.errors import (
    Conflict,
    Denied,
    NotConnected,
    Refused,
    TimedOut,
    Unhealthy,
)
from fedd.net.swarm import Swarm, SwarmLimits
from fedd.net.transport import Address
from fedd.net.upgrade import Secured


async def silent_wires(links: Links, count: int, number: int = 1) -> list[object]:
    return [await links.network.connect(Address("memory", "", number)) for _ in range(count)]


async def test_half_open_connections_are_few_and_short(autojump_clock: Clock) -> None:
    limits = SwarmLimits(pending_handshakes=20, pending_handshakes_per_address=3)
    async with running(limits=limits) as links:
        a, b = links.swarms
        start = trio.current_time()
        await silent_wires(links, 30)
        await trio.testing.wait_all_tasks_blocked()
        assert a.doors.pending == 3
        with pytest.raises((NotConnected, TimedOut)):
            await b.dial(a.addresses)  # all from one address: it waits in vain for a seat
        await trio.sleep_until(start + 10.5)
        assert a.doors.pending == 0
        await b.dial(a.addresses)


async def test_a_busy_door_is_tried_again(autojump_clock: Clock) -> None:
    limits = SwarmLimits(pending_handshakes_per_address=1, handshake_s=1.0)
    async with running(limits=limits) as links:
        a, b = links.swarms
        await silent_wires(links, 1)
        await trio.testing.wait_all_tasks_blocked()
        connection = await b.dial(a.addresses)
        assert len(links.network.wires) > 2
        assert not connection.closed


async def test_a_quarter_of_the_seats_is_for_members(autojump_clock: Clock) -> None:
    limits = SwarmLimits(connections=4)
    assert limits.strangers == 3
    async with running(7, limits=limits, members=False) as links:
        hub, *others = links.swarms
        hub.member_check = lambda peer_id: peer_id == others[-1].peer_id
        for other in others[:3]:
            await other.dial(hub.addresses)
        with contextlib.suppress(NotConnected):  # it learns after its last word that there is no seat
            await others[3].dial(hub.addresses)
        await settle()
        assert not others[3].connections
        with pytest.raises(Unhealthy, match="no seat"):
            await hub.dial(others[4].addresses)
        await others[-1].dial(hub.addresses)
        await settle()
        assert others[-1].peer_id in hub.connections
        assert len(hub.connections) == 4


async def test_strangers_have_few_streams(autojump_clock: Clock) -> None:
    async with running(members=False, limits=SwarmLimits(streams_per_stranger=2)) as links:
        a, b = links.swarms
        b.handle("/echo", echo, "anyone")
        await connected(links)
        first = await a.open_stream(b.peer_id, "/echo")
        await a.open_stream(b.peer_id, "/echo")
        with pytest.raises(Refused):
            await a.open_stream(b.peer_id, "/echo")
        await first.aclose()
        await settle()
        await a.open_stream(b.peer_id, "/echo")


async def test_idle_strangers_give_their_seats_back(autojump_clock: Clock) -> None:
    async with running(4, members=False) as links:
        hub, member, stranger, busy = links.swarms
        hub.handle("/echo", echo, "anyone")
        hub.member_check = lambda peer_id: peer_id == member.peer_id
        for swarm in (member, stranger, busy):
            await swarm.dial(hub.addresses)
        stream = await busy.open_stream(hub.peer_id, "/echo")
        await trio.sleep(10)
        assert len(hub.connections) == 3
        await trio.sleep(15)
        assert set(hub.connections) == {member.peer_id, busy.peer_id}
        assert not stranger.connections
        await stream.send_all(b"still there")
        await trio.sleep(100)  # its lease ends, however busy it is
        assert set(hub.connections) == {member.peer_id}


async def test_a_listener_without_descriptors_rests_and_goes_on(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as links:
        a, b = links.swarms
        listener = a._listeners[0]
        real, failures = listener.accept, [Unhealthy("cannot accept connections")]

        async def accept() -> object:
            if failures:
                raise failures.pop()
            return await real()

        await b.dial(a.addresses)
        listener.accept = accept
        await silent_wires(links, 1)
        await settle()
        await silent_wires(links, 1)
        await settle()
        assert "cannot accept connections" in caplog.text


async def test_listeners_end_when_they_are_closed() -> None:
    async with trio.open_nursery() as nursery:
        swarm = Swarm(KEYS[0])
        await nursery.start(swarm.run)
        await swarm.listen("/ip4/127.0.0.1/tcp/0")
        await trio.testing.wait_all_tasks_blocked()
        tasks = len(swarm._running().child_tasks)
        swarm._listeners[0].close()
        await trio.testing.wait_all_tasks_blocked()
        assert len(swarm._running().child_tasks) == tasks - 1
        nursery.cancel_scope.cancel()


async def test_a_connection_to_oneself_is_not_admitted(autojump_clock: Clock) -> None:
    async with running() as links:
        connection, _ = await connected(links)
        swarm = links.swarms[1]
        secured = Secured(connection.wire, swarm.peer_id, connection.writer._transport, b"", b"")
        with pytest.raises(Denied, match="to itself"):
            swarm._admit(secured, "in")


async def test_another_dial_helps_the_one_under_way(autojump_clock: Clock) -> None:
    """Whoever dials the same peer meanwhile adds its addresses, and both have the connection."""
    async with running(latency_s=0.1) as links:
        a, b = links.swarms
        silent = await links.network.listen(Address("memory", "", 50))

        made = []

        async def helped() -> None:
            made.append(await a.dial(["/memory/50"], peer_id=b.peer_id))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(helped)
            await trio.sleep(1)
            made.append(await a.dial(b.addresses))
        assert made == [a.connections[b.peer_id]] * 2
        silent.close()


# ---- over TCP -------------------------------------------------------------------------


async def test_many_diallers_from_one_address_all_get_in() -> None:
    """They find the door busy, which over TCP is often a reset, and come again."""
    limits = SwarmLimits(pending_handshakes_per_address=2)
    async with trio.open_nursery() as nursery:
        hub, *others = (Swarm(key, limits) for key in KEYS[:13])
        for swarm in (hub, *others):
            await nursery.start(swarm.run)
        await hub.listen("/ip4/127.0.0.1/tcp/0")
        async with trio.open_nursery() as dialling:
            for other in others:
                dialling.start_soon(other.dial, hub.addresses)
        assert all(hub.peer_id in other.connections for other in others)
        nursery.cancel_scope.cancel()


async def test_swarms_over_tcp() -> None:
    async with trio.open_nursery() as nursery:
        a, b = Swarm(KEYS[0]), Swarm(KEYS[1])
        for swarm in (a, b):
            swarm.member_check = lambda peer_id: True
            swarm.handle("/echo", echo)
            await nursery.start(swarm.run)
        (address,) = await b.listen("/ip4/127.0.0.1/tcp/0")
        assert address.endswith(f"/p2p/{b.peer_id}")
        assert b.addresses == [address]
        with pytest.raises(Conflict, match="in use"):
            await a.listen(address.split("/p2p/")[0])
        connection = await a.dial([address])
        stream = await a.open_stream(b.peer_id, "/echo")
        payload = bytes(range(256)) * 20_000
        async with trio.open_nursery() as sending:
            sending.start_soon(stream.send_all, payload)
            assert await stream.receive_exactly(len(payload)) == payload
        assert connection.bytes_out > len(payload)
        assert connection.remote_address == address.split("/p2p/")[0]
        down = trio.Event()
        b.subscribe(lambda kind, link, why: down.set())
        await a.disconnect(b.peer_id)
        with trio.fail_after(5):
            await down.wait()
        assert not b.connections
        nursery.cancel_scope.cancel()
