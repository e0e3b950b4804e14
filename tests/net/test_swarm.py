"""Who is let in, who is refused, and which connection stays."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from net.links import KEYS, connected, running, stream_pair
from waiting import until

from fedd.api.errors import (
    Conflict,
    Denied,
    InvalidParameter,
    NotConnected,
    TimedOut,
    Unhealthy,
)
from fedd.net.connection import RETIRED_STREAMS_S
from fedd.net.memory import MemoryNetwork
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm
from fedd.net.transport import Address

Clock = trio.testing.MockClock


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def settle() -> None:
    """Let everything happen that happens by itself soon."""
    await trio.sleep(1)
    await trio.testing.wait_all_tasks_blocked()


# ---- dialling -------------------------------------------------------------------------


async def test_two_swarms_connect_and_know_each_other() -> None:
    async with running() as links:
        a, b = links.swarms
        there, here = await connected(links)
        assert (there.peer_id, here.peer_id) == (b.peer_id, a.peer_id)
        assert (there.direction, here.direction) == ("out", "in")
        assert await a.dial(b.addresses) is there  # reused
        assert await b.dial(a.addresses) is here
        assert links.changes == [[("up", "out", "")], [("up", "in", "")]]
        assert 0 <= await there.measure_rtt() < 1
        assert "out" in repr(there)
        assert "open" in repr(there)


async def test_another_key_than_dialled_is_refused() -> None:
    async with running(3) as links:
        a, b, c = links.swarms
        address = b.addresses[0].replace(b.peer_id, c.peer_id)
        with pytest.raises(Denied, match=f"{b.peer_id} answered where {c.peer_id} was dialled"):
            await a.dial([address])
        assert not a.connections
        assert not b.connections
        with pytest.raises(Denied):
            await a.dial(["/memory/2"], peer_id=c.peer_id)


async def test_dialling_oneself_is_refused() -> None:
    async with running() as links:
        a, b = links.swarms
        with pytest.raises(Conflict, match="this node itself"):
            await a.dial(a.addresses)
        with pytest.raises(Denied, match="own identity key"):
            await a.dial(["/memory/1"], peer_id=b.peer_id)
        assert not a.connections


async def test_addresses_that_cannot_be_right_are_refused() -> None:
    async with running(3) as links:
        a, b, c = links.swarms
        with pytest.raises(InvalidParameter, match="does not say whose"):
            await a.dial(["/memory/2"])
        with pytest.raises(InvalidParameter, match="names another peer"):
            await a.dial(b.addresses, peer_id=c.peer_id)
        with pytest.raises(InvalidParameter, match="names another peer"):
            await a.dial([*b.addresses, *c.addresses])
        with pytest.raises(InvalidParameter, match="not an address"):
            await a.dial(["nonsense"])
        with pytest.raises(NotConnected, match="no address"):
            await a.dial([], peer_id=b.peer_id)
        with pytest.raises(InvalidParameter, match="another peer's id"):
            await a.listen(b.addresses[0])


async def test_addresses_of_a_kind_not_known_here_are_passed_over(autojump_clock: Clock) -> None:
    async with running() as links:
        a, b = links.swarms
        await a.dial(["/ip4/192.0.2.1/udp/4001/quic-v1", *b.addresses], b.peer_id)
        assert b.peer_id in a.connections


async def test_the_address_that_answers_is_used(autojump_clock: Clock) -> None:
    async with running() as links:
        a, b = links.swarms
        silent = await links.network.listen(Address("memory", "", 50))
        connection = await a.dial([f"/memory/{n}" for n in (50, 51, 2)], peer_id=b.peer_id)
        assert connection.remote_address == "/memory/2"
        silent.close()


async def test_nobody_there(autojump_clock: Clock) -> None:
    async with running() as links:
        a, b = links.swarms
        with pytest.raises(NotConnected) as caught:
            await a.dial(["/memory/51", "/memory/52"], peer_id=b.peer_id)
        assert "/memory/51" in caught.value.detail
        assert "/memory/52" in caught.value.detail
        silent = await links.network.listen(Address("memory", "", 50))
        start = trio.current_time()
        with pytest.raises(TimedOut, match="does not answer"):
            await a.dial(["/memory/50"], peer_id=b.peer_id)
        assert trio.current_time() - start <= 10
        silent.close()


async def test_a_dial_has_a_deadline(autojump_clock: Clock) -> None:
    class Nowhere(MemoryNetwork):
        async def connect(self, address: Address) -> None:
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        swarm = Swarm(KEYS[0], network=Nowhere())
        await nursery.start(swarm.run)
        start = trio.current_time()
        with pytest.raises(TimedOut, match="did not answer at /memory/1 in 10 s"):
            await swarm.dial(["/memory/1"], peer_id=KEYS[1].peer_id)
        assert trio.current_time() - start == 10
        nursery.cancel_scope.cancel()


async def test_dials_to_one_peer_share_a_connection(autojump_clock: Clock) -> None:
    async with running(latency_s=0.1) as links:
        a, b = links.swarms
        found = []

        async def dial() -> None:
            found.append(await a.dial(b.addresses))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(dial)
        assert len(set(map(id, found))) == 1
        assert len(links.network.wires) == 1


async def test_a_swarm_that_does_not_run_says_so() -> None:
    swarm = Swarm(KEYS[0])
    with pytest.raises(Unhealthy, match="not running"):
        await swarm.listen("/ip4/127.0.0.1/tcp/0")
    with pytest.raises(Unhealthy, match="not running"):
        await swarm.dial(["/memory/1"], peer_id=KEYS[1].peer_id)
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        with pytest.raises(InvalidParameter, match="no in-memory network"):
            await swarm.listen("/memory/1")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("latency_s", [0.0, 0.01, 0.5])
async def test_simultaneous_dials_leave_one_connection_and_lose_no_stream(
    autojump_clock: Clock, latency_s: float
) -> None:
    async with running(latency_s=latency_s) as links:
        a, b = links.swarms  # a has the lower id
        asked: list[bytes] = []

        async def answer(stream: Stream) -> None:
            request = await stream.receive_exactly(5)
            await trio.sleep(5)  # over the time in which one of the connections is given up
            asked.append(request)
            await stream.send_all(b"answer")

        for swarm in links.swarms:
            swarm.handle("/ask", answer)

        async def dial_and_ask(here: Swarm, there: Swarm) -> None:
            await here.dial(there.addresses)
            stream = await here.open_stream(there.peer_id, "/ask")
            await stream.send_all(b"hello")
            assert await stream.receive_exactly(6) == b"answer"
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial_and_ask, a, b)
            nursery.start_soon(dial_and_ask, b, a)
        assert asked == [b"hello"] * 2
        await trio.sleep(60)
        kept, mirror = a.connections[b.peer_id], b.connections[a.peer_id]
        assert (kept.direction, mirror.direction) == ("out", "in")  # dialled by the lower id
        assert len(a._table.open) == len(b._table.open) == 1
        assert not any(change[0] == "down" for told in links.changes for change in told)


async def test_a_peer_that_lost_its_connection_replaces_it(autojump_clock: Clock) -> None:
    async with running() as links:
        a, b = links.swarms
        old, mirror = await connected(links)
        await trio.sleep(100)
        links.network.wires[0].hold()  # b has lost its power, and a has not noticed
        mirror.close_reason = "gone"  # what b remembers of it after its start
        del b._table.in_use[a.peer_id]
        new = await b.dial(a.addresses)
        await settle()
        assert a.connections[b.peer_id].direction == "in"
        assert b.connections[a.peer_id] is new
        assert old.retired
        assert links.changes[0] == [("up", "out", ""), ("up", "in", "replaced")]
        await trio.sleep(30)  # the old one closes although its peer says nothing
        assert old.closed
        assert list(a.connections) == [b.peer_id]
        assert len(links.changes[0]) == 2


@pytest.mark.parametrize("dead", ["silent", "unknown to its kernel"])
async def test_a_peer_that_comes_back_at_once_is_not_refused(autojump_clock: Clock, dead: str) -> None:
    async with running(3) as links:
        a, b, _ = links.swarms
        old, mirror = await connected(links)
        await trio.sleep(5)
        wire = links.network.wires[0]
        wire.hold()  # b has lost its power, and a, who has dialled it, has not noticed
        mirror.close_reason = "gone"
        del b._table.in_use[a.peer_id]
        new = await b.dial(a.addresses)
        if dead != "silent":
            wire.cut()
        start = trio.current_time()
        await until(lambda: a.connections[b.peer_id] is not old)
        assert trio.current_time() - start <= (3.1 if dead == "silent" else 0.1)
        assert old.closed
        assert b.connections[a.peer_id] is new
        assert not new.retired
        assert links.changes[0] == [("up", "out", ""), ("up", "in", "replaced")]
        await trio.sleep(60)
        assert not new.closed
        assert not a.connections[b.peer_id].closed


async def test_a_connection_given_up_is_used_again_by_nobody(autojump_clock: Clock) -> None:
    async with running() as links:
        there, here = await connected(links)
        stream, other = await stream_pair(links)
        there.retire()
        there.retire()
        with pytest.raises(NotConnected, match="takes no new streams"):
            await there.open_stream("/pair")
        await settle()
        with pytest.raises(NotConnected, match="takes no new streams"):
            await here.open_stream("/pair")  # it has heard of it
        await stream.send_all(b"but what is open goes on")
        assert await other.receive_some() == b"but what is open goes on"
        await trio.sleep(60)
        assert not there.closed
        await stream.aclose()
        await other.aclose()
        await settle()
        assert there.close_reason == "local"
        assert here.close_reason == "closed"


async def test_a_stream_waits_for_the_connection_that_takes_the_place_of_one_given_up(
    autojump_clock: Clock,
) -> None:
    async with running() as links:
        a, b = links.swarms
        b.handle("/echo", echo)
        given_up, mirror = await connected(links)
        await stream_pair(links)  # keeps it open
        mirror.retire()
        await settle()
        start = trio.current_time()
        with pytest.raises(NotConnected, match="takes no new streams"):
            await a.open_stream(b.peer_id, "/echo")
        assert trio.current_time() - start == pytest.approx(5.0)
        with pytest.raises(NotConnected, match="takes no new streams"):
            await a.open_stream(b.peer_id, "/echo", deadline_s=2.0)
        assert trio.current_time() - start == pytest.approx(7.0)

        del a._table.in_use[b.peer_id]
        new = await a.dial(b.addresses)
        a._table.in_use[b.peer_id] = given_up  # as if the new one were still on its way

        async def arrive() -> None:
            await trio.sleep(2)
            a._table.settle(new)

        links.nursery.start_soon(arrive)
        assert (await a.open_stream(b.peer_id, "/echo")).connection is new


# ---- ends -----------------------------------------------------------------------------


async def test_disconnecting_is_seen_at_both_ends(autojump_clock: Clock) -> None:
    async with running() as links:
        a, b = links.swarms
        await connected(links)
        await a.disconnect(b.peer_id)
        await settle()
        assert not a.connections
        assert not b.connections
        assert [told[-1] for told in links.changes] == [("down", "out", "local"), ("down", "in", "closed")]
        with pytest.raises(NotConnected):
            await a.disconnect(b.peer_id)
        with pytest.raises(NotConnected, match="dial it first"):
            await a.open_stream(b.peer_id, "/echo")


async def test_a_cut_link_is_seen_at_both_ends(autojump_clock: Clock) -> None:
    async with running() as links:
        connection, _ = await connected(links)
        links.network.wires[0].cut()
        await settle()
        assert [told[-1][0] for told in links.changes] == ["down", "down"]
        assert connection.closed
        with pytest.raises(NotConnected):
            await connection.measure_rtt()
        await connection.aclose()
        connection.retire()


async def test_a_peer_that_never_ends_its_streams_loses_a_retired_connection(autojump_clock: Clock) -> None:
    async with running() as links:
        connection, _ = await connected(links)
        a, b = await stream_pair(links)
        connection.retire()
        await trio.sleep(RETIRED_STREAMS_S / 2)
        await a.send_all(b"still")
        assert await b.receive_exactly(5) == b"still"
        await trio.sleep(RETIRED_STREAMS_S)
        assert connection.closed


async def test_ending_a_swarm_ends_its_connections(autojump_clock: Clock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as outer:
        a, b = Swarm(KEYS[0], network=network), Swarm(KEYS[1], network=network)
        await outer.start(a.run)
        async with trio.open_nursery() as inner:
            await inner.start(b.run)
            await b.listen("/memory/9")
            await a.dial(b.addresses)
            inner.cancel_scope.cancel()
        await settle()
        assert not a.connections
        assert b.addresses == []
        assert not network.listeners
        outer.cancel_scope.cancel()


async def test_a_subscriber_that_fails_costs_no_link(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a mistake")

    async with running() as links:
        links.swarms[0].subscribe(fail)
        connection, _ = await connected(links)
        assert not connection.closed
        assert "a subscriber to link changes failed" in caplog.text


# ---- protocols ------------------------------------------------------------------------
