"""Broadcasts among whole nodes over an in-memory network on virtual time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from net.federations import Node, all_alive, form, full_mesh, nodes
from trio.testing import MockClock
from waiting import until

from fedd.api.errors import Conflict, InvalidParameter, Unhealthy
from fedd.core.broadcast_intake import MAX_BAD
from fedd.core.broadcast_messages import MAX_PAYLOAD_BYTES, Acks, Bcast, Chunk, Marks, Post, Pull
from fedd.core.broadcast_origin import BURST
from fedd.core.broadcast_types import Gap
from fedd.core.identity import PrivateKey
from fedd.core.presence_messages import Bye, Message, MessageDecoder, Ping
from fedd.net.broadcast import Delivery
from fedd.net.presence_link import BULK_AT_ONCE_BYTES, MAX_BULK_BYTES, PresenceLink

PEER = PrivateKey.from_seed(bytes([200]) * 32).peer_id


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


async def test_who_did_not_answer_is_asked_again(autojump_clock: MockClock) -> None:
    async with nodes(4) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(3)
        lost = []

        def lose(peer: str, message: Message) -> bool:
            if isinstance(message, Acks) and len(lost) < 1:
                lost.append(message)
                return True
            return members[2].presence._table.send_bulk(peer, message)

        members[2].presence.send_bulk = lose
        start = trio.current_time()
        reached = await members[0].broadcaster.publish_and_wait("note", b"x", 5.0)
        assert len(lost) == 1
        assert reached.missing == ()
        assert 0.5 <= trio.current_time() - start <= 0.8


async def test_a_storm_costs_others_nothing_beyond_its_allowance(autojump_clock: MockClock) -> None:
    async with nodes(4) as members:
        await form(members)
        await full_mesh(members)
        heard = [listen(node) for node in members]
        await trio.sleep(3)
        storm, bystander = members[3].broadcaster, members[2]
        core = storm._core
        assert core is not None
        own = core._table.own
        own.allowance.wait_s = lambda size, now: 0.0
        before = trio.current_time()
        for _ in range(30):
            for _ in range(100):
                storm.publish("note", bytes(256))
            await trio.sleep(0.01)
        bystander.broadcaster.publish("note", b"still heard")
        await trio.sleep(1.0)
        allowed = 2 * BURST + 2 * 100 * (trio.current_time() - before)
        for each in heard[:3]:
            assert b"still heard" in payloads(each)
            assert sum(len(payload) == 256 for payload in payloads(each)) <= allowed
        # what was too much is a gap in the end, and nobody is thought dead for it
        await trio.sleep(60.0)
        for each in heard[:3]:
            assert sum(item.last - item.first + 1 for item in each if isinstance(item, Gap)) > 500
        assert all_alive(members)


async def test_a_member_that_passes_on_forgeries_loses_its_link_and_nobody_else(
    autojump_clock: MockClock,
) -> None:
    async with nodes(3) as members:
        await form(members)
        await full_mesh(members)
        heard = [listen(node) for node in members]
        await trio.sleep(3)
        liar, victim, target = members
        for seq in range(1, MAX_BAD + 2):
            forged = Post(victim.id, victim.presence.epoch, seq, b"forged", b"x")
            liar.presence.send_bulk(target.id, Bcast((forged,)))
        await until(lambda: not target.presence.is_linked(liar.id), 1.0)
        victim.broadcaster.publish("note", b"mine")
        await until(lambda: all(payloads(each) == [b"mine"] for each in heard), 2.0)
        await trio.sleep(5)
        assert all_alive(members)


async def test_a_partition_heals_with_all_that_was_missed(autojump_clock: MockClock) -> None:
    async with nodes(4) as members:
        await form(members)
        await full_mesh(members)
        heard = [listen(node) for node in members]
        await trio.sleep(3)
        wires = [wire for node in members[:2] for wire in node.wires()]
        for wire in wires:
            wire.hold()
        members[0].broadcaster.publish("note", b"here")
        members[3].broadcaster.publish("note", b"there")
        await trio.sleep(10)
        assert payloads(heard[3]) == [b"there"]
        for wire in wires:
            wire.release()
        await until(lambda: all(sorted(payloads(each)) == [b"here", b"there"] for each in heard), 40.0)
        assert not any(isinstance(item, Gap) for each in heard for item in each)


async def test_a_restarted_origin_is_heard_in_its_new_epoch(autojump_clock: MockClock) -> None:
    async with nodes(3) as members, trio.open_nursery() as nursery:
        await form(members)
        await full_mesh(members)
        heard = listen(members[1])
        members[0].broadcaster.publish("note", b"1")
        await trio.sleep(1)
        epoch = members[0].presence.epoch
        members[0].kill()
        await trio.sleep(1)
        await members[0].start(nursery)
        await until(lambda: all_alive(members), 10.0)
        again = listen(members[0])
        members[0].broadcaster.publish("note", b"2")
        members[1].broadcaster.publish("note", b"3")
        await trio.sleep(2)
        own = [item for item in heard if item.origin == members[0].id]
        assert [(item.epoch, item.seq) for item in own] == [(epoch, 1), (epoch + 1, 1)]
        # what was before its return is not for it
        assert payloads(again) == [b"2", b"3"]
        nursery.cancel_scope.cancel()


async def test_without_a_federation_nothing_is_published(autojump_clock: MockClock) -> None:
    async with nodes(2) as members:
        lone = members[0].broadcaster
        with pytest.raises(Conflict, match="no federation"):
            lone.publish("note", b"x")
        with pytest.raises(Conflict, match="no federation"):
            await lone.publish_and_wait("note", b"x", 1.0)
        assert lone.wait_s(1) == 0.0
        lone.received(members[1].id, Marks(True, 0, ()))
        lone.link_up(members[1].id)
        assert [bound.present for bound in lone.bounds()] == [0, 0.0]
        await form(members)
        for wire in members[1].wires():
            wire.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lone.publish_and_wait, "note", b"x", 60.0)
            await trio.sleep(0.1)
            start = trio.current_time()
            await members[0].admission.leave()
        assert trio.current_time() - start <= 2.0
        with pytest.raises(Conflict):
            lone.publish("note", b"x")


async def test_a_subscriber_may_publish_and_its_mistakes_are_its_own(autojump_clock: MockClock) -> None:
    async with nodes(2) as members:
        await form(members)
        await full_mesh(members)

        def reply(item: Delivery | Gap) -> None:
            if isinstance(item, Delivery) and item.payload == b"ping":
                members[1].broadcaster.publish("note", b"pong 1")
                members[1].broadcaster.publish("note", b"pong 2")
            raise RuntimeError("a mistake")

        members[1].broadcaster.subscribe("note", reply)
        second, first = listen(members[1]), listen(members[0])
        members[0].broadcaster.publish("note", b"ping")
        await trio.sleep(1)
        assert payloads(first) == payloads(second) == [b"ping", b"pong 1", b"pong 2"]


async def test_the_allowance_is_shown_refused_and_waited_for(autojump_clock: MockClock) -> None:
    async with nodes(2) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(5)
        broadcaster = members[0].broadcaster
        for _ in range(int(BURST)):
            broadcaster.publish("note", b"x")
        with pytest.raises(Unhealthy, match="more than it may"):
            broadcaster.publish("note", b"x")
        held, published = broadcaster.bounds()
        assert (published.present, published.maximum, published.reached) == (BURST, BURST, 1)
        assert held.present > 0
        assert 0 < broadcaster.wait_s(1) <= 0.01
        start = trio.current_time()
        reached = await broadcaster.publish_and_wait("note", b"x", 5.0)
        assert reached.delivered == (members[1].id,)
        assert 0.005 <= trio.current_time() - start <= 0.1


async def test_a_raised_epoch_of_records_is_that_of_broadcasts(autojump_clock: MockClock) -> None:
    async with nodes(2) as members:
        await form(members)
        await full_mesh(members)
        heard = listen(members[1])
        a = members[0]
        a.broadcaster.publish("note", b"1")
        core = a.presence._core
        assert core is not None
        raised = core.epoch + 3
        core._own._mine = replace(core._own._mine, epoch=raised)
        assert a.broadcaster.publish("note", b"2")[1:] == (raised, 1)
        await trio.sleep(1)
        assert [(item.epoch, item.seq) for item in heard] == [(raised - 3, 1), (raised, 1)]


class Pipe:
    """A stream that takes what is sent when it is let."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.open = trio.Event()
        self.peer_id = "peer"
        self.closed = False
        self.room = 0
        """How many messages it takes at once; it is broken when negative."""

    def try_send(self, data: bytes) -> bool:
        if self.room < 0:
            raise trio.BrokenResourceError
        if self.room:
            self.room -= 1
            self.sent.append(data)
            return True
        return False

    async def send_all(self, data: bytes) -> None:
        self.sent.append(data)
        await self.open.wait()

    async def aclose(self) -> None:
        self.closed = True

    def reset(self) -> None:
        self.closed = True

    def messages(self, index: int) -> list[Message]:
        return MessageDecoder().receive_data(self.sent[index])


def test_what_nothing_is_in_front_of_leaves_at_once_and_all_else_in_order() -> None:
    pipe = Pipe()
    link = PresenceLink(pipe, opened_here=True)
    pipe.room = 2
    link.send(Ping(1))
    assert link.send_bulk(Pull(PEER, 1, 1, 0))
    assert [pipe.messages(index) for index in range(2)] == [[Ping(1)], [Pull(PEER, 1, 1, 0)]]
    link.send(Ping(2))  # there is no room
    pipe.room = 1
    link.send(Ping(3))  # there is, but one is in front
    pipe.room = -1
    assert link.send_bulk(Pull(PEER, 1, 1, 1))
    assert len(pipe.sent) == 2
    assert MessageDecoder().receive_data(link._take_queued()) == [Ping(2), Ping(3), Pull(PEER, 1, 1, 1)]
    link.send(Ping(4))  # the writer finds out that it is broken
    assert MessageDecoder().receive_data(link._take_queued()) == [Ping(4)]


async def test_a_heartbeat_overtakes_broadcasts_that_wait(autojump_clock: MockClock) -> None:
    pipe = Pipe()
    link = PresenceLink(pipe, opened_here=True)
    piece = Chunk(PEER, 1, 1, 0, bytes(8000))
    taken = 0
    while link.send_bulk(piece):
        taken += 1
    assert MAX_BULK_BYTES - 8200 <= taken * 8000 <= MAX_BULK_BYTES
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.write)
        await trio.sleep(0.1)
        link.send(Ping(1))
        pipe.open.set()
        await trio.sleep(0.1)
        assert max(map(len, pipe.sent)) <= BULK_AT_ONCE_BYTES + 100
        assert pipe.messages(0) == [piece] * 2
        assert pipe.messages(1) == [Ping(1), piece, piece]
        assert sum(len(pipe.messages(index)) for index in range(len(pipe.sent))) == taken + 1
        # a goodbye comes after all that was said before
        assert link.send_bulk(Pull(PEER, 1, 1, 0))
        link.send(Bye("shutdown"))
        link.finish()
        assert not link.send_bulk(piece)
        await link.done.wait()
    assert pipe.messages(-1) == [Pull(PEER, 1, 1, 0), Bye("shutdown")]
    assert pipe.closed
