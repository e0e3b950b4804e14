"""Acknowledgements of broadcasts: in batches, asked for again, and never forged."""

from __future__ import annotations

from collections import Counter

import pytest
from core.broadcast_world import PEERS, World, cheap_keys
from core.test_broadcast import A, B, C, D, deaf, pair, post, tell

from fedd.api.errors import Unhealthy
from fedd.core.broadcast_acks import BATCH_S, MAX_TRACKED, OWN_MOST, TRACKED_S, WITHIN_S, Acknowledgements
from fedd.core.broadcast_intake import MAX_BAD
from fedd.core.broadcast_messages import (
    Acks,
    Bcast,
    encode_items,
)
from fedd.core.broadcast_origin import BURST
from fedd.core.broadcast_types import BroadcastId


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


def test_who_gave_it_to_nobody_acknowledges_at_once_and_who_did_waits_for_them() -> None:
    world = World(4, latency_s=(0.01, 0.01))
    world.line(0, 1, 2)
    world.link(1, 3)
    world.run(1)
    world[0].publish(b"?", wants_acks=True)
    began = world.now
    world.run(0.025)
    assert [type(message) for _, message in world[2].sent[-1:]] == [Acks]
    assert world[2].core._acks.next_deadline() is None
    assert world[1].core._acks.next_deadline() == pytest.approx(began + 0.01 + BATCH_S)
    world.run(BATCH_S)
    assert {each.peer for each in world[0].acked} == set(PEERS[1:4])
    assert sum(isinstance(message, Acks) for _, message in world[1].sent) == 1


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


def test_what_a_member_says_on_its_own_link_with_the_origin_needs_no_signature() -> None:
    world = deaf(4)
    world.line(1, 0, 2)
    a = world[0]
    name = a.publish(b"?", wants_acks=True)
    tell(a, B, Acks(*name, ((B, b"unread"),)))
    tell(a, C, Acks(*name, ((D, b"forged"),)))
    assert [each.peer for each in a.acked] == [B]


def test_whoever_passes_acknowledgements_on_looks_at_each() -> None:
    world = deaf(3)
    world.line(0, 1, 2)
    b = world[1]
    tell(b, A, Bcast((post(A, 1, b"?", wants_acks=True),)))
    world.run(0.1)
    name, before = BroadcastId(A, 1, 1), len(b.sent)
    tell(b, C, Acks(*name, ((C, b"forged"),)))
    world.run(0.1)
    assert len(b.sent) == before
    good = (C, cheap_keys(C).sign_ack(name))
    tell(b, C, Acks(*name, (good,)))
    world.run(0.1)
    assert [sent[1] for sent in b.sent[before:]] == [Acks(*name, (good,))]


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


def test_an_origin_waits_for_its_own_broadcasts_and_for_none_that_is_forgotten() -> None:
    keys = cheap_keys(A)
    acks = Acknowledgements(A, keys.sign_ack, keys.verify_ack)

    def deliver(origin: str, seq: int, now: float) -> None:
        acks.delivered(BroadcastId(origin, 1, seq), A, now)
        of_each = Counter(name.origin for name in acks._tracked)
        # no entry stays of who has none: as many as have ever published would be kept
        assert dict(acks._tracked_of) == dict(of_each)

    def waits(now: float) -> list[float]:
        return [acks.wait_s(origin, most, now) for origin in (B, C) for most in (1, 2, 3)]

    deliver(B, 1, 10.0)
    deliver(C, 1, 10.5)
    deliver(B, 2, 11.0)
    assert waits(11.0) == [WITHIN_S, WITHIN_S - 1.0, 0.0, WITHIN_S - 0.5, 0.0, 0.0]
    deliver(B, 1, 11.5)  # asked for again, so it is the newest
    assert waits(11.5) == [WITHIN_S, WITHIN_S - 0.5, 0.0, WITHIN_S - 1.0, 0.0, 0.0]
    assert acks.wait_s(D, 1, 11.5) == 0.0
    assert D not in acks._tracked_of
    # those of others push the oldest out, and time the rest
    for number, origin in enumerate(PEERS[4:20]):
        for seq in range(MAX_TRACKED // 16 - (number == 0)):
            deliver(origin, seq, 12.0)
    assert len(acks._tracked) == MAX_TRACKED
    assert waits(12.0) == [1.5, 0.0, 0.0, 0.0, 0.0, 0.0]
    deliver(D, 1, 12.0)
    assert waits(12.0) == [0.0] * 6
    deliver(C, 2, 12.0 + TRACKED_S + 1.0)
    assert waits(12.0 + TRACKED_S + 1.5) == [0.0, 0.0, 0.0, WITHIN_S - 0.5, 0.0, 0.0]
    assert list(acks._tracked_of) == [C]
