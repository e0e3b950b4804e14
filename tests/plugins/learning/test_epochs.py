"""Late members and returning ones: they get the model, train along, and nothing that was learned is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plugins.learning.test_deaths import check, replay, toys_of
from plugins.learning.toy import Toy

from fedd.testing import Federation, Join, Kill, NodeResult, Restart
from fedd_learning import Learning

ROUNDS = 9
TOO_LATE = (
    "the others finished without this node",
    "not let in: the run is about to end",
    "the run has ended",
)


def digest_of(result: NodeResult) -> str:
    told: Any = result.value
    return str(told["digest"])


def names(result: NodeResult) -> Mapping[str, list[str]]:
    told: Any = result.value
    return dict(told["contributors_by_round"])


@pytest.mark.parametrize("at", [0, 3, 10, 14, 17, 20])
def test_a_late_member_gets_the_model_and_trains_along(at: int) -> None:
    toys = toys_of(4)
    federation = Federation(4, topology="complete", joins=[Join(3, at)])
    results = federation.run(Learning(rounds=ROUNDS), toys)
    assert all(result.error is None for result in results), [result.error for result in results]
    fresh = [Toy(number=toy.number, samples=toy.samples, size=toy.size) for toy in toys]
    peers = [result.peer_id for result in results]
    told: Any = results[0].value
    assert replay(fresh[0], fresh, told, peers, ROUNDS) == digest_of(results[0])
    newcomer = results[3]
    assert newcomer.epoch == 2
    assert digest_of(newcomer) == digest_of(results[0])
    assert all(result.contributors == tuple(peers) for result in results)
    with_it = [number for number, peers in names(results[0]).items() if newcomer.peer_id in peers]
    assert with_it == [str(number) for number in range(ROUNDS - len(with_it) + 1, ROUNDS + 1)]
    assert with_it


@pytest.mark.parametrize("at", [4, 9, 14, 22])
def test_who_comes_back_goes_on_where_the_others_are(at: int) -> None:
    toys = toys_of(4)
    federation = Federation(
        4, topology="complete", latency_s=0.3, kills=[Kill(1, at, "some")], restarts=[Restart(1, 2.0)]
    )
    results = federation.run(Learning(rounds=12), toys)
    assert all(result.error is None for result in results), [result.error for result in results]
    assert len({digest_of(result) for result in results}) == 1
    assert results[1].peer_id in names(results[0])["12"]


def test_what_was_learned_survives_a_power_cut() -> None:
    """All are killed within an exchange, and come back with what they had on disk."""
    toys = toys_of(3)
    federation = Federation(
        3,
        topology="complete",
        latency_s=0.3,
        kills=[Kill(node, 20, "none") for node in range(3)],
        restarts=[Restart(node, 5.0 + node) for node in range(3)],
    )
    results = federation.run(Learning(rounds=ROUNDS), toys)
    assert all(result.error is None for result in results), [result.error for result in results]
    fresh = [Toy(number=toy.number, samples=toy.samples, size=toy.size) for toy in toys]
    check(results, fresh, ROUNDS)
    assert results[0].epoch > 1


@settings(max_examples=12, deadline=None)
@given(
    at=st.integers(0, 35),
    kill_at=st.integers(0, 45),
    victim=st.integers(0, 3),
    back_s=st.none() | st.floats(0.5, 9.0),
)
@example(at=27, kill_at=19, victim=3, back_s=3.4416623)
@example(at=33, kill_at=0, victim=1, back_s=None)
@example(at=9, kill_at=2, victim=1, back_s=4.288182)
def test_joins_deaths_and_returns_at_once(at: int, kill_at: int, victim: int, back_s: float | None) -> None:
    toys = toys_of(5)
    federation = Federation(
        5,
        topology="complete",
        latency_s=0.2,
        quorum=2,
        joins=[Join(4, at)],
        kills=[Kill(victim, kill_at, "one")],
        restarts=[] if back_s is None else [Restart(victim, back_s)],
    )
    results = federation.run(Learning(rounds=ROUNDS), toys)
    ended = [result for result in results if result.error is None]
    assert len({digest_of(result) for result in ended}) == 1
    assert len({result.contributors for result in ended}) == 1
    for number in {*range(5)} - {victim, 4}:
        assert results[number].error is None, results[number].error
    for number in {4} if back_s is None else {4, victim}:  # unless they came when all was over
        assert str(results[number].error) in ("None", *TOO_LATE)
