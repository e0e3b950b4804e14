"""The ballot box: what gets in, what is void, and the digest."""

from __future__ import annotations

from typing import Any

import pytest
from plugins.voting.lockstep import QUESTION, signature, signed_ballot, verify

from fedd_voting.ballots import Question
from fedd_voting.box import BallotBox

VOTERS = ("n0", "n1", "n2")


def box(*items: Any, question: Question = QUESTION) -> BallotBox:
    new = BallotBox(question, VOTERS, verify)
    for item in items:
        new.take([item])
    return new


def forged(index: int, value: object) -> list[Any]:
    item = signed_ballot("n0", "yes")
    item[index] = value
    return item


@pytest.mark.parametrize(
    "item",
    [
        forged(0, "n1"),
        forged(0, "n7"),
        forged(0, 0),
        forged(1, b'["no"]'),
        forged(1, '["yes"]'),
        forged(2, b"\0" * 64),
        forged(2, None),
        signed_ballot("n7", "yes"),
        ["n0", b'["maybe"]', signature("n0", box().signed_data(b'["maybe"]'))],
        [],
        [*signed_ballot("n0", "yes"), 1],
        None,
        {"n0": "yes"},
    ],
)
def test_what_is_no_signed_ballot_stays_out(item: Any) -> None:
    assert box(item).ballots == {}
    assert box(item).digest() == box().digest()


@pytest.mark.parametrize("items", [None, 7, {}, "rubbish", b"rubbish"])
def test_what_is_no_list_is_empty(items: Any) -> None:
    assert box().take(items) == []


def test_a_ballot_for_another_question_does_not_count() -> None:
    other = Question("close the vent", QUESTION.options, QUESTION.rule)
    assert box(signed_ballot("n0", "yes"), question=other).ballots == {}


def test_only_what_is_new_is_passed_on() -> None:
    known = box(signed_ballot("n0", "yes"))
    both = [signed_ballot("n0", "yes"), signed_ballot("n1", "no")]
    assert known.take(both) == [signed_ballot("n1", "no")]
    assert known.take(both) == []


def test_the_digest_is_of_the_set_not_of_the_order() -> None:
    first, second = signed_ballot("n0", "yes"), signed_ballot("n2", "no")
    assert box(first, second).digest() == box(second, first).digest()
    assert box(first).digest() != box(second).digest() != box().digest()


def test_a_voter_with_two_ballots_has_none_and_a_third_changes_nothing() -> None:
    question = Question("which", ("a", "b", "c"), "plurality")

    def vote(option: str) -> list[Any]:
        data = question.encode([option])
        return ["n0", data, signature("n0", box(question=question).signed_data(data))]

    ab = box(vote("a"), vote("b"), vote("c"), question=question)
    cb = box(vote("c"), vote("b"), question=question)
    assert (ab.ballots, ab.void) == ({}, ("n0",))
    assert box(vote("a"), vote("b"), question=question).take([vote("c")]) == []
    assert ab.digest() == cb.digest()
    assert ab.digest() != box(vote("a"), question=question).digest()


def test_nobody_is_kept_busy_by_more_items_than_there_can_be_ballots() -> None:
    checked: list[str] = []

    def counting(voter: str, data: bytes, signed: bytes) -> bool:
        checked.append(voter)
        return False

    BallotBox(QUESTION, VOTERS, counting).take([signed_ballot("n0", "yes")] * 1000)
    assert len(checked) == 6
