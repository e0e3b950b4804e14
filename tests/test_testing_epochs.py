"""Runs whose members change, on virtual time: deaths with contract restart, late members, power cuts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api import (
    Dropped,
    FeddError,
    InvalidParameter,
    Message,
    NotConnected,
    QuorumLost,
    Refused,
    RunContext,
)
from fedd.testing import Federation, Join, Kill, NodeResult, Restart


@dataclass(frozen=True)
class Total:
    """Adds up the members' inputs; the sum is right only if nobody is lost meanwhile."""

    name: ClassVar[str] = "total"
    contract: ClassVar[str] = "restart"
    rounds: int = 3

    async def run(self, ctx: RunContext) -> Message:
        known = {ctx.me: ctx.input}
        for _ in range(self.rounds):
            for heard in (await ctx.exchange(known)).values():
                known |= heard
        assert sorted(known) == list(ctx.members)
        return {"members": list(ctx.members), "sum": sum(known.values())}


@dataclass(frozen=True)
class Counter:
    """Counts to `rounds` together, from where the furthest had come; says who came when."""

    name: ClassVar[str] = "counter"
    joinable: ClassVar[bool] = True
    rounds: int = 10

    async def run(self, ctx: RunContext) -> Message:
        came: list[Message] = []
        ctx.on_join(lambda peers: came.extend(peers))
        mine = ctx.restored if isinstance(ctx.restored, int) else 0
        count = max([mine, *(await ctx.flood(mine)).values()])
        assert isinstance(count, int)
        while count < self.rounds:
            await ctx.exchange(count)
            count += 1
            await ctx.checkpoint(count)
        return {"from": mine, "count": count, "came": came, "epoch": ctx.epoch, "round": ctx.round}


def survivors(results: list[NodeResult]) -> list[NodeResult]:
    return [result for result in results if result.error is None]


def test_a_death_begins_the_run_anew_with_the_survivors() -> None:
    results = Federation(4, kills=[Kill(2, 1)]).run(Total(), [1, 2, 4, 8])
    assert [result.killed for result in results] == [False, False, True, False]
    for result in survivors(results):
        assert result.value == {"members": ["node-00", "node-01", "node-03"], "sum": 11}
        assert result.contributors == ("node-00", "node-01", "node-03")
        assert result.epoch == 2
        assert [(lost.peer_id, lost.reason) for lost in result.dropped] == [("node-02", "dead")]
    assert len(survivors(results)) == 3


def test_rounds_count_on_through_epochs() -> None:
    alone = Federation(4).run(Total(), [1, 2, 4, 8])[0]
    assert alone.epoch == 1
    result = Federation(4, kills=[Kill(2, 2)]).run(Total(), [1, 2, 4, 8])[0]
    assert result.rounds == 3 + alone.rounds  # two, and the torn one


@pytest.mark.parametrize(("topology", "rounds"), [("complete", 1), ("complete", 3), ("ring", 4)])
@pytest.mark.parametrize("reaches", ["none", "one", "some", "all"])
def test_whenever_somebody_dies_all_survivors_have_the_same_and_a_right_sum(
    topology: str, rounds: int, reaches: str
) -> None:
    inputs = [1, 2, 4, 8, 16]
    for victim, round in itertools.product((0, 2, 4), range(8)):
        federation = Federation(
            5, topology=topology, kills=[Kill(victim, round, reaches)], latency_s=(0.001, 0.05), seed=round
        )
        left = survivors(federation.run(Total(rounds), inputs))
        assert len(left) >= 4, (victim, round)
        assert len({str(result.value) for result in left}) == 1, (victim, round)
        value = left[0].value
        assert isinstance(value, dict)
        members = value["members"]
        assert isinstance(members, list)
        assert value["sum"] == sum(inputs[int(str(peer)[-2:])] for peer in members)
        assert len(members) >= 4


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["complete", "ring", "star", None]),
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 12), st.sampled_from(["none", "one", "some", "all"])),
        max_size=3,
        unique_by=lambda kill: kill[0],
    ),
)
def test_several_deaths_leave_one_answer(
    seed: int, topology: str | None, deaths: list[tuple[int, int, str]]
) -> None:
    inputs = [1 << index for index in range(7)]
    kills = [Kill(node, round, reaches) for node, round, reaches in deaths]
    federation = Federation(
        7, topology=topology, kills=kills, seed=seed, latency_s=(0.001, 0.4), detection_s=2.0, deadline_s=500
    )
    left = survivors(federation.run(Total(rounds=6), inputs))
    assert len(left) >= 7 - len(kills)
    assert len({str(result.value) for result in left}) == 1
    value = left[0].value
    assert isinstance(value, dict)
    members = value["members"]
    assert isinstance(members, list)
    assert value["sum"] == sum(inputs[int(str(peer)[-2:])] for peer in members)
    assert {result.peer_id for result in left} <= set(members)


def test_too_few_survivors_end_with_the_quorum_lost() -> None:
    results = Federation(3, quorum=3, kills=[Kill(1, 1)]).run(Total(), [1, 2, 4])
    assert [type(result.error) for result in results if not result.killed] == [QuorumLost, QuorumLost]


def test_a_late_member_is_let_in_and_told_to_the_others() -> None:
    results = Federation(4, joins=[Join(1, 5)]).run(Counter(), [None] * 4)
    for result in results:
        assert result.error is None, result
        assert isinstance(result.value, dict)
        assert result.value["count"] == 10
        assert result.value["epoch"] == result.epoch == 2
        assert result.value["came"] == ["node-01"]
        assert [(came.peer_id, came.epoch) for came in result.joined] == [("node-01", 2)]
    started = [result.value["from"] for result in results if isinstance(result.value, dict)]
    assert started[1] == 0
    assert min(started[0], *started[2:]) >= 1


def test_who_is_never_asked_learns_that_the_run_has_ended() -> None:
    results = Federation(3, joins=[Join(2, 1000)]).run(Counter(), [None] * 3)
    assert isinstance(results[2].error, NotConnected)
    assert [result.error for result in results[:2]] == [None, None]


def test_who_comes_back_when_too_few_are_left_does_not_wait_for_ever() -> None:
    federation = Federation(3, kills=[Kill(0, 8), Kill(1, 8)], restarts=[Restart(0, 30.0)], quorum=2)
    results = federation.run(Counter(30), [None] * 3)
    assert [type(result.error) for result in results[1:]] == [FeddError, QuorumLost]
    assert isinstance(results[0].error, Dropped)


def test_an_algorithm_that_takes_in_nobody_refuses_and_goes_on() -> None:
    results = Federation(4, joins=[Join(3, 1)]).run(Total(), [1, 2, 4, 8])
    assert isinstance(results[3].error, Refused)
    assert "nobody who comes later" in results[3].error.detail
    for result in results[:3]:
        assert result.value == {"members": ["node-00", "node-01", "node-02"], "sum": 7}
        assert result.epoch == 1


def test_who_comes_when_the_run_is_about_to_end_is_refused() -> None:
    last = Federation(3, joins=[Join(2, 11)]).run(Counter(), [None] * 3)
    assert isinstance(last[2].error, Refused)
    assert [result.error for result in last[:2]] == [None, None]


@pytest.mark.parametrize("after_s", [0.5, 30.0])
def test_a_killed_member_comes_back_with_its_checkpoint(after_s: float) -> None:
    federation = Federation(4, kills=[Kill(2, 8)], restarts=[Restart(2, after_s)], latency_s=0.2)
    results = federation.run(Counter(300), [None] * 4)
    for result in results:
        assert result.error is None, result
        assert result.epoch == 2
        assert [came.peer_id for came in result.joined] == ["node-02"]
    assert isinstance(results[2].value, dict)
    assert results[2].value["from"] == 5


def test_all_go_on_from_their_checkpoints_after_a_power_cut() -> None:
    everybody = range(4)
    federation = Federation(
        4,
        kills=[Kill(node, 8) for node in everybody],
        restarts=[Restart(node, 5.0 + node) for node in everybody],
    )
    results = federation.run(Counter(30), [None] * 4)
    for result in results:
        assert result.error is None, result
        assert isinstance(result.value, dict)
        assert result.value == {
            "from": 5,
            "count": 30,
            "came": list(federation.peer_ids),
            "epoch": 2,
            "round": result.value["round"],
        }


def test_those_who_are_back_after_a_power_cut_do_not_wait_for_one_who_is_not() -> None:
    everybody = range(4)
    federation = Federation(
        4,
        kills=[Kill(node, 8) for node in everybody],
        restarts=[Restart(node, 5.0) for node in everybody if node != 1],
    )
    results = federation.run(Counter(30), [None] * 4)
    assert [result.error is None for result in results] == [True, False, True, True]
    assert {result.epoch for result in survivors(results)} == {2}


def test_a_run_without_a_checkpoint_is_not_resumed() -> None:
    federation = Federation(
        2, kills=[Kill(0, 1), Kill(1, 1)], restarts=[Restart(0), Restart(1)], deadline_s=100
    )
    assert [result.error is None for result in federation.run(Total(), [1, 2])] == [False, False]


def test_the_same_seed_gives_the_same_story_through_epochs() -> None:
    federation = Federation(
        5,
        kills=[Kill(0, 9), Kill(3, 4)],
        restarts=[Restart(3, 2.0)],
        joins=[Join(4, 6)],
        latency_s=(0.001, 0.5),
        seed=3,
    )
    first, second = (federation.run(Counter(20), [None] * 5) for _ in range(2))
    assert [(result.value, result.rounds, result.epoch) for result in first] == [
        (result.value, result.rounds, result.epoch) for result in second
    ]


@pytest.mark.parametrize(
    "more",
    [
        {"joins": [Join(5, 1)]},
        {"joins": [Join(1, 1), Join(1, 2)]},
        {"joins": [Join(0, 0), Join(1, 0), Join(2, 0)]},
        {"restarts": [Restart(1)]},
        {"kills": [Kill(1, 1)], "restarts": [Restart(1, -1.0)]},
        {"contract": "forever"},
    ],
)
def test_impossible_comings_are_refused(more: dict[str, object]) -> None:
    with pytest.raises(InvalidParameter):
        Federation(3, **more)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(0, 40),
    st.integers(0, 40),
    st.floats(0.1, 12.0),
    st.sampled_from(["none", "one", "some", "all"]),
    st.booleans(),
)
def test_however_joins_deaths_and_returns_meet_nobody_waits_for_ever(
    seed: int, joins_at: int, dies_at: int, away_s: float, reaches: str, another: bool
) -> None:
    federation = Federation(
        5,
        topology="complete",
        latency_s=(0.05, 0.3),
        seed=seed,
        quorum=2,
        joins=[Join(4, joins_at)],
        kills=[Kill(3, dies_at, reaches), *([Kill(0, joins_at + 1)] if another else [])],
        restarts=[Restart(3, away_s)],
        deadline_s=500,
    )
    results = federation.run(Counter(40), [None] * 5)
    well = survivors(results)
    assert len({result.epoch for result in well}) == 1
    for result in results:
        if result.error is None:
            assert isinstance(result.value, dict)
            assert result.value["count"] == 40
        else:
            assert result.killed or isinstance(result.error, Refused | Dropped), result
    assert len(well) >= 3 - another
