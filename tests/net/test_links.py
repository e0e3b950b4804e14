"""What is said about links and limits is what happened."""

from __future__ import annotations

import contextlib

import pytest
import trio
import trio.testing
from net.links import running, stream_pair

from fedd.api.errors import FeddError, Unhealthy
from fedd.core.yamux import YamuxLimits
from fedd.net.bounds import Bound, swarm_bounds
from fedd.net.doors import SwarmLimits
from fedd.net.links import view_links
from fedd.net.swarm import Swarm

Clock = trio.testing.MockClock


def bounds_of(swarm: Swarm) -> dict[str, Bound]:
    return {bound.name: bound for bound in swarm_bounds(swarm)}


async def test_a_link_tells_what_it_carries(autojump_clock: Clock) -> None:
    async with running(latency_s=0.05) as links:
        a, _ = links.swarms
        assert await view_links(a) == []
        stream, other = await stream_pair(links, "/bulk")
        await trio.sleep(10)

        async def send_later() -> None:
            await trio.sleep(0.1)
            await stream.send_all(bytes(20_000))

        links.nursery.start_soon(send_later)
        (view,) = await view_links(a)
        assert (view.direction, view.address, view.retired) == ("out", "/memory/2", False)
        assert view.age_s == pytest.approx(10.9, abs=0.3)
        assert view.rtt_s == pytest.approx(0.1, abs=0.01)
        assert view.streams == {"/bulk": 1}
        assert view.rate_out == pytest.approx(2 * 20_000, rel=0.02)  # in half a second
        assert view.rate_in == 0
        assert view.bytes_out > 20_000
        assert view.usage.send_window == 256 * 1024 - 20_000 - 27  # what was negotiated came off as well
        (mirror,) = await view_links(links.swarms[1])
        assert mirror.usage.buffered == 20_000
        assert await other.receive_exactly(20_000)
        assert (await view_links(links.swarms[1]))[0].usage.buffered == 0


async def test_a_link_made_meanwhile_is_told_too(autojump_clock: Clock) -> None:
    async with running() as links:
        a, b = links.swarms

        async def dial_later() -> None:
            await trio.sleep(0.25)
            await a.dial(b.addresses)

        links.nursery.start_soon(dial_later)
        (view,) = await view_links(a)
        assert view.rate_out == pytest.approx(view.bytes_out / 0.25, rel=0.01)


async def test_streams_beyond_a_limit_are_counted_and_stay_counted(autojump_clock: Clock) -> None:
    limits = SwarmLimits(streams=YamuxLimits(inbound_streams=2, unacknowledged_streams=3))
    async with running(limits=limits) as links:
        a, b = links.swarms
        stream, _ = await stream_pair(links)
        await stream_pair(links)
        assert bounds_of(b)["link.inbound_streams"].present == 2
        assert bounds_of(b)["link.inbound_streams"].reached == 0
        with pytest.raises(FeddError):
            await a.open_stream(b.peer_id, "/pair")
        tried = bounds_of(b)["link.inbound_streams"].reached
        assert tried == 3  # opening was tried so often
        assert (await view_links(b))[0].usage.reached == {"inbound_streams": tried}
        links.network.wires[0].hold()
        opened = [stream.connection._session.open() for _ in range(3)]
        with pytest.raises(Unhealthy):
            await a.open_stream(b.peer_id, "/pair")
        assert bounds_of(a)["link.unacknowledged_streams"] == Bound(
            "link.unacknowledged_streams",
            len(opened),
            3,
            1,
            "streams opened here and not acknowledged",
        )
        await a.disconnect(b.peer_id)
        assert bounds_of(a)["link.unacknowledged_streams"].present == 0
        assert bounds_of(a)["link.unacknowledged_streams"].reached == 1


async def test_seats_and_doors_are_counted(autojump_clock: Clock) -> None:
    limits = SwarmLimits(connections=4, pending_handshakes_per_address=1, handshakes_per_s=100)
    async with running(6, limits=limits, members=False) as links:
        hub = links.swarms[0]
        assert bounds_of(hub)["connections"].present == 0
        for swarm in links.swarms[1:4]:
            await swarm.dial(hub.addresses)
        with contextlib.suppress(FeddError):  # the handshake succeeds, then the door closes
            await links.swarms[4].dial(hub.addresses)
        await trio.sleep(1)
        assert not links.swarms[4].connections
        found = bounds_of(hub)
        assert (found["connections"].present, found["connections"].maximum) == (3, 4)
        assert (found["strangers"].present, found["strangers"].maximum) == (3, 3)
        assert found["strangers"].reached >= 1
        assert found["connections"].reached == 0
        assert found["pending_handshakes"].present == 0
