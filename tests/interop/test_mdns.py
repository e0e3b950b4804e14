"""fedd's discovery beside js-libp2p's and py-libp2p's on one network: each finds the other.

In network namespaces, apart from the network of this machine and what runs on it. Takes root.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from federation.network import Network, Node, network, why_no_network
from interop import environments
from interop.foreign import START_S, ForeignPeer, peer_process

FINDER = [sys.executable, str(Path(__file__).with_name("finder.py"))]
# js-libp2p asks every 10 s, and py-libp2p's zeroconf within seconds.
FIND_S = 90.0

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lan() -> Iterator[Network]:
    reason = why_no_network()
    if reason is not None:
        pytest.skip(reason)
    with network(2) as made:
        yield made


@pytest.fixture(params=["py", "js"])
def command(request: pytest.FixtureRequest) -> list[str]:
    try:
        return environments.command_of(request.param)
    except environments.Absent as absent:
        pytest.skip(str(absent))


def inside(node: Node) -> list[str]:
    """Before a command, makes it run on that machine.

    `node.prefix` would end it with the thread that starts it, which for trio is one that soon goes.
    """
    return ["nsenter", f"--net=/proc/{node.pid}/ns/net", "--"]


def transports(document: dict[str, Any]) -> set[str]:
    """Addresses without peer ids; programs differ in whether they append them."""
    return {address.partition("/p2p/")[0] for address in document["addresses"]}


async def both_find_each_other(first: ForeignPeer, second: ForeignPeer) -> None:
    peers = [await first.said("listening", START_S), await second.said("listening", START_S)]

    async def finds(finder: ForeignPeer, other: dict[str, Any]) -> None:
        with trio.fail_after(FIND_S):
            while True:
                found = await finder.said("found", FIND_S)
                if found["peer_id"] == other["peer_id"]:
                    break
        assert transports(found) & transports(other)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(finds, first, peers[1])
        nursery.start_soon(finds, second, peers[0])


async def test_a_foreign_peer_and_fedd_find_each_other(lan: Network, command: list[str]) -> None:
    here, there = lan
    ours = [*inside(here), *FINDER, f"/ip4/{here.ip4}/tcp/4747"]
    theirs = [*inside(there), *command, "find", f"/ip4/{there.ip4}/tcp/4747"]
    async with peer_process(ours) as fedd, peer_process(theirs) as foreign:
        await both_find_each_other(fedd, foreign)


async def test_a_fedd_that_starts_later_is_found_as_well(lan: Network, command: list[str]) -> None:
    here, there = lan
    ours = [*inside(here), *FINDER, f"/ip4/{here.ip4}/tcp/4748"]
    theirs = [*inside(there), *command, "find", f"/ip4/{there.ip4}/tcp/4748"]
    async with peer_process(theirs) as foreign:
        heard = await foreign.said("listening", START_S)
        async with peer_process(ours) as fedd:
            mine = await fedd.said("listening", START_S)
            with trio.fail_after(FIND_S):
                found = await fedd.said("found", FIND_S)
                assert found["peer_id"] == heard["peer_id"]
                assert (await foreign.said("found", FIND_S))["peer_id"] == mine["peer_id"]
