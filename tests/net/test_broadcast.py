"""Broadcasts among whole nodes over an in-memory network on virtual time."""

from __future__ import annotations

import pytest
import trio
from net.federations import Node, all_alive, form, full_mesh, nodes, until
from trio.testing import MockClock

from fedd.api.errors import InvalidParameter
from fedd.core.broadcast_messages import MAX_PAYLOAD_BYTES
from fedd.core.broadcast_types import Gap
from fedd.net.broadcast import Delivery


def listen(node: Node, channel: str = "note") -> list[Delivery | Gap]:
    heard: list[Delivery | Gap] = []
    node.broadcaster.subscribe(channel, heard.append)
    return heard


def payloads(heard: list[Delivery | Gap]) -> list[bytes]:
    return [item.payload for item in heard if isinstance(item, Delivery)]


async def test_all_members_get_all_broadcasts_in_order(autojump_clock: MockClock) -> None:
    async with nodes(5) as members:
        await form(members)
        heard = [listen(node) for node in members]
        await trio.sleep(3)
        sent = [b"%d" % number for number in range(200)]
        start = trio.current_time()
        for payload in sent:
            members[1].broadcaster.publish("note", payload)
        await until(lambda: all(payloads(each) == sent for each in heard), 1.0)
        assert trio.current_time() - start <= 0.1
        assert [(item.epoch, item.seq) for item in heard[3]] == [
            (members[1].presence.epoch, n + 1) for n in range(200)
        ]
        members[2].broadcaster.publish("other", b"not for them")
        await trio.sleep(1)
        assert [len(each) for each in heard] == [200] * 5


async def test_large_ones_arrive_and_heartbeats_do_not_wait(autojump_clock: MockClock) -> None:
    async with nodes(4) as members:
        await form(members)
        heard = [listen(node) for node in members]
        await trio.sleep(3)
        large = bytes(range(256)) * 256
        assert len(large) == MAX_PAYLOAD_BYTES
        members[0].broadcaster.publish("note", large)
        await until(lambda: all(payloads(each) == [large] for each in heard), 1.0)
        with pytest.raises(InvalidParameter, match="65536"):
            members[0].broadcaster.publish("note", large + b"x")
        with pytest.raises(InvalidParameter, match="channel"):
            members[0].broadcaster.publish("", b"")
        assert all_alive(members)


async def test_acknowledgements_tell_whom_it_reached(autojump_clock: MockClock) -> None:
    async with nodes(5) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(3)
        start = trio.current_time()
        reached = await members[0].broadcaster.publish_and_wait("note", b"x", 5.0)
        assert trio.current_time() - start <= 0.2
        assert reached.delivered == tuple(sorted(node.id for node in members[1:]))
        assert reached.missing == ()
        for wire in members[4].wires():
            wire.hold()
        start = trio.current_time()
        reached = await members[0].broadcaster.publish_and_wait("note", b"y", 2.0)
        assert trio.current_time() - start == pytest.approx(2.0)
        assert reached.missing == (members[4].id,)
        assert len(reached.delivered) == 3
        # who dies meanwhile is missing, and nobody waits for it any longer
        reached = await members[0].broadcaster.publish_and_wait("note", b"z", 60.0)
        assert reached.missing == (members[4].id,)
        assert trio.current_time() - start <= 10.0
