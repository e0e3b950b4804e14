"""Broadcasts that were missed: repaired, told to be gone, and what newcomers begin with."""

from __future__ import annotations

import pytest
from core.broadcast_world import PEERS, World
from core.test_broadcast import A, B, C, D, deaf, pair, post, tell

from fedd.core.broadcast_messages import (
    Bcast,
    Chunk,
    Gone,
    Ihave,
    Iwant,
    Marks,
)
from fedd.core.broadcast_origin import RETAINED, WINDOW
from fedd.core.broadcast_search import GIVE_UP_S, MAX_CLAIMS
from fedd.core.broadcast_types import Deliver, Gap
from fedd.core.records import MAX_COUNTER


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
