"""Ballots and counting: pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedd.api import InvalidMessage, Message
from fedd_voting.ballots import MAX_BALLOT_BYTES, MAX_WEIGHT, Ballot, Question, Rule, options_of
from fedd_voting.tally import Quorum, count, winner

FRUIT = ("apple", "pear", "plum")
MEMBERS = ("n0", "n1", "n2", "n3", "n4")


def question(rule: Rule, options: tuple[str, ...] = FRUIT) -> Question:
    return Question("what to plant", MEMBERS if rule == "train-set" else options, rule)


@pytest.mark.parametrize(
    ("rule", "given", "ballot"),
    [
        ("plurality", "pear", ["pear"]),
        ("plurality", " pear ", ["pear"]),
        ("plurality", ["plum"], ["plum"]),
        ("approval", "plum, apple", ["apple", "plum"]),
        ("approval", ["pear"], ["pear"]),
        ("approval", [], []),
        ("borda", ["plum", "apple"], ["plum", "apple"]),
        ("borda", "plum,apple,pear", ["plum", "apple", "pear"]),
        ("train-set", {"n1": 3, "n0": 7, "n4": 3}, [("n0", 7), ("n1", 3), ("n4", 3)]),
    ],
)
def test_what_can_be_given_and_that_it_travels(rule: Rule, given: Message, ballot: Ballot) -> None:
    asked = question(rule)
    assert asked.read(given) == ballot
    assert asked.decode(asked.encode(ballot)) == ballot


def test_true_and_false_are_yes_and_no_and_numbers_are_words() -> None:
    assert question("plurality", ("yes", "no")).read(True) == ["yes"]
    assert question("plurality", ("yes", "no")).read(False) == ["no"]
    assert question("plurality", ("1", "2")).read(2) == ["2"]


@pytest.mark.parametrize(
    ("rule", "given", "why"),
    [
        ("plurality", "kiwi", "not on the list"),
        ("plurality", ["pear", "plum"], "names 2 options"),
        ("plurality", [], "names 0 options"),
        ("plurality", True, "'yes' is not on the list"),
        ("approval", "pear,pear", "names an option twice"),
        ("borda", ["plum", 3.5], "not on the list"),
        ("train-set", "n1", "is no {member: weight}"),
        ("train-set", {"n9": 1}, "no member of this run"),
        ("train-set", {"n1": -1}, "no whole number"),
        ("train-set", {"n1": MAX_WEIGHT + 1}, "no whole number"),
        ("train-set", {"n1": True}, "no whole number"),
    ],
)
def test_what_is_no_ballot_is_refused_with_the_reason(rule: Rule, given: Message, why: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        question(rule).read(given)
    assert why in caught.value.detail


@pytest.mark.parametrize("rule", ["plurality", "approval", "borda", "train-set"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"7",
        b"null",
        b'["kiwi"]',
        b'[ "pear"]',
        b'"pear"',
        b'["plum","apple","plum"]',
        b'[["n1",1],["n0",2]]',
        b'[["n0",1.0]]',
        b'[[["n0"],1]]',
        b'{"n0":1}',
        b"[" * 5000,
        b'["' + b"x" * MAX_BALLOT_BYTES + b'"]',
    ],
)
def test_what_was_not_written_by_encode_is_no_ballot(rule: Rule, data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        question(rule).decode(data)


def test_a_ballot_that_is_too_large_is_not_sent() -> None:
    many = tuple(f"{index:060d}" for index in range(600))
    with pytest.raises(InvalidMessage, match="more than"):
        Question("", many, "borda").encode(list(many))


def test_a_drawn_ballot_has_the_size_and_p2pfls_weights() -> None:
    asked = question("train-set")
    for seed in range(50):
        ballot = asked.draw(3, np.random.default_rng(seed))
        assert len(ballot) == 3
        assert asked.read(dict(ballot)) == ballot
        assert sorted((weight for _, weight in ballot), reverse=True)[1] <= 1000
    assert len(asked.draw(9, np.random.default_rng(0))) == 5


@pytest.mark.parametrize(
    "text", ["yes", "", "a,,b", "a,b,a", ",".join(map(str, range(65))), "a," + "b" * 101]
)
def test_options_that_make_no_question_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="options must"):
        options_of(text)


def counted(rule: Rule, ballots: list[Any], quorum: str = "", size: int = 4) -> tuple[Any, dict[str, int]]:
    asked = question(rule)
    read = {f"n{index}": asked.read(ballot) for index, ballot in enumerate(ballots) if ballot is not None}
    return winner(asked, read, Quorum.read(quorum), size), count(asked, read)


def test_plurality() -> None:
    assert counted("plurality", ["pear", "plum", "pear"]) == ("pear", {"apple": 0, "pear": 2, "plum": 1})
    assert counted("plurality", ["plum", "pear"])[0] == "pear"  # a tie: the first of the question
    assert counted("plurality", [])[0] is None


@pytest.mark.parametrize(
    ("votes", "quorum", "won"),
    [
        (("pear",) * 5, "5/7", "pear"),
        (("pear",) * 4 + ("plum",), "5/7", None),
        (("pear",) * 4 + ("plum",), "4", "pear"),
        (("pear",) * 4, "5/7", None),
    ],
)
def test_m_of_n_must_stand_behind_the_winner(votes: tuple[str, ...], quorum: str, won: str | None) -> None:
    assert counted("plurality", list(votes), quorum)[0] == won


def test_approval() -> None:
    ballots = ["pear,plum", "plum", "apple,plum", []]
    assert counted("approval", ballots) == ("plum", {"apple": 1, "pear": 1, "plum": 3})
    assert counted("approval", ballots, "4")[0] is None
    assert counted("approval", [[], []])[0] is None


def test_borda() -> None:
    ballots = ["apple,pear,plum", "pear,plum,apple", "plum"]
    assert counted("borda", ballots) == ("pear", {"apple": 2, "pear": 3, "plum": 3})
    assert counted("borda", ballots, "3")[0] == "pear"
    assert counted("borda", ballots, "4")[0] is None


def test_a_train_set_is_the_heaviest_and_ties_go_to_the_last_name() -> None:
    ballots = [{"n0": 5, "n1": 5}, {"n2": 9}, {"n1": 2, "n0": 2}]
    assert counted("train-set", ballots, size=2) == (["n2", "n1"], {"n0": 7, "n1": 7, "n2": 9})
    assert counted("train-set", ballots, size=9)[0] == ["n2", "n1", "n0"]
    assert counted("train-set", ballots, "4/5")[0] is None
    assert counted("train-set", [])[0] is None


def test_who_has_not_voted_is_in_no_train_set() -> None:
    assert counted("train-set", [{"n4": 9, "n1": 1}, {"n4": 9}])[0] == ["n1"]


@pytest.mark.parametrize("text", ["0", "0/7", "8/7", "5/", "/7", "-1", "five", "5/7/9", "1/0", "12345"])
def test_a_quorum_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quorum must"):
        Quorum.read(text)
