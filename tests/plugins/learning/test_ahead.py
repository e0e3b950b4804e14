"""Training on a model before all have agreed on it: an agreement less a round, and all comes to the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from plugins.learning.test_deaths import check, toys_of
from plugins.learning.test_parts import PEERS
from plugins.learning.test_workflow import ready

from fedd.api import Aggregate, Contribution, Message, RunContext
from fedd.testing import Federation
from fedd_aggregators import FedAvg
from fedd_learning import Learning, training
from fedd_learning.messages import ModelsAggregated, ModelTrained
from fedd_learning.node import Node
from fedd_learning.training import MAX_DOUBT, Trainer
from fedd_learning.workflow import Event, Plan, Workflow

if TYPE_CHECKING:
    from fedd.api.types import Array

ROUNDS = 4
ONE = "node-01"
AGREEMENT = 2
"""Exchanges: four members, a quorum of three."""


@dataclass(frozen=True)
class WithAChange(Learning):
    """Learning in which one member is not as the others."""

    change: Any = None

    async def run(self, ctx: RunContext) -> Message:
        """As Learning, with that member's node changed before it begins."""
        node = Node(self, ctx)
        if ctx.me == ONE:
            self.change(node)
        return await node.run()


def opened(me: str = "a", **plan: Any) -> Workflow:
    """A machine of three whose members hold the first model."""
    flow = Workflow(me, Plan(5, **plan), 0, 1, PEERS)
    assert flow.conclude_sync({peer: ready(0, "x") for peer in PEERS}) is Event.READY
    return flow


def offering(round: int, *without: str) -> dict[str, tuple[Any, ...]]:
    """All hold the same model after that many rounds; all but these have trained on it."""
    return {
        peer: (*ready(round, "y"), *([] if peer in without else [ModelTrained(round, 10, "", {"7": 3})]))
        for peer in PEERS
    }


def test_offers_along_with_sync_count_if_the_whole_train_set_makes_them() -> None:
    flow = opened()
    assert flow.foreseen_ahead(offering(1)) == ({"a": 10, "b": 10, "c": 10}, "")
    assert (flow.round, flow.weights, flow.labels) == (0, {}, {})  # it has only looked
    assert flow.conclude_sync(offering(1)) is Event.OFFERED
    assert (flow.round, flow.weights) == (1, {"a": 10, "b": 10, "c": 10})
    assert flow.record is not None
    assert flow.record.round == 1


@pytest.mark.parametrize(
    "said",
    [
        offering(1, "b"),
        {**offering(1), "b": (*ready(1, "y"), ModelTrained(0, 10))},
        {peer: (*ready(1, "y"), ModelTrained(1, 0)) for peer in PEERS},
    ],
    ids=["one-does-not", "of-another-round", "none-is-fit"],
)
def test_else_all_train_once_they_have_agreed(said: dict[str, tuple[Any, ...]]) -> None:
    flow = opened()
    assert flow.foreseen_ahead(said) is None
    assert flow.conclude_sync(said) is Event.READY


def test_nothing_is_foreseen_while_somebody_was_not_heard_or_holds_another_model() -> None:
    flow = opened()
    assert flow.foreseen_ahead({peer: offering(1)[peer] for peer in "ab"}) is None
    other = {**offering(1), "b": (*ready(1, "z"), ModelTrained(1, 10))}
    assert flow.foreseen_ahead(other) is None
    assert flow.conclude_sync(other) is Event.BEHIND
    assert flow.foreseen_ahead({**offering(1), "a": ()}) is None  # an own statement that is lost
    torn = {peer: (ModelsAggregated(0), ModelTrained(0, 10)) for peer in PEERS}
    assert flow.foreseen_ahead(torn) is None


def test_the_train_set_is_foreseen_unless_it_is_voted() -> None:
    assert opened().foresees_training(3)
    drawn = [[opened(me, train_set=1).foresees_training(number) for me in PEERS] for number in range(9)]
    assert all(sum(row) == 1 for row in drawn)
    assert not any(opened(me, train_set=1, train_set_by="vote").foresees_training(3) for me in PEERS)


@pytest.mark.parametrize(("size", "chunk"), [(7, 4 * 1024 * 1024), (100, 2048)], ids=["whole", "in-parts"])
@pytest.mark.parametrize(("train_set", "spared"), [(0, ROUNDS - 1), (2, ROUNDS - 2)], ids=["all", "two"])
def test_it_spares_an_agreement_and_changes_no_bit(
    size: int, chunk: int, train_set: int, spared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two trainers one is drawn late for the first time: how long its trainings take was not known."""

    def run() -> tuple[str, int]:
        toys = toys_of(4, size)
        learning = Learning(rounds=ROUNDS, train_set=train_set, chunk_bytes=chunk)
        results = Federation(4, topology="complete").run(learning, toys)
        told = check(results, toys, ROUNDS)
        assert sum(toy.trainings for toy in toys) == ROUNDS * (train_set or 4)
        return str(told["digest"]), results[0].rounds

    ahead, exchanges = run()
    monkeypatch.setattr(training, "AHEAD_S", -1.0)
    assert run() == (ahead, exchanges + spared * AGREEMENT)


def test_where_one_never_does_it_the_others_give_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    doubts: list[int] = []

    def change(node: Node) -> None:
        node._trainer._doubt = MAX_DOUBT  # as one whose trainings take long

    def went_ahead(trainer: Trainer, *, in_vain: bool) -> None:
        went(trainer, in_vain=in_vain)
        doubts.append(trainer._doubt)

    went = Trainer.went_ahead
    monkeypatch.setattr(Trainer, "went_ahead", went_ahead)
    toys = toys_of(4)
    results = Federation(4, topology="complete").run(WithAChange(rounds=6, change=change), toys)
    check(results, toys, 6)
    assert sorted(doubts) == [2, 2, 2, 4, 4, 4, MAX_DOUBT, MAX_DOUBT, MAX_DOUBT]
    assert [toy.trainings for toy in toys] == [6] * 4  # what was trained ahead is what is offered later


@dataclass(frozen=True)
class OddOnce(FedAvg):
    """FedAvg on a processor that rounds differently, once."""

    rounds: Any = None

    def aggregate(
        self, model: Sequence[Array], contributions: Sequence[Contribution], state: Sequence[Array]
    ) -> Aggregate:
        """With one bit changed in the second round."""
        found = super().aggregate(model, contributions, state)
        self.rounds.append(1)
        if len(self.rounds) != 2:
            return found
        return replace(found, model=[np.nextafter(found.model[0], 9), *found.model[1:]])


def test_who_has_trained_on_another_model_trains_again() -> None:
    toys = toys_of(4)

    def change(node: Node) -> None:
        node._aggregator = OddOnce(rounds=[])

    results = Federation(4, topology="complete").run(WithAChange(rounds=ROUNDS, change=change), toys)
    check(results, toys, ROUNDS)
    assert [toy.trainings for toy in toys] == [ROUNDS, ROUNDS + 1, ROUNDS, ROUNDS]
