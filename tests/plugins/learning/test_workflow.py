"""The decision machine: what members decide from the same statements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from plugins.learning.test_parts import PEERS

from fedd.api import InvalidParameter, ProtocolError
from fedd_learning.messages import (
    ModelInitialized,
    ModelsAggregated,
    ModelsReady,
    ModelTrained,
    VoteTrainSet,
)
from fedd_learning.workflow import TRANSITIONS, Event, Plan, State, Workflow, rendezvous, tally


def test_the_table_is_the_machine() -> None:
    pairs = {(row.state, row.event): row.next for row in TRANSITIONS}
    assert len(pairs) == len(TRANSITIONS)
    assert {row.state for row in TRANSITIONS} == set(State) - {State.FINISHED}
    assert {row.event for row in TRANSITIONS} == set(Event)
    for state in State:
        for event in Event:
            flow = Workflow("a", Plan(1), 0, 1, PEERS, state=state)
            if (state, event) in pairs:
                flow.proceed(event)
                assert flow.state is pairs[state, event]
            else:
                with pytest.raises(ProtocolError, match="cannot happen"):
                    flow.proceed(event)


def test_agreements_bear_what_the_quorum_does() -> None:
    def crashes(members: int, quorum: int, most: int = 3) -> int:
        return Workflow("a", Plan(1, crashes=most), 0, quorum, ("a",) * members).crashes

    assert [crashes(2, 2), crashes(5, 3), crashes(10, 6), crashes(10, 6, 1), crashes(2, 5)] == [0, 2, 3, 1, 0]


def ready(round: int, digest: str, shapes: str = "f4:3") -> tuple[Any, ...]:
    return (ModelsReady(round, digest, shapes) if round else ModelInitialized(0, digest, shapes),)


def test_the_starters_model_is_the_first() -> None:
    said = {"a": ready(0, "one"), "b": ready(0, "two"), "c": ready(0, "one")}
    flow = Workflow("a", Plan(5), 0, 1, PEERS, initiator="b")
    assert flow.conclude_sync(said) is Event.BEHIND
    assert (flow.holders, flow.behind) == (("b",), ("a", "c"))
    flow = Workflow("a", Plan(5), 0, 1, PEERS, initiator="gone")
    assert flow.conclude_sync(said) is Event.BEHIND
    assert (flow.holders, flow.behind) == (("a", "c"), ("b",))


def test_the_furthest_has_the_model_and_the_odd_one_leaves() -> None:
    said = {"a": ready(2, "x"), "b": ready(3, "y"), "c": ready(3, "y", "f4:9")}
    flow = Workflow("a", Plan(5), 0, 1, PEERS)
    assert flow.conclude_sync(said) is Event.BEHIND
    assert (flow.holders, flow.behind, flow.members) == (("b",), ("a",), ("a", "b"))
    with pytest.raises(InvalidParameter, match="the model here is f4:9, 2 members have f4:3"):
        Workflow("c", Plan(5), 0, 1, PEERS).conclude_sync(said)


def test_an_own_statement_that_is_lost_ends_the_part() -> None:
    with pytest.raises(ProtocolError, match="own statement"):
        Workflow("c", Plan(5), 0, 1, PEERS).conclude_sync({"a": ready(0, "x")})


def spread_once(*, refused: Mapping[str, str] | None = None, dead: str = "") -> tuple[Workflow, Event]:
    flow = Workflow("a", Plan(5), 0, 1, PEERS)
    flow.conclude_sync({peer: ready(0, "x") for peer in PEERS})
    flow.conclude_offers({peer: (ModelTrained(0, 10),) for peer in PEERS})
    flow.begin_spread()
    torn = (ModelsAggregated(0, dict(refused or {})),)
    return flow, flow.conclude_sync({peer: torn for peer in PEERS if peer != dead})


def test_a_torn_round_is_spread_again_without_the_dead() -> None:
    flow, event = spread_once(dead="c")
    assert event is Event.TORN
    assert flow.weights == {"a": 10, "b": 10}
    assert "died" in flow.left_out["c"]


def test_a_torn_round_is_spread_again_without_the_refused() -> None:
    flow, event = spread_once(refused={"b": "it sent values that are not finite", "zzz": "who"})
    assert event is Event.TORN
    assert flow.weights == {"a": 10, "c": 10}
    assert flow.left_out == {"b": "it sent values that are not finite"}


def test_a_round_that_nobody_can_complete_is_passed_over() -> None:
    flow, event = spread_once()
    assert event is Event.READY
    assert flow.round == 1
    assert flow.record is not None
    assert flow.record.contributors == ()
    assert flow.record.digest == "x"


def test_offers_are_weighed() -> None:
    flow = Workflow("a", Plan(5, max_samples=100), 0, 1, PEERS)
    flow.conclude_sync({peer: ready(0, "x") for peer in PEERS})
    offers = {
        "a": (ModelTrained(0, 10, "f4:3", {"7": 10}),),
        "b": (ModelTrained(0, 20, "f4:4"),),
        "c": (ModelTrained(0, 30, "f4:3"),),
    }
    assert flow.conclude_offers(offers) is Event.OFFERED
    assert flow.weights == {"a": 10, "c": 30}
    assert "extra arrays" in flow.left_out["b"]
    assert flow.labels == {"a": {"7": 10}}
    nothing = {"a": (ModelTrained(0, 0),), "b": (ModelTrained(0, 200),), "c": (ModelTrained(9, 10),)}
    assert flow.conclude_offers(nothing) is Event.NOTHING


def test_train_sets_are_drawn_alike_everywhere() -> None:
    members = tuple(f"p{number}" for number in range(10))
    drawn = [rendezvous(members, 3, 7, round) for round in range(200)]
    assert all(len(names) == 3 and list(names) == sorted(names) for names in drawn)
    counts = [sum(peer in names for names in drawn) for peer in members]
    assert 30 < min(counts) <= max(counts) < 95
    without = rendezvous([m for m in members if m not in drawn[0][:1]], 3, 7, 0)
    assert set(drawn[0][1:]) <= set(without)


def test_votes_are_summed_and_ties_go_to_the_lower_id() -> None:
    said = {
        "a": (VoteTrainSet(0, {"b": 5, "c": 2, "stranger": 99}),),
        "b": (VoteTrainSet(0, {"c": 3}),),
        "c": (),
    }
    assert tally(PEERS, said, 1) == ("b",)
    assert tally(PEERS, said, 2) == ("b", "c")
    assert tally(PEERS, {}, 2) == ("a", "b")
