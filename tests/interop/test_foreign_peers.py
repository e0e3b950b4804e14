"""fedd's links against libp2p programs that nobody here wrote: each dials us, and we dial it.

Skipped where their environments are absent; `python tests/interop/environments.py` makes them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from interop import environments
from interop.foreign import START_S, foreign_peer

from fedd.core.identity import PrivateKey
from fedd.net import identify, perf, ping
from fedd.net.connection import Connection
from fedd.net.swarm import Swarm

PINGS = 50
BULK_BYTES = 20_000_000
AGENT = "fedd-interop/1"
BASICS = {"/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/perf/1.0.0"}
AGENTS = {"py": "py-libp2p/0.8.1", "js": "js-peer"}


def without_peer(address: str) -> str:
    """The transport part of an address; peers differ in whether they append the peer id."""
    return address.partition("/p2p/")[0]


@pytest.fixture(params=["py", "js"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    try:
        environments.command_of(name)
    except environments.Absent as absent:
        pytest.skip(str(absent))
    return name


@asynccontextmanager
async def running_swarm() -> AsyncIterator[Swarm]:
    swarm = Swarm(PrivateKey.from_seed(bytes(range(32))), agent=AGENT)
    identify.serve_identify(swarm)
    ping.serve_ping(swarm)
    perf.serve_perf(swarm, access="anyone")
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        await swarm.listen("/ip4/127.0.0.1/tcp/0")
        yield swarm
        nursery.cancel_scope.cancel()


async def test_it_dials_us(kind: str) -> None:
    async with running_swarm() as swarm:
        (address,) = swarm.addresses
        links: list[Connection] = []
        swarm.subscribe(lambda kind, link, why: links.append(link))
        sizes = ("--pings", str(PINGS), "--bytes", str(BULK_BYTES))
        async with foreign_peer(kind, "dial", address, *sizes) as peer:
            seen = await peer.said("done", START_S + 60)
    connection = links[0]  # it has said what it has seen, and may have gone at once
    ours = connection.remote_address
    assert (connection.peer_id, connection.direction) == (seen["peer_id"], "in")
    assert seen["remote_peer_id"] == swarm.peer_id
    assert seen["agent"] == AGENT
    assert set(seen["protocols"]) >= BASICS
    assert seen["addresses"] == [without_peer(address)]
    # Where it says that it reached us, and where it came from as we saw it: the same on both sides.
    assert without_peer(seen["remote_address"]) == without_peer(address)
    assert without_peer(seen["observed_address"]) == without_peer(ours)
    assert len(seen["ping_ms"]) == PINGS
    assert seen["sent"] == seen["received"] == BULK_BYTES


async def test_we_dial_it(kind: str) -> None:
    async with foreign_peer(kind, "listen") as peer, running_swarm() as swarm:
        listening = await peer.said("listening", START_S)
        (address,) = listening["addresses"]
        connection = await swarm.dial([address])
        connected = await peer.said("connected")
        assert connection.peer_id == listening["peer_id"]
        assert connected["peer_id"] == swarm.peer_id
        assert without_peer(connection.remote_address) == without_peer(address)

        seen = await identify.identify(swarm, connection.peer_id)
        assert seen.peer_id == listening["peer_id"]
        assert seen.agent == AGENTS[kind]
        assert set(seen.protocols) >= BASICS
        assert list(seen.addresses) == [without_peer(address)]
        assert without_peer(seen.observed_address) == without_peer(connected["address"])

        assert len(await ping.ping(swarm, connection.peer_id, PINGS)) == PINGS

        result = await perf.measure(swarm, connection.peer_id, BULK_BYTES, BULK_BYTES)
        assert (result.upload_bytes, result.download_bytes) == (BULK_BYTES, BULK_BYTES)


async def test_streams_of_one_link_do_not_disturb_each_other(kind: str) -> None:
    async with foreign_peer(kind, "listen") as peer, running_swarm() as swarm:
        (address,) = (await peer.said("listening", START_S))["addresses"]
        connection = await swarm.dial([address])
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(perf.measure, swarm, connection.peer_id, 2_000_000, 2_000_000)
            cut = await swarm.open_stream(connection.peer_id, perf.PROTOCOL)
            await cut.send_all(bytes(300_000))
            cut.reset()
            assert len(await ping.ping(swarm, connection.peer_id, 10)) == 10
        assert swarm.connections[connection.peer_id] is connection
        await swarm.disconnect(connection.peer_id)
        await swarm.dial([address])
        assert (await identify.identify(swarm, connection.peer_id)).agent == AGENTS[kind]


async def test_a_foreign_peer_with_another_key_is_refused(kind: str) -> None:
    from fedd.api.errors import Denied

    async with foreign_peer(kind, "listen") as peer, running_swarm() as swarm:
        (address,) = (await peer.said("listening", START_S))["addresses"]
        impostor = f"{without_peer(address)}/p2p/{PrivateKey.from_seed(bytes(32)).peer_id}"
        with pytest.raises(Denied):
            await swarm.dial([impostor])
        assert not swarm.connections
