"""Single rules of the broadcast core: what is taken, passed on, asked for, given up, refused."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from core.broadcast_world import FEDERATION, PEERS, Node, World, cheap_keys

from fedd.api.errors import FeddError, InvalidParameter, Unhealthy
from fedd.core.broadcast import DIGEST_S
from fedd.core.broadcast_acks import MAX_TRACKED, OWN_MOST, TRACKED_S
from fedd.core.broadcast_intake import MAX_BAD, MAX_EXCESS
from fedd.core.broadcast_messages import (
    CHUNK_BYTES,
    MAX_PAYLOAD_BYTES,
    Acks,
    Bcast,
    Chunk,
    Gone,
    Header,
    Ihave,
    Iwant,
    Marks,
    Post,
    Pull,
    encode_items,
)
from fedd.core.broadcast_origin import BURST, PENDING_BYTES, RETAINED, RETAINED_BYTES, RETAINED_S, WINDOW
from fedd.core.broadcast_search import GIVE_UP_S, MAX_CLAIMS
from fedd.core.broadcast_table import TOTAL_PENDING_BYTES, TOTAL_RETAINED_BYTES
from fedd.core.broadcast_types import BroadcastId, Deliver, Gap
from fedd.core.records import MAX_COUNTER

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


def test_what_is_missing_is_asked_of_who_has_more_and_then_delivered() -> None:
    world = World(3)
    world.line(0, 1, 2)
    world.run(1)
    world.loses = lambda a, b, message: isinstance(message, Bcast) and b == C
    for number in range(5):
        world[0].publish(b"%d" % number)
    world.run(0.5)
    world.loses = lambda a, b, message: False
    assert world[2].payloads(A) == []
    world.run(2)
    # nothing came after them, but the marks did
    assert world[2].payloads(A) == [b"0", b"1", b"2", b"3", b"4"]
    assert world[2].gaps() == []


def test_large_ones_are_repaired_too() -> None:
    world = World(2)
    world.link(0, 1)
    world.run(1)
    world.loses = lambda a, b, message: isinstance(message, Ihave)
    world[0].publish(bytes(5000))
    world[0].publish(b"small")
    world.run(0.05)
    world.loses = lambda a, b, message: False
    assert world[1].payloads(A) == []
    world.run(2)
    assert world[1].payloads(A) == [bytes(5000), b"small"]


def test_a_question_is_answered_once_and_with_what_is_gone() -> None:
    world, a, _ = pair()
    for number in range(RETAINED + 50):
        world.run(0.02)
        a.publish(b"%d" % number)
    world.run(1)
    answers = [message for _, message in tell(a, B, Iwant(A, 1, ((1, MAX_COUNTER), (40, 60), (300, 302))))]
    given = [each.body for message in answers if isinstance(message, Bcast) for each in message.posts]
    assert given == [b"%d" % number for number in range(50, RETAINED + 50)]
    (gone,) = [message for message in answers if isinstance(message, Gone)]
    assert gone.ranges == ((1, 50), (40, 50))
    assert gone.head.seq == RETAINED + 50
    assert tell(a, B, Iwant(C, 1, ((1, 2),))) == []
    assert tell(a, B, Iwant(A, 2, ((1, 2),))) == []
    a.core.begin_epoch(3, world.now)
    assert tell(a, B, Iwant(A, 1, ((1, 2),))) == []
    a.publish(b"anew")
    (answer,) = tell(a, B, Iwant(A, 1, ((1, 2),)))
    assert answer[1].head.epoch == 3


def test_gone_names_the_holes_between_what_is_here() -> None:
    world = deaf(2)
    world.link(0, 1)
    node = world[0]
    tell(node, B, Bcast((post(B, 2), post(B, 4), post(B, 6))))
    world.run(2 * GIVE_UP_S)
    assert node.gaps() == [Gap(B, 1, 1, 1), Gap(B, 1, 3, 3), Gap(B, 1, 5, 5)]
    answers = tell(node, B, Iwant(B, 1, ((1, 9),)))
    assert answers[-1][1].ranges == ((1, 1), (3, 3), (5, 5))
    tell(node, B, Bcast((post(B, 8),)))
    answers = tell(node, B, Iwant(B, 1, ((7, 8),)))
    assert answers == [(B, Bcast((post(B, 8),)))]


def test_a_gap_is_told_at_once_when_all_neighbours_have_it_no_longer() -> None:
    world = deaf(4)
    for other in (1, 2):
        world.link(0, other)
    node = world[0]
    newest = post(D, 5)
    tell(node, B, Bcast((newest,)))
    world.run(0.3)
    tell(node, B, Gone(newest, ((1, 4),)))
    assert node.gaps() == []
    tell(node, C, Gone(newest, ((1, 2),)))
    world.run(0.01)
    # the second may still get what it has not said to be gone
    assert node.gaps() == [Gap(D, 1, 1, 2)]
    tell(node, C, Gone(newest, ((3, 4),)))
    world.run(0.01)
    assert node.gaps() == [Gap(D, 1, 1, 2), Gap(D, 1, 3, 4)]
    assert node.payloads(D) == [b"x"]


def test_later_holes_need_no_second_answer() -> None:
    world = deaf(3)
    world.link(0, 1)
    node = world[0]
    tell(node, B, Bcast((post(C, 2), post(C, 4))))
    world.run(0.2)
    tell(node, B, Gone(post(C, 4), ((1, 1), (3, 3))))
    world.run(0.05)
    assert node.gaps() == [Gap(C, 1, 1, 1), Gap(C, 1, 3, 3)]


def test_gone_proves_what_was_published() -> None:
    world = deaf(3)
    world.link(0, 1)
    node = world[0]
    tell(node, B, Marks(False, 0, ((C, 1, 9),)))
    world.run(0.2)
    assert node.sent[-1] == (B, Iwant(C, 1, ((1, 9),)))
    tell(node, B, Gone(post(C, 9, announced=True), ((1, 9),)))
    world.run(0.2)
    assert node.gaps() == [Gap(C, 1, 1, 9)]
    # of nobody who misses anything, of nobody known, or of an epoch that is over
    world.run(1)
    assert tell(node, B, Gone(post(C, 9), ((1, 9),))) == []
    assert tell(node, B, Gone(post(D, 1), ((1, 1),))) == []
    assert tell(node, B, Gone(post(C, 1, epoch=0), ((1, 1),))) == []


def test_marks_without_proof_make_no_gap_and_are_forgotten() -> None:
    world = deaf(3)
    world.link(0, 1)
    node = world[0]
    tell(node, B, Bcast((post(C, 1),)))
    tell(node, B, Marks(False, 0, ((C, 1, 50), (D, 1, 5), (A, 1, 9))))
    world.run(30)
    assert node.gaps() == []
    questions = [message for _, message in node.sent if isinstance(message, Iwant)]
    assert questions == [Iwant(C, 1, ((2, 50),))] * 3
    tell(node, B, Marks(False, 0, ((C, MAX_COUNTER, MAX_COUNTER),)))
    world.run(1)
    assert node.sent[-1][1] == Iwant(C, MAX_COUNTER, ((MAX_COUNTER - WINDOW + 1, MAX_COUNTER),))
    world.run(30)
    tell(node, B, Bcast((post(C, 2),)))
    assert len(node.payloads(C)) == 2


def test_marks_that_were_reached_meanwhile_ask_nothing() -> None:
    world = deaf(3)
    world.link(0, 1)
    node = world[0]
    tell(node, B, Marks(False, 0, ((C, 1, 2),)))
    tell(node, B, Bcast((post(C, 1), post(C, 2))))
    tell(node, B, Marks(False, 0, ((C, 1, 2),)))
    world.run(5)
    assert not any(isinstance(message, Iwant) for _, message in node.sent)


def test_the_claims_of_a_neighbour_are_bounded() -> None:
    world = World(30)
    world.loses = lambda a, b, message: True
    world.link(0, 1)
    node = world[0]
    search = node.core._search
    for number in range(MAX_CLAIMS + 10):
        origin = node.core._table.other(PEERS[2], 0.0)
        assert origin is not None
        origin.name = f"origin {number}"
        search.claim(B, origin, 1, 5, world.now)
    assert len(search._claims[B]) == MAX_CLAIMS


def test_many_holes_are_asked_for_eight_at_a_time() -> None:
    world = deaf(3)
    world.link(0, 1)
    node = world[0]
    tell(node, B, Bcast(tuple(post(C, seq) for seq in range(2, 42, 2))))
    world.run(0.15)
    (question,) = [message for _, message in node.sent if isinstance(message, Iwant)]
    assert question.ranges == tuple((seq, seq) for seq in range(1, 17, 2))
    # after their time all that was missing then is given up, and what is being fetched is not
    world.run(1)
    tell(node, B, Ihave((post(C, 5, bytes(2000), announced=True),)))
    for _ in range(40):
        world.run(0.1)
        tell(node, B, Chunk(C, 1, 5, 0, b"\0" * 10))
    world.run(0.5)
    assert node.gaps()[:2] == [Gap(C, 1, 1, 1), Gap(C, 1, 3, 3)]


def test_who_is_far_ahead_leaves_a_gap_of_what_no_window_holds() -> None:
    world = deaf(3)
    world.link(0, 1)
    node = world[0]
    tell(node, B, Bcast((post(C, 5, b"5"), post(C, WINDOW + 10, b"far"))))
    assert node.heard == [Gap(C, 1, 1, 4), Deliver(C, 1, 5, "note", b"5"), Gap(C, 1, 6, 10)]


# -- newcomers


def test_a_newcomer_begins_at_the_marks_of_its_elders() -> None:
    world = World(3)
    world.link(0, 1)
    world.run(70)
    for number in range(5):
        world[0].publish(b"%d" % number)
    world.run(1)
    world[2].start()
    world.link(1, 2)
    world.run(5)
    assert world[2].heard == []
    assert world[2].core.mark_of(A) == (1, 5)
    world[0].publish(b"for all")
    world.run(1)
    assert world[2].payloads(A) == [b"for all"]
    assert world[2].gaps() == []
    # of another link with the same history it does not begin anew
    world.link(0, 2)
    world.run(1)
    assert world[2].core._marks._elder == B


def test_among_equals_everything_counts_from_the_beginning() -> None:
    world = World(4)
    world.line(0, 1)
    world.line(2, 3)
    world.run(1)
    for number in range(3):
        world[0].publish(b"%d" % number)
    world.run(5)
    world.link(1, 2)
    world.run(5)
    assert world[3].payloads(A) == [b"0", b"1", b"2"]


def test_a_newcomer_with_something_in_its_hands_begins_behind_the_marks() -> None:
    world = deaf(3)
    world.link(0, 1)
    node = world[0]
    tell(node, B, Bcast((post(C, 7, b"7"), post(C, 9, b"9"))))
    tell(node, B, Marks(True, 100_000, ((C, 1, 7),)))
    assert node.core.mark_of(C) == (1, 7)
    tell(node, B, Bcast((post(C, 8, b"8"),)))
    assert node.payloads(C) == [b"8", b"9"]
    # what was delivered stays delivered
    tell(node, B, Marks(True, 200_000, ((C, 1, 20), (C, 9, 1))))
    assert node.core.mark_of(C) == (1, 9)
    assert node.gaps() == []


def test_after_a_minute_nobody_is_a_newcomer() -> None:
    world = deaf(3)
    world.link(0, 1)
    world.run(61)
    tell(world[0], B, Marks(True, 10**6, ((C, 1, 5),)))
    assert world[0].core.mark_of(C) == (0, 0)
    tell(world[0], B, Bcast((post(C, 6),)))
    world.run(2 * GIVE_UP_S)
    assert world[0].gaps() == [Gap(C, 1, 1, 5)]


@pytest.mark.parametrize(
    ("claimed", "first", "delivered"),
    [
        ((1, 4), (1, 5), [5, 6]),
        ((1, 4), (1, 4), [5, 6]),
        ((1, MAX_COUNTER), (1, 5), [6]),  # a lie costs one
        ((MAX_COUNTER, 3), (1, 5), [5, 6]),
        ((0, 7), (1, 5), [1, 5, 6]),
    ],
)
def test_what_a_newcomer_is_told_gives_way_to_what_is_signed(
    claimed: tuple[int, int], first: tuple[int, int], delivered: list[int]
) -> None:
    world = deaf(3)
    world.link(0, 1)
    node = world[0]
    tell(node, B, Marks(True, 100_000, ((C, *claimed),)))
    tell(node, B, Bcast((post(C, first[1]),)))
    for seq in (1, 5, 6):
        tell(node, B, Bcast((post(C, seq),)))
    world.run(2 * GIVE_UP_S)
    assert [item.seq for item in node.heard if isinstance(item, Deliver)] == delivered


def test_a_newcomer_finds_proof_for_those_who_missed_what_was_before_it() -> None:
    world = World(3)
    world.link(0, 1)
    world.run(1)
    world[1].start()
    world[1].core.link_up(A, world.now)
    world.run(1)
    world[0].publish(b"missed by all but its origin")
    world.kill(1)
    world.run(1)
    world[1].start()
    world[2].world = world
    world.link(0, 1)
    world.run(0.5)
    world.link(1, 2)
    world.run(10)
    assert world[2].gaps() == [Gap(A, 1, 1, 1)]


# -- who may, and how much


def test_broadcasts_of_strangers_are_dropped_until_they_are_members() -> None:
    world = World(3)
    world.line(0, 1, 2)
    world.run(1)
    world[2].strangers.add(A)
    world[0].publish(b"1")
    world.run(0.5)
    assert world[1].payloads(A) == [b"1"]
    assert world[2].heard == []
    world[2].strangers.clear()
    world.run(2 * DIGEST_S)
    assert world[2].payloads(A) == [b"1"]
    # the other way round nothing is kept of them
    world[2].strangers.add(A)
    world.run(2 * DIGEST_S)
    assert world[2].core.mark_of(A) is None
    assert tell(world[2], B, Marks(False, 0, ((A, 1, 9),))) == []


@pytest.mark.parametrize(
    "bad",
    [
        post(C, 1, federation="cd" * 32),
        Post(C, 1, 2, post(C, 1).sealed, b"x"),
        Post(C, 1, 1, post(D, 1).sealed, b"x"),
        Post(C, 1, 1, post(C, 1).sealed, b"y"),
        Post(C, 1, 1, post(C, 1).sealed, b"xx"),
        Post(C, 1, 1, post(C, 1, bytes(2000)).sealed, bytes(1000)),
    ],
    ids=["foreign", "renumbered", "signed by another", "other payload", "longer", "too large to flood"],
)
def test_who_passes_on_forgeries_loses_the_link(bad: Post) -> None:
    world = deaf(4)
    world.link(0, 1)
    world.link(0, 2)
    node = world[0]
    for _ in range(MAX_BAD):
        assert tell(node, B, Bcast((bad,))) == []
    assert node.distrusted == []
    tell(node, B, Bcast((bad, bad, post(C, 1))))
    assert [each.peer for each in node.distrusted] == [B]
    assert node.payloads(C) == []
    # and the origin has lost nothing by it
    tell(node, C, Bcast((post(C, 1, b"real"),)))
    assert node.payloads(C) == [b"real"]


def test_small_ones_are_not_announced() -> None:
    world = deaf(3)
    world.link(0, 1)
    for _ in range(MAX_BAD + 1):
        tell(world[0], B, Ihave((post(C, 1, announced=True),)))
    assert [each.peer for each in world[0].distrusted] == [B]


def test_a_storm_is_cut_to_its_allowance_and_then_cut_off() -> None:
    world = deaf(4)
    for other in (1, 2, 3):
        world.link(0, other)
    node = world[0]
    for seq in range(1, 1001):
        tell(node, B, Bcast((post(B, seq),)))
    assert len(node.payloads(B)) == 2 * BURST
    assert sum(peer == C for peer, message in node.sent if isinstance(message, Bcast)) == 2 * BURST
    assert node.core.refused == 1000 - 2 * BURST
    # others are heard as ever
    tell(node, C, Bcast((post(C, 1),)))
    assert node.payloads(C) == [b"x"]
    assert node.distrusted == []
    for seq in range(1001, 1001 + MAX_EXCESS):
        tell(node, B, Bcast((post(B, seq),)))
    assert [each.peer for each in node.distrusted] == [B]


def test_forgeries_use_up_nobodys_allowance() -> None:
    world = deaf(4)
    node = world[0]
    for _ in range(100):
        world.link(0, 1)
        tell(node, B, Bcast(tuple(Post(C, 1, seq, b"forged", b"x") for seq in range(1, 31))))
        world.cut(0, 1)
    world.link(0, 2)
    for seq in range(1, 2 * int(BURST) + 1):
        tell(node, C, Bcast((post(C, seq),)))
    assert len(node.payloads(C)) == 2 * BURST


def test_memory_is_bounded_whatever_comes() -> None:
    world = World(30)
    world.loses = lambda a, b, message: True
    world.link(0, 1)
    node = world[0]
    world.now = 100.0
    for origin in PEERS[1:]:
        for seq in range(2, 500):  # the first never comes
            tell(node, B, Bcast((post(origin, seq, bytes(1024)),)))
    assert node.core._table.pending_bytes <= TOTAL_PENDING_BYTES
    assert node.core.held_bytes <= TOTAL_PENDING_BYTES
    assert node.core.refused > 0
    world.run(2 * GIVE_UP_S)
    assert node.core._table.pending_bytes == 0
    assert node.core.held_bytes <= TOTAL_RETAINED_BYTES


def test_one_origin_cannot_take_the_room_of_others() -> None:
    world = deaf(4)
    world.link(0, 1)
    node = world[0]
    for seq in range(2, 500):
        tell(node, B, Bcast((post(C, seq, bytes(1024)),)))
    table = node.core._table
    assert PENDING_BYTES - 2000 < table.by_name[C].pending_bytes <= PENDING_BYTES
    tell(node, B, Bcast((post(D, 2), post(D, 1))))
    assert len(node.payloads(D)) == 2


def test_who_publishes_most_gives_way_to_others() -> None:
    world = World(10)
    world.loses = lambda a, b, message: True
    world.link(0, 1)
    node = world[0]
    tell(node, B, Bcast((post(B, 1, b"little"),)))
    for origin in PEERS[2:10]:
        for seq in range(1, 17):
            payload = bytes(60_000)
            tell(node, B, Ihave((post(origin, seq, payload, announced=True),)))
            for at in range(0, len(payload), CHUNK_BYTES):
                tell(node, B, Chunk(origin, 1, seq, at, payload[at : at + CHUNK_BYTES]))
    assert node.core._table.retained_bytes <= TOTAL_RETAINED_BYTES
    assert node.core._table.retained_bytes > TOTAL_RETAINED_BYTES - 2 * 61_000
    assert all(origin.retained_bytes <= RETAINED_BYTES for origin in node.core._table.by_name.values())
    assert 1 in node.core._table.by_name[B].retained
    world.run(RETAINED_S + 2 * DIGEST_S)
    assert node.core.held_bytes == 0


def test_a_large_one_that_finds_no_room_is_fetched_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    world = deaf(3)
    world.link(0, 1)
    node = world[0]
    tell(node, B, Ihave((post(C, 2, bytes(2000), announced=True),)))
    monkeypatch.setattr(node.core._table, "has_room", lambda origin, size: False)
    tell(node, B, Chunk(C, 1, 2, 0, bytes(2000)))
    assert node.core._table.by_name[C].pending == {}
    monkeypatch.undo()
    tell(node, B, Bcast((post(C, 1),)))
    world.run(0.3)
    assert node.sent[-1] == (B, Iwant(C, 1, ((2, 2),)))


def test_a_large_one_without_room_is_not_even_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = deaf(3)
    world.link(0, 1)
    monkeypatch.setattr(world[0].core._table, "has_room", lambda origin, size: False)
    assert tell(world[0], B, Ihave((post(C, 2, bytes(2000), announced=True),))) == []
    assert len(world[0].core._bodies) == 0


def test_no_more_origins_than_members_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedd.core.broadcast_table.MAX_ORIGINS", 2)
    world = deaf(4)
    world.link(0, 1)
    tell(world[0], B, Bcast((post(B, 1), post(C, 1))))
    tell(world[0], B, Marks(False, 0, ((C, 1, 5),)))
    assert [item.origin for item in world[0].heard] == [B]
    assert world[0].core.refused == 2


# -- links


def test_without_a_link_nothing_is_taken() -> None:
    world = deaf(2)
    assert tell(world[0], B, Bcast((post(B, 1),))) == []
    world[0].core.congested(B, world.now)
    world[0].perform(world[0].core.link_down(B, world.now))
    assert world[0].heard == []


def test_a_neighbour_that_was_too_slow_is_told_all_marks() -> None:
    world, a, b = pair()
    a.publish(b"1")
    world.run(5)
    a.core.congested(B, world.now)
    a.perform([])
    count = len(a.sent)
    world.run(1.5)
    assert a.sent[count:] == [(B, Marks(False, 0, ((A, 1, 1),)))]
    assert b.payloads(A) == [b"1"]


def test_who_has_nothing_to_tell_tells_nothing() -> None:
    world, a, _ = pair()
    count = len(a.sent)
    a.core.congested(B, world.now)
    a.perform([])
    world.run(5)
    assert a.sent[count:] == []


def test_marks_are_told_once_a_second_while_something_changes_and_seldom_otherwise() -> None:
    world, a, _ = pair()
    world.run(30)
    assert not any(isinstance(message, Marks) and not message.greeting for _, message in a.sent)
    count = len(a.sent)
    a.publish(b"1")
    a.publish(b"2")
    world.run(2)
    assert [message for _, message in a.sent[count:] if isinstance(message, Marks)] == [
        Marks(False, 0, ((A, 1, 2),))
    ]
    count = len(a.sent)
    world.run(100)
    assert 8 <= len(a.sent) - count <= 14
    world.cut(0, 1)
    count = len(a.sent)
    world.run(30)
    assert len(a.sent) == count


def test_another_stream_of_the_same_link_is_greeted_anew() -> None:
    world = World(2)
    world[1].publish(b"1")
    world.run(10)
    world[0].start()
    world.link(0, 1)
    world.run(1)
    assert world[0].core._marks._elder == B
    count = len(world[0].sent)
    world.link(0, 1)
    assert world[0].core._marks._elder is None
    assert world[0].sent[count][1].greeting
    world.run(1)
    assert world[0].core._marks._elder is None


# -- acknowledgements


def test_acknowledgements_come_back_in_batches() -> None:
    world = World(5)
    world.line(0, 1, 2)
    world.line(1, 3)
    world.line(1, 4)
    world.run(1)
    name = world[0].publish(b"?", wants_acks=True)
    world.run(1)
    assert {each.peer for each in world[0].acked} == set(PEERS[1:5])
    assert all((each.epoch, each.seq) == name[1:] for each in world[0].acked)
    carried = [message for peer, message in world[1].sent if isinstance(message, Acks) and peer == A]
    assert len(carried) <= 3
    assert not any(isinstance(message, Acks) for _, message in world[0].sent)


def test_acknowledgements_that_were_lost_are_asked_for_again() -> None:
    world = World(3)
    world.line(0, 1, 2)
    world.run(1)
    world.loses = lambda a, b, message: isinstance(message, Acks)
    name = world[0].publish(b"?", wants_acks=True)
    world.run(1)
    world.loses = lambda a, b, message: False
    assert world[0].acked == []
    world[0].perform(world[0].core.ask_again(name.seq, [C], world.now))
    world.run(1)
    assert [each.peer for each in world[0].acked] == [C]
    world[0].perform(world[0].core.ask_again(name.seq, [], world.now))
    world[0].perform(world[0].core.ask_again(name.seq + 7, [], world.now))
    world.run(1)
    assert {each.peer for each in world[0].acked} == {B, C}
    # what asks is nobody's business
    assert [item.payload for item in world[2].heard] == [b"?"]


def test_nobody_is_asked_again_without_allowance() -> None:
    world, a, _ = pair()
    for _ in range(int(BURST)):
        a.publish(b"")
    count = len(a.sent)
    a.perform(a.core.ask_again(1, [B], world.now))
    assert len(a.sent) == count


def test_nonsense_on_the_protocols_own_channel_harms_nobody() -> None:
    world = deaf(3)
    world.link(0, 1)
    for seq, payload in enumerate([b"nonsense", encode_items(9, [C]), encode_items(9, [A])], 1):
        tell(world[0], B, Bcast((post(C, seq, payload, channel=""),)))
    assert world[0].heard == []
    assert world[0].distrusted == []
    assert world[0].core.mark_of(C) == (1, 3)


def test_forged_acknowledgements_cost_trust_and_count_for_nobody() -> None:
    world = deaf(4)
    world.link(0, 1)
    a = world[0]
    name = a.publish(b"?", wants_acks=True)
    forged = Acks(*name, ((C, b"forged"),))
    other = Acks(*name, ((C, cheap_keys(C).sign_ack(BroadcastId(A, 1, 9))),))
    for _ in range(MAX_BAD // 2):
        tell(a, B, forged)
        tell(a, B, other)
    assert a.distrusted == []
    good = (C, cheap_keys(C).sign_ack(name))
    tell(a, B, Acks(*name, (good, good, (A, b""), ("stranger", b""))))
    assert [each.peer for each in a.acked] == [C]
    tell(a, B, Acks(A, 1, 9, (good,)))
    tell(a, B, forged)  # known already, so it is not looked at
    assert a.distrusted == []
    tell(a, B, Acks(*name, ((D, b"forged"),)))
    assert [each.peer for each in a.distrusted] == [B]


def test_how_often_one_may_ask_for_acknowledgements() -> None:
    world = World(3)
    world.link(0, 1)
    world.run(1)
    a, b = world[0], world[1]
    for _ in range(OWN_MOST):
        a.publish(b"?", wants_acks=True)
    with pytest.raises(Unhealthy, match="more than it may"):
        a.publish(b"?", wants_acks=True)
    assert 0.9 <= a.core.wait_s(1, world.now, wants_acks=True) <= 2.0
    a.publish(b"!")
    world.run(2.1)
    a.publish(b"?", wants_acks=True)
    world.run(1)
    assert len(a.acked) == OWN_MOST + 1
    # who takes no heed gets no answer
    for seq in range(1, 200):
        tell(b, A, Bcast((post(C, seq, wants_acks=True),)))
    assert len([name for name in b.core._acks._tracked if name.origin == C]) == 2 * OWN_MOST
    world = deaf(30)
    world.link(0, 1)
    for origin in PEERS[2:]:
        for seq in range(1, 11):
            tell(world[0], B, Bcast((post(origin, seq, wants_acks=True),)))
    assert len(world[0].core._acks._tracked) == MAX_TRACKED
    world.run(TRACKED_S + 1)
    tell(world[0], B, Bcast((post(B, 1, wants_acks=True),)))
    assert len(world[0].core._acks._tracked) == 1


def test_arrivals_in_every_error_are_fedd_errors() -> None:
    with pytest.raises(FeddError):
        cheap_keys(A).open(Post(A, 1, 1, b"", b""))
