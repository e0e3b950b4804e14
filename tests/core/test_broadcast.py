"""Single rules of the broadcast core: what is taken, passed on, asked for, given up, refused."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from core.broadcast_world import FEDERATION, PEERS, Node, World, cheap_keys

from fedd.api.errors import FeddError, InvalidParameter, Unhealthy
from fedd.core.broadcast_givers import GIVERS
from fedd.core.broadcast_intake import MAX_BAD
from fedd.core.broadcast_messages import (
    CHUNK_BYTES,
    MAX_PAYLOAD_BYTES,
    Bcast,
    Chunk,
    Header,
    Ihave,
    Marks,
    Post,
    Pull,
)
from fedd.core.broadcast_origin import BURST, WINDOW
from fedd.core.broadcast_search import GIVE_UP_S
from fedd.core.broadcast_types import BroadcastId, Deliver, Gap

A, B, C, D = PEERS[:4]


def post(
    origin: str,
    seq: int,
    payload: bytes = b"x",
    *,
    epoch: int = 1,
    channel: str = "note",
    federation: str = FEDERATION,
    wants_acks: bool = False,
    announced: bool = False,
) -> Post:
    digest = hashlib.sha256(payload).digest()
    header = Header(epoch, seq, channel, wants_acks, len(payload), digest)
    sealed = cheap_keys(origin, federation).sign(header)
    return Post(origin, epoch, seq, sealed, b"" if announced else payload)


def tell(node: Node, peer: str, message: object) -> list[tuple[str, object]]:
    """Let `peer` say it; what the node sends in answer."""
    before = len(node.sent)
    node.perform(node.core.receive(peer, message, node.world.now))
    return node.sent[before:]


def pair() -> tuple[World, Node, Node]:
    world = World(2)
    world.link(0, 1)
    world.run(1)
    return world, world[0], world[1]


def deaf(count: int) -> World:
    """Nodes whose messages arrive nowhere: what comes is said by the test."""
    world = World(count)
    world.loses = lambda a, b, message: True
    return world


# -- spreading


def test_a_small_one_goes_to_all_but_whom_it_came_from() -> None:
    world = deaf(4)
    for other in (1, 2, 3):
        world.link(0, other)
    one = post(B, 1)
    sent = tell(world[0], B, Bcast((one,)))
    assert sent == [(C, Bcast((one,))), (D, Bcast((one,)))]
    assert world[0].payloads(B) == [b"x"]
    assert tell(world[0], C, Bcast((one,))) == []
    assert world[0].payloads(B) == [b"x"]
    # its origin need not hear of it
    two = post(D, 1)
    assert tell(world[0], B, Bcast((two,))) == [(C, Bcast((two,)))]


def test_who_has_it_from_the_same_neighbour_gets_no_second_copy() -> None:
    world = World(6)
    world.mesh()
    world.run(1)
    nodes = list(world.nodes.values())
    counts = [len(node.sent) for node in nodes]
    world[0].publish(b"1")
    world.run(0.1)
    world[1].publish(bytes(2000))
    world.run(0.1)
    sent = [message for node, n in zip(nodes, counts, strict=True) for _, message in node.sent[n:]]
    assert sum(isinstance(message, Bcast) for message in sent) == 5
    assert sum(isinstance(message, Ihave) for message in sent) == 5
    assert all(len(node.heard) == 2 for node in nodes)


def test_of_many_who_could_pass_it_on_some_do() -> None:
    """Two hops from its origin, behind seven neighbours of that: not a copy from each."""
    world = World(9, latency_s=(0.005, 0.005))
    for middle in range(1, 8):
        world.line(0, middle, 8)
    world.run(1)

    def copies(number: int) -> int:
        counts = [len(node.sent) for node in world.nodes.values()]
        world[0].publish(b"%d" % number)
        world.run(0.1)
        sent = [item for node, n in zip(world.nodes.values(), counts, strict=True) for item in node.sent[n:]]
        return sum(isinstance(message, Bcast) and peer == PEERS[8] for peer, message in sent)

    assert copies(1) == GIVERS
    # who is not known to have it from there gives it in any case
    world.records_known = False
    assert copies(2) == 7
    assert world[8].payloads(A) == [b"1", b"2"]


def test_one_delivers_its_own_to_itself() -> None:
    world, a, b = pair()
    assert a.publish(b"mine") == BroadcastId(A, 1, 1)
    assert a.heard == [Deliver(A, 1, 1, "note", b"mine")]
    world.run(0.1)
    assert b.heard == a.heard
    assert tell(a, B, Bcast((post(A, 9),))) == []
    assert len(a.heard) == 1
    assert a.core.mark_of(A) == b.core.mark_of(A) == (1, 1)
    assert a.core.mark_of(C) is None


def test_a_copy_costs_no_signature_check(monkeypatch: pytest.MonkeyPatch) -> None:
    world = deaf(3)
    world.link(0, 1)
    node = world[0]
    opened = []
    real = node.core._keys.open
    monkeypatch.setattr(node.core._keys, "open", lambda copy: opened.append(copy) or real(copy))
    for _ in range(5):
        tell(node, B, Bcast((post(C, 1), post(C, 3))))
        tell(node, B, Bcast((post(B, 1, epoch=2), post(B, 1, epoch=1))))
    assert len(opened) == 3


def test_out_of_order_is_delivered_in_order() -> None:
    world = deaf(2)
    world.link(0, 1)
    for seq in (3, 2, 5, 1):
        tell(world[0], B, Bcast((post(B, seq, b"%d" % seq),)))
    assert world[0].payloads(B) == [b"1", b"2", b"3"]
    tell(world[0], B, Bcast((post(B, 4, b"4"),)))
    assert world[0].payloads(B) == [b"1", b"2", b"3", b"4", b"5"]
    assert world[0].gaps() == []


def test_what_may_be_published() -> None:
    world, a, _ = pair()
    with pytest.raises(InvalidParameter, match="65536"):
        a.publish(bytes(MAX_PAYLOAD_BYTES + 1))
    for channel in ("", "c" * 33):
        with pytest.raises(InvalidParameter, match="channel"):
            a.publish(b"", channel)
    assert a.core.wait_s(1, world.now) == 0.0
    for _ in range(int(BURST)):
        a.publish(b"")
    assert a.core.used(world.now) == BURST
    with pytest.raises(Unhealthy, match="more than it may"):
        a.publish(b"")
    world.run(0.011)
    a.publish(b"")
    for _ in range(2):
        world.run(20)
        for _ in range(16):
            a.publish(bytes(MAX_PAYLOAD_BYTES))
        assert 0 < a.core.wait_s(MAX_PAYLOAD_BYTES, world.now) <= 0.5


def test_a_new_epoch_starts_anew_with_the_same_allowance() -> None:
    world, a, b = pair()
    a.publish(b"one")
    a.core.begin_epoch(1, world.now)
    assert a.publish(b"two").seq == 2
    a.core.begin_epoch(7, world.now)
    assert a.core.epoch == 7
    assert a.publish(b"three") == BroadcastId(A, 7, 1)
    assert a.core.used(world.now) > 2
    world.run(1)
    assert [item.epoch for item in b.heard] == [1, 1, 7]
    assert tell(b, A, Bcast((post(A, 3, epoch=1),))) == []
    assert len(b.heard) == 3


def test_a_new_epoch_ends_the_old_one_with_its_gaps() -> None:
    world = deaf(2)
    world.link(0, 1)
    tell(world[0], B, Bcast((post(B, 1, b"1"), post(B, 3, b"3"), post(B, 5, b"5"))))
    tell(world[0], B, Bcast((post(B, 2, b"new", epoch=4), post(B, 1, b"first", epoch=4))))
    assert [item if isinstance(item, Gap) else item.payload for item in world[0].heard] == [
        *(b"1", Gap(B, 1, 2, 2), b"3", Gap(B, 1, 4, 4), b"5"),
        *(b"first", b"new"),
    ]


# -- large ones


def test_a_large_one_is_announced_and_fetched_from_the_first_who_has_it() -> None:
    world = deaf(4)
    for other in (1, 2, 3):
        world.link(0, other)
    payload = bytes(range(256)) * 80
    head = post(D, 1, payload, announced=True)
    assert tell(world[0], B, Ihave((head,))) == [(B, Pull(D, 1, 1, 0)), (B, Pull(D, 1, 1, CHUNK_BYTES))]
    assert tell(world[0], C, Ihave((head,))) == []
    assert tell(world[0], B, Ihave((head,))) == []
    pieces = [payload[at : at + CHUNK_BYTES] for at in range(0, len(payload), CHUNK_BYTES)]
    assert tell(world[0], C, Chunk(D, 1, 1, 0, pieces[0])) == []  # nobody asked it
    assert tell(world[0], B, Chunk(D, 1, 1, 0, pieces[0])) == [(B, Pull(D, 1, 1, 2 * CHUNK_BYTES))]
    assert tell(world[0], B, Chunk(D, 1, 1, 0, pieces[0])) == []
    assert tell(world[0], B, Chunk(D, 1, 1, CHUNK_BYTES, pieces[1])) == []
    assert tell(world[0], B, Chunk(D, 1, 1, 2 * CHUNK_BYTES, pieces[2])) == [(C, Ihave((head,)))]
    assert world[0].payloads(D) == [payload]
    assert tell(world[0], B, Chunk(D, 1, 1, 2 * CHUNK_BYTES, pieces[2])) == []
    # and now it can be had here
    assert tell(world[0], C, Pull(D, 1, 1, CHUNK_BYTES)) == [(C, Chunk(D, 1, 1, CHUNK_BYTES, pieces[1]))]
    for wrong in (Pull(D, 1, 2, 0), Pull(D, 2, 1, 0), Pull(C, 1, 1, 0)):
        assert tell(world[0], C, wrong)[0][1].data == b""


def test_who_does_not_answer_makes_room_for_the_next_with_more_patience_each_time() -> None:
    world = deaf(4)
    for other in (1, 2):
        world.link(0, other)
    payload = bytes(3000)
    head = post(D, 1, payload, announced=True)
    tell(world[0], B, Ihave((head,)))
    tell(world[0], C, Ihave((head,)))
    asked = [(B, world.now)]
    count = len(world[0].sent)
    while len(asked) < 8:
        world.run(0.01)
        for peer, message in world[0].sent[count:]:
            if isinstance(message, Pull):
                asked.append((peer, world.now))
        count = len(world[0].sent)
    assert [peer for peer, _ in asked] == [B, C] * 4
    pauses = [later[1] - earlier[1] for earlier, later in pairwise(asked)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 3.2], abs=0.02)
    # nobody gives it: it is as if it had never been announced
    world.run(4)
    assert len(world[0].core._bodies) == 0
    world.run(2 * GIVE_UP_S)
    assert world[0].gaps() == [Gap(D, 1, 1, 1)]


def test_the_next_goes_on_where_the_last_stopped_and_a_late_piece_still_counts() -> None:
    world = deaf(5)
    for other in (1, 2):
        world.link(0, other)
    node = world[0]
    payload = bytes(range(256)) * 160
    pieces = [
        Chunk(D, 1, 1, at, payload[at : at + CHUNK_BYTES]) for at in range(0, len(payload), CHUNK_BYTES)
    ]
    head = post(D, 1, payload, announced=True)
    tell(node, B, Ihave((head,)))
    tell(node, C, Ihave((head,)))
    tell(node, B, pieces[0])
    count = len(node.sent)
    world.run(0.25)
    pulls = [(peer, message.offset) for peer, message in node.sent[count:] if isinstance(message, Pull)]
    assert pulls == [(C, CHUNK_BYTES), (C, 2 * CHUNK_BYTES)]
    tell(node, B, pieces[1])
    assert tell(node, B, Chunk(D, 1, 1, 2 * CHUNK_BYTES, b"")) == []
    assert tell(node, C, pieces[1]) == []
    for piece in pieces[2:]:
        tell(node, C, piece)
    assert node.payloads(D) == [payload]


def test_of_two_givers_nobody_can_tell_the_liar_so_one_is_asked_alone() -> None:
    world = deaf(5)
    for other in (1, 2):
        world.link(0, other)
    node = world[0]
    payload = bytes(2 * CHUNK_BYTES)
    head = post(D, 1, payload, announced=True)
    tell(node, B, Ihave((head,)))
    tell(node, C, Ihave((head,)))
    tell(node, B, Chunk(D, 1, 1, 0, b"\1" * CHUNK_BYTES))
    world.run(0.25)
    sent = tell(node, C, Chunk(D, 1, 1, CHUNK_BYTES, bytes(CHUNK_BYTES)))
    assert node.core._links[B].bad == node.core._links[C].bad == 0
    assert [(peer, message.offset) for peer, message in sent] == [(B, 0), (B, CHUNK_BYTES)]
    for at in (0, CHUNK_BYTES):
        tell(node, B, Chunk(D, 1, 1, at, b"\1" * CHUNK_BYTES))
    assert node.core._links[B].bad == 1
    tell(node, C, Ihave((head,)))
    world.run(2)
    assert node.payloads(D) == []


def test_an_empty_piece_or_a_lost_link_sends_to_the_next_at_once() -> None:
    world = deaf(5)
    for other in (1, 2, 3):
        world.link(0, other)
    payload = bytes(3000)
    head = post(PEERS[4], 1, payload, announced=True)
    for peer in (B, C, D):
        tell(world[0], peer, Ihave((head,)))
    assert tell(world[0], B, Chunk(PEERS[4], 1, 1, 0, b"")) == [(C, Pull(PEERS[4], 1, 1, 0))]
    count = len(world[0].sent)
    world.cut(0, 2)
    assert world[0].sent[count:] == [(D, Pull(PEERS[4], 1, 1, 0))]
    tell(world[0], D, Chunk(PEERS[4], 1, 1, 0, payload))
    assert world[0].payloads(PEERS[4]) == [payload]


def test_a_payload_that_is_not_what_was_signed_costs_its_giver_trust() -> None:
    world = deaf(3)
    world.link(0, 1)
    for seq in range(1, MAX_BAD + 2):
        tell(world[0], B, Ihave((post(C, seq, bytes(2000), announced=True),)))
        tell(world[0], B, Chunk(C, 1, seq, 0, b"\1" * 2000))
        assert bool(world[0].distrusted) == (seq > MAX_BAD)
    assert world[0].payloads(C) == []
    assert tell(world[0], B, Bcast((post(C, 1),))) == []


def test_at_most_eight_large_ones_are_fetched_at_a_time() -> None:
    world = deaf(3)
    world.link(0, 1)
    heads = tuple(post(C, seq, bytes(2000), announced=True) for seq in range(1, 11))
    assert len(tell(world[0], B, Ihave(heads))) == 8
    assert tell(world[0], B, Chunk(C, 1, 1, 0, bytes(2000))) == [(B, Pull(C, 1, 9, 0))]
    world.cut(0, 1)
    assert len(world[0].core._bodies) == 0
    # they were announced, so they are missed
    world.run(2 * GIVE_UP_S)
    assert world[0].gaps() == [Gap(C, 1, 2, 10)]


def test_what_is_given_up_is_fetched_no_longer() -> None:
    world = deaf(3)
    world.link(0, 1)
    tell(world[0], B, Ihave((post(C, 1, bytes(2000), announced=True),)))
    tell(world[0], B, Bcast((post(C, WINDOW + 1),)))
    assert world[0].gaps() == [Gap(C, 1, 1, 1)]
    assert len(world[0].core._bodies) == 0
    assert tell(world[0], B, Chunk(C, 1, 1, 0, bytes(2000))) == []


def test_more_announcers_than_are_needed_are_not_kept_and_the_last_that_goes_takes_it_along() -> None:
    world = deaf(12)
    for other in range(1, 12):
        world.link(0, other)
    node = world[0]
    for seq in range(1, 9):
        tell(node, C, Ihave((post(D, seq, bytes(2000), announced=True),)))
    for peer in (B, *PEERS[4:12]):
        tell(node, peer, Ihave((post(D, 9, bytes(2000), announced=True),)))
    name = BroadcastId(D, 1, 9)
    assert list(node.core._bodies._bodies[name].announcers) == [B, *PEERS[4:11]]
    for other in (1, *range(4, 11)):
        assert name in node.core._bodies._bodies
        world.cut(0, other)
    assert name not in node.core._bodies._bodies
    assert 9 not in node.core._table.by_name[D].pending


def test_a_payload_from_before_a_newcomers_time_is_nobodys() -> None:
    world = deaf(3)
    world.link(0, 1)
    node = world[0]
    tell(node, B, Ihave((post(C, 3, bytes(2000), announced=True),)))
    tell(node, B, Marks(True, 100_000, ((C, 1, 3),)))
    assert tell(node, B, Chunk(C, 1, 3, 0, bytes(2000))) == []
    assert node.heard == []
    assert node.core.mark_of(C) == (1, 3)


# -- repair


def test_arrivals_in_every_error_are_fedd_errors() -> None:
    with pytest.raises(FeddError):
        cheap_keys(A).open(Post(A, 1, 1, b"", b""))
