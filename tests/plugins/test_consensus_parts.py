"""The parts of averaging: what comes from a neighbour is checked, masses and entries stay balanced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import pytest

from fedd.api import InvalidMessage, InvalidParameter, Message, RunContext
from fedd.testing import Federation
from fedd_consensus import AverageConsensus
from fedd_consensus.flows import Flows, distance, edge_weight, received_degree
from fedd_consensus.push_sum import _Totals
from fedd_consensus.values import parts, received


class Members:
    """As much of a context as flows need."""

    members = ("a", "b", "c")

    def __init__(self) -> None:
        self.neighbors = {"b": 0.25, "c": 0.25}
        self.finished: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (None, "something else"),
        (3, "something else"),
        (np.zeros(2, np.float32), "something else"),
        (np.zeros(3), "shapes"),
        (np.array([0.0, np.inf]), "not finite"),
    ],
)
def test_a_value_that_is_none_is_refused(message: Message, said: str) -> None:
    with pytest.raises(InvalidMessage, match=said):
        received(message, (2,))


def test_a_message_has_its_parts() -> None:
    assert parts([1, 2], 2) == [1, 2]
    for message in (None, [1], [1, 2, 3]):
        with pytest.raises(InvalidMessage, match="2 parts"):
            parts(cast(Message, message), 2)


@pytest.mark.parametrize("degree", [0, 3, True, 1.0, None])
def test_a_degree_that_nobody_has_is_refused(degree: Message) -> None:
    assert received_degree(2, cast(RunContext, Members())) == 2
    with pytest.raises(InvalidMessage, match="neighbours"):
        received_degree(degree, cast(RunContext, Members()))


def test_entries_of_the_gone_and_the_cut_off_are_deleted_and_those_of_the_finished_stay() -> None:
    members = Members()
    flows = Flows(cast(RunContext, members), np.array([10.0]))
    flows.book("b", np.array([3.0]))
    flows.book("b", np.array([1.0]))
    flows.book("c", np.array([-2.0]))
    assert flows.value.tolist() == [8.0]
    del members.neighbors["b"]
    assert flows.value.tolist() == [12.0]
    flows.book("b", np.array([5.0]))  # a message that was on the way
    assert flows.value.tolist() == [12.0]
    del members.neighbors["c"]
    members.finished = frozenset({"c"})
    assert flows.value.tolist() == [12.0]


def test_weights_by_rule() -> None:
    assert edge_weight("metropolis", 0.9, (2, 3)) == 0.25
    assert edge_weight("lazy", 0.9, (2, 3)) == edge_weight("metropolis", 0.9, (2, 3), lazy=True) == 0.125
    assert edge_weight("lazy", 0.9, (2, 3), lazy=True) == 0.125
    assert edge_weight("explicit", 0.4, (2, 3)) == edge_weight("uniform", 0.8, (2, 3), lazy=True) == 0.4
    assert distance(np.zeros(0), np.zeros(0)) == 0.0


def test_masses_survive_losses_and_deaths() -> None:
    one, other, third = (_Totals(np.array([value])) for value in (1.0, 5.0, 9.0))
    one.share(("other", "third"))
    other.take("one", one.sent("other"))
    one.share(("other",))  # to third nothing came yet: it is in the next total
    other.take("one", one.sent("other"))
    assert one._sum + other._sum + one.sent("third")[0] == pytest.approx(6.0)
    one.forget("third", "dead")
    third.forget("one", "dead")
    third.take("one", (np.array([4.0]), 1.0))
    assert (third._sum.tolist(), third.weight) == ([9.0], 1.0)
    assert one._sum + other._sum == pytest.approx(6.0)
    assert one.weight + other.weight == pytest.approx(2.0)


def test_an_estimate_without_weight_is_the_last_one() -> None:
    node = _Totals(np.array([2.0]))
    assert node.estimate.tolist() == [2.0]
    node.take("other", (np.array([1.0]), -1.0))
    assert node.estimate.tolist() == [2.0]


@dataclass(frozen=True)
class OnALedger:
    name: ClassVar[str] = "on-a-ledger"

    async def run(self, ctx: RunContext) -> Message:
        await ctx.ledger(1.0).step()
        return None


def test_a_ledger_needs_both_ways_of_an_edge() -> None:
    for result in Federation(3, topology="directed-ring").run(OnALedger(), [None] * 3):
        assert isinstance(result.error, InvalidParameter)
        assert "directed" in str(result.error)
        assert result.rounds == 0


@dataclass(frozen=True)
class Liar:
    """One node sends a weight that is none."""

    name: ClassVar[str] = "liar"

    async def run(self, ctx: RunContext) -> Message:
        if ctx.me == "node-00":
            await ctx.exchange([np.zeros(1), "heavy"], tag="push-sum")
            return None
        return await AverageConsensus(method="push-sum").run(ctx)


def test_a_weight_that_is_no_number_puts_its_sender_out() -> None:
    results = Federation(5, topology="ring", quorum=1).run(Liar(), [1, 2, 3, 7, 4])
    for result in results[1:]:
        assert result.error is None
        assert result.value == pytest.approx(4.0, abs=1e-9)
        ((peer, reason),) = [(dropped.peer_id, dropped.reason) for dropped in result.dropped]
        assert peer == "node-00"
        assert reason.startswith("bad message: it sent a total weight that is no number")
