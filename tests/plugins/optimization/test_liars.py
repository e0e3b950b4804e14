"""Neighbours that send something else, and what few nodes meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from plugins.optimization.problems import Quadratic, run, values

from fedd.api import Message, RunContext
from fedd.testing import Federation
from fedd_optimization import ADPSGD, DGD, ExactDiffusion, GradientTracking, GTAdam, PushPull


@dataclass(frozen=True)
class WithLiar:
    """An algorithm on all nodes but the first, which sends `lie` in the first exchange."""

    name: ClassVar[str] = "with-liar"
    joinable: ClassVar[bool] = True

    honest: Any
    lie: Any
    tag: str

    async def run(self, ctx: RunContext) -> Message:
        if ctx.me != "node-00":
            value: Message = await self.honest.run(ctx)
            return value
        await ctx.exchange(self.lie, self.tag)
        return None


LIES = [
    ([None, np.array([np.nan, 0.0, 0.0])], "not finite"),
    ([None, np.zeros(3, np.float32)], "float32"),
    ([None, np.zeros(2)], "2 values"),
    ("nonsense", "something else"),
    ([None, np.zeros(3)], "without a weight"),
    ([{"node-01": 2.0}, np.zeros(3)], "without a weight"),
    ([{"node-01": "much"}, np.zeros(3)], "without a weight"),
]


@pytest.mark.parametrize(("lie", "said"), LIES)
def test_a_lie_is_told_with_the_liars_name(lie: Any, said: str) -> None:
    honest = GradientTracking(iterations=3)
    if said == "without a weight":
        lie = [lie[0], np.zeros(6)]  # as long as iterate and tracker
    elif isinstance(lie, list) and lie[1].size == 3:
        lie = [lie[0], np.concatenate((lie[1], lie[1]))]
    algorithm = WithLiar(honest, lie, honest.name)
    results = Federation(2, quorum=1).run(algorithm, Quadratic(2).learners)
    assert results[1].error is None
    ((liar, reason),) = [(drop.peer_id, drop.reason) for drop in results[1].dropped]
    assert liar == "node-00"
    assert reason.startswith("bad message")
    assert said in reason


def test_a_start_that_is_none_is_told() -> None:
    algorithm = WithLiar(DGD(iterations=3, start="first"), ["mine", np.zeros(3)], "start")
    results = Federation(2, quorum=1).run(algorithm, Quadratic(2).learners)
    assert results[1].error is None
    assert "start of a run" in results[1].dropped[0].reason


@dataclass(frozen=True)
class AsksWrongly:
    """Asynchronous descent beside one that asks for nonsense."""

    name: ClassVar[str] = "asks-wrongly"

    async def run(self, ctx: RunContext) -> Message:
        if ctx.me == "node-00":
            ctx.on_ask(ADPSGD.name, lambda peer, message: None)
            return await ctx.ask("node-01", "nonsense", ADPSGD.name)
        return await ADPSGD(iterations=5).run(ctx)


def test_a_question_that_is_no_iterate_harms_the_asker_only() -> None:
    results = Federation(2, quorum=1).run(AsksWrongly(), Quadratic(2).learners)
    assert results[0].error is not None
    assert results[1].error is None


def test_one_node_alone_descends_by_itself() -> None:
    for algorithm in (ADPSGD(iterations=150, step=0.3, batch=0), DGD(iterations=150, step=0.3, batch=2)):
        problem = Quadratic(1)
        (result,) = run(algorithm, problem.learners, "complete")
        assert np.abs(np.asarray(result.value) - problem.optimum()).max() < 1e-9


def test_epsilon_beside_the_root_reaches_the_same_optimum() -> None:
    problem = Quadratic(3)
    algorithm = GTAdam(iterations=300, step=0.02, epsilon=1e-3, epsilon_in_root=False, history=0)
    reached = values(run(algorithm, problem.learners, "complete"))
    assert np.abs(reached - problem.optimum()).max() < 1e-6


@pytest.mark.parametrize(
    "honest",
    [
        GradientTracking(iterations=250, step=0.15, history=0),
        ExactDiffusion(iterations=250, step=0.25, history=0),
        PushPull(iterations=250, step=0.15, history=0),
    ],
    ids=lambda each: each.name,
)
def test_the_others_end_at_their_own_optimum(honest: Any) -> None:
    problem = Quadratic(5)
    algorithm = WithLiar(honest, ["nonsense"], honest.name)
    results = Federation(5, topology="complete").run(algorithm, problem.learners)
    for result in results[1:]:
        assert result.error is None
        assert [drop.peer_id for drop in result.dropped] == ["node-00"]
        assert np.abs(np.asarray(result.value) - problem.optimum([1, 2, 3, 4])).max() < 1e-9
