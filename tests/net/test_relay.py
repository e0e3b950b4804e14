"""Devices that cannot be dialled reach each other through a member that both are linked with."""

from __future__ import annotations

import contextlib

import pytest
import trio
import trio.testing
from net.relays import ECHO, Device, devices, echoes
from waiting import until

from fedd.api.errors import Conflict, NotConnected
from fedd.core.identity import PrivateKey
from fedd.core.presence_messages import encode_message
from fedd.net.circuits import RelayLimits
from fedd.net.ping import ping
from fedd.net.relay import DIRECT_S
from fedd.net.stream import Stream

Clock = trio.testing.MockClock


async def test_two_that_cannot_be_dialled_exchange_through_a_third(autojump_clock: Clock) -> None:
    async with devices(1, 2) as (gateway, a, b):
        assert a.link_to(b) == "indirect"
        connection = await a.relay.reach(b.id, 5.0)
        assert connection.relayed_by == gateway.id
        assert connection.remote_address.endswith(f"/p2p/{gateway.id}/p2p-circuit")
        assert a.link_to(b) == "relayed"
        await until(lambda: b.link_to(a) == "relayed")
        stream = await connection.open_stream(ECHO)
        assert await echoes(stream, b"hello")
        assert await echoes(stream, bytes(range(256)) * 4096)  # 1 MiB: windows, chunks, back-pressure
        back = await b.relay.open_stream(a.id, ECHO)
        assert back.connection.relayed_by == gateway.id
        assert await echoes(back, b"and back")
        assert len(await ping(a.swarm, b.id, 3)) == 3
        circuits, carried = gateway.relay.carried_for(a.id)
        assert circuits == 1
        assert carried > 2 * 1024 * 1024
        assert gateway.relay.carried_for(b.id) == (circuits, carried)


async def test_the_relay_sees_ciphertext_only(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with devices(1, 2) as (gateway, a, b):
        seen: list[bytes] = []
        original = Stream.send_all

        async def spy(stream: Stream, data: bytes) -> None:
            if "relay" in stream.protocol and stream.connection in gateway.swarm.all_connections:
                seen.append(bytes(data))
            await original(stream, data)

        monkeypatch.setattr(Stream, "send_all", spy)
        secret = b"the temperature of furnace 3 is 1204 degrees"
        stream = await a.relay.open_stream(b.id, ECHO)
        assert await echoes(stream, secret)
        assert sum(map(len, seen)) > 2 * len(secret)
        assert secret not in b"".join(seen)


async def test_a_relayed_connection_is_no_link_for_membership(autojump_clock: Clock) -> None:
    async with devices(2, 2) as (_, _, a, b):
        stream = await a.relay.open_stream(b.id, ECHO)
        await trio.sleep(30)
        assert await echoes(stream, b"still there")
        assert not a.presence.is_linked(b.id)
        assert not b.presence.is_linked(a.id)
        assert {view.peer_id: view.last_heard_s for view in a.presence.members()}[b.id] is None
        for device in (a, b):
            for connection in device.relayed():
                assert not [s for s in connection.streams if s.protocol.startswith("/fedd/presence")]


async def test_what_comes_through_a_relay_is_no_news_of_the_other_end(autojump_clock: Clock) -> None:
    """Its time is that of the relay's link: a member is heard on a connection of its own or not at all."""
    async with devices(1, 2) as (one, a, b):
        stream = await a.relay.open_stream(b.id, ECHO)
        begun = trio.current_time()
        await trio.sleep(3)
        assert await echoes(stream, b"still there")
        (relayed,) = a.relayed()
        assert relayed.peer_id == b.id
        assert relayed.last_received > begun
        assert a.presence._heard(b.id, begun) == begun
        direct = a.swarm.direct(one.id)
        assert direct is not None
        assert a.presence._heard(one.id, begun) == direct.last_received > begun
        assert a.presence._heard("nobody", begun) == begun


async def test_presence_over_a_relayed_connection_is_refused(autojump_clock: Clock) -> None:
    async with devices(1, 2) as (_, a, b):
        await a.relay.reach(b.id)
        stream = await a.swarm.open_stream(b.id, "/fedd/presence/1.0.0")
        hello = a.presence._hello(b.id)
        assert hello is not None
        with contextlib.suppress(trio.BrokenResourceError):  # the reset may have come already
            await stream.send_all(encode_message(hello))
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert not await a.presence._table.open(b.id)
        assert not b.presence.is_linked(a.id)


async def test_when_the_relay_dies_another_is_found(autojump_clock: Clock) -> None:
    async with devices(2, 2) as (one, other, a, b):
        connection = await a.relay.reach(b.id)
        relay, spare = (one, other) if connection.relayed_by == one.id else (other, one)
        stream = await connection.open_stream(ECHO)
        assert await echoes(stream, b"before")
        relay.kill()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await until(lambda: connection.closed, 2.0)
        again = await a.relay.reach(b.id)
        assert again.relayed_by == spare.id
        assert await echoes(await again.open_stream(ECHO), b"after")


async def test_a_relay_that_falls_silent_is_dropped_with_its_verdict(autojump_clock: Clock) -> None:
    async with devices(2, 2) as (one, other, a, b):
        connection = await a.relay.reach(b.id)
        relay, spare = (one, other) if connection.relayed_by == one.id else (other, one)
        for link in relay.swarm.all_connections:
            link.wire.hold()  # a MemoryWire
        await until(lambda: a.states()[relay.name] == "dead", 15.0)
        assert connection.closed
        assert relay.name in (connection.close_reason or "")
        assert (await a.relay.reach(b.id)).relayed_by == spare.id


async def test_without_a_common_neighbour_one_is_dialled(autojump_clock: Clock) -> None:
    async with devices(2, 2) as (one, other, a, b):
        # a keeps a link with one alone, b with the other alone
        for device, gone in ((a, other), (b, one)):
            await device.presence.disconnect(gone.id)
        await until(lambda: not a.presence.is_linked(other.id) and not b.presence.is_linked(one.id))
        await until(lambda: a.presence.ways_to(b.id) == [other.id])
        connection = await a.relay.reach(b.id)
        assert connection.relayed_by == other.id
        assert a.presence.is_pinned(other.id)


async def test_pairs_spread_over_the_relays_there_are(autojump_clock: Clock) -> None:
    async with devices(4, 8) as made:
        firsts = {one.presence.ways_to(two.id)[0] for one in made[4:] for two in made[4:] if one is not two}
        assert firsts == {device.id for device in made[:4]}
        assert made[5].presence.ways_to(made[6].id) == made[6].presence.ways_to(made[5].id)


async def test_near_relays_are_asked_first(autojump_clock: Clock) -> None:
    async with devices(3, 2) as (near, far, also_far, a, b):
        links = a.presence._core._links
        for device, rtt_s in ((near, 0.001), (far, 0.2), (also_far, 0.09)):
            links.get(device.id).rtt_s = rtt_s
        assert a.presence.ways_to(b.id) == [near.id, also_far.id, far.id]


async def test_addresses_that_do_not_answer_cost_a_moment_once(autojump_clock: Clock) -> None:
    async with devices(1, 2, announce=("/memory/99",)) as (_, a, b):
        attempts: list[str] = []
        dial = a.swarm.dial

        async def hang(addresses: list[str], peer_id: str) -> object:
            if peer_id == b.id:
                attempts.append(peer_id)
                await trio.sleep_forever()
            return await dial(addresses, peer_id)

        a.swarm.dial = hang
        started_at = trio.current_time()
        connection = await a.relay.reach(b.id)
        assert DIRECT_S <= trio.current_time() - started_at < DIRECT_S + 1
        connection.end("local")
        started_at, tried = trio.current_time(), len(attempts)
        await a.relay.reach(b.id)
        assert trio.current_time() - started_at < 1
        assert len(attempts) == tried


async def test_a_direct_connection_replaces_the_relayed_one_without_losing_streams(
    autojump_clock: Clock,
) -> None:
    async with devices(1, 2) as (_, a, b):
        relayed = await a.relay.reach(b.id)
        streams = [await relayed.open_stream(ECHO), await b.relay.open_stream(a.id, ECHO)]
        for stream in streams:
            assert await echoes(stream, b"relayed")
        (address,) = await b.swarm.listen("/memory/50")
        direct = await a.swarm.dial([address])
        assert direct.relayed_by is None
        assert await a.relay.reach(b.id) is direct
        await until(lambda: b.swarm.direct(a.id) is not None)
        for stream in streams:
            assert await echoes(stream, b"as before")
            assert stream.connection.relayed_by is not None
        assert (await a.swarm.open_stream(b.id, ECHO)).connection is direct
        for stream in streams:
            await stream.aclose()
        await until(lambda: not a.relayed() and not b.relayed(), 15.0)
        await until(lambda: a.link_to(b) == "direct")


async def test_a_relayed_connection_does_not_take_the_place_of_a_direct_one(autojump_clock: Clock) -> None:
    async with devices(2, 1) as (gateway, b, a):
        direct = a.swarm.connections[b.id]
        await a.relay._go_through(gateway.id, b.id)
        assert a.swarm.connections[b.id] is direct
        await until(lambda: not a.relayed() and not b.relayed(), 15.0)
        assert b.swarm.direct(a.id) is not None


async def test_one_that_lost_its_direct_connection_gets_through_before_the_other_knows(
    autojump_clock: Clock,
) -> None:
    async with devices(2, 1) as (gateway, b, a):
        direct = a.swarm.connections[b.id]
        direct.wire.hold()  # a MemoryWire: b does not see it close
        direct.end("local")
        await until(lambda: a.swarm.direct(b.id) is None)
        await a.relay._go_through(gateway.id, b.id)
        stream = await a.swarm.open_stream(b.id, ECHO)
        assert await echoes(stream, b"through the gateway")
        await trio.sleep(5)
        assert await echoes(stream, b"and it stays")


async def reach_often(here: Device, there: Device, count: int) -> None:
    for number in range(count):
        stream = await here.relay.open_stream(there.id, ECHO)
        assert await echoes(stream, bytes([number]) * 100)
        await stream.aclose()


@pytest.mark.parametrize("latency_s", [0.001, 0.05, 0.2])
async def test_both_reach_at_once_and_one_connection_stays(autojump_clock: Clock, latency_s: float) -> None:
    async with devices(2, 2, latency_s=latency_s) as (_, _, a, b):
        for _ in range(4):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reach_often, a, b, 5)
                nursery.start_soon(reach_often, b, a, 5)
            await until(lambda: len(a.relayed()) == len(b.relayed()) == 1, 30.0)
            (mine,), (theirs,) = a.relayed(), b.relayed()
            assert {mine.direction, theirs.direction} == {"in", "out"}
            assert mine.relayed_by == theirs.relayed_by
            mine.end("local")
            await until(lambda: not b.relayed())
            await trio.sleep(20)  # the requests at the relays fade


async def test_many_who_want_the_same_member_share_one_attempt(autojump_clock: Clock) -> None:
    async with devices(1, 2) as (gateway, a, b):
        got = []

        async def one() -> None:
            got.append(await a.relay.reach(b.id))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one)
        assert len(set(got)) == 1
        assert gateway.relay.carried_for(a.id)[0] == 1


async def test_a_relayed_connection_without_a_use_is_given_back(autojump_clock: Clock) -> None:
    async with devices(1, 2, limits=RelayLimits(unused_s=20.0)) as (gateway, a, b):
        stream = await a.relay.open_stream(b.id, ECHO)
        await trio.sleep(60)
        assert await echoes(stream, b"in use")
        assert a.presence.is_pinned(gateway.id)
        assert b.presence.is_pinned(gateway.id)
        await stream.aclose()
        await trio.sleep(45)
        assert not a.relayed()
        assert not b.relayed()
        assert gateway.relay.carried_for(a.id)[0] == 0
        assert not a.presence.is_pinned(gateway.id)
        assert not b.presence.is_pinned(gateway.id)


async def test_an_idle_circuit_is_closed_by_the_relay(autojump_clock: Clock) -> None:
    limits = RelayLimits(idle_s=30.0, unused_s=1e6)
    async with devices(1, 2, limits=limits) as (gateway, a, b):
        stream = await a.relay.open_stream(b.id, ECHO)
        for _ in range(4):
            await trio.sleep(20)
            assert await echoes(stream, b"not idle")
        await trio.sleep(31)
        assert not a.relayed()
        assert {bound.name: bound.reached for bound in gateway.relay.bounds()}["relay.idle_s"] == 1


async def test_what_cannot_be_reached_says_why(autojump_clock: Clock) -> None:
    async with devices(1, 2) as (gateway, a, b):
        with pytest.raises(Conflict):
            await a.relay.reach(a.id)
        stranger = PrivateKey.from_seed(b"s" * 32).peer_id
        with pytest.raises(NotConnected, match="no member here"):
            await a.relay.reach(stranger)
        gateway.swarm.member_check = lambda peer: peer != b.id
        with pytest.raises(NotConnected, match=r"d2 cannot be reached: it has no .* d0: .*no member"):
            await a.relay.reach(b.id)
        b.kill()
        await until(lambda: a.states()["d2"] == "dead")
        with pytest.raises(NotConnected, match="no member is linked with it"):
            await a.relay.reach(b.id)


async def test_the_deadline_of_reaching_holds(autojump_clock: Clock) -> None:
    async with devices(1, 2) as (_, a, b):
        for link in b.swarm.all_connections:
            link.wire.hold()  # a MemoryWire
        started_at = trio.current_time()
        with pytest.raises(NotConnected, match=r"within 1\.5 s"):
            await a.relay.reach(b.id, 1.5)
        assert trio.current_time() - started_at == pytest.approx(1.5)


async def test_who_has_left_is_cut_off(autojump_clock: Clock) -> None:
    async with devices(1, 2) as (_, a, b):
        stream = await a.relay.open_stream(b.id, ECHO)
        await b.presence.leave()
        await until(lambda: not a.relayed() and not b.relayed(), 10.0)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await until(lambda: a.states()["d2"] == "left")
        with pytest.raises(NotConnected, match="no member here"):
            await a.relay.reach(b.id)
