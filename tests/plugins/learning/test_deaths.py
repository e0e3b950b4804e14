"""Learning on virtual time: whoever dies, the survivors of a round hold the same bits, rightly averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plugins.learning.toy import Toy, averaged, trained

from fedd.testing import Federation, Kill, NodeResult, Reach
from fedd_learning import Learning, training
from fedd_learning.layout import digest
from fedd_learning.training import AHEAD_S

if TYPE_CHECKING:
    from fedd.api.types import Array

REACHES: tuple[Reach, ...] = ("none", "one", "some", "all")


def values(results: Sequence[NodeResult]) -> list[Mapping[str, Any]]:
    """The answers of those that live, after looking whether all ended well."""
    living = [result for result in results if not result.killed]
    assert all(result.error is None for result in living), [result.error for result in living]
    return [result.value for result in living]


def replay(
    first: Toy, toys: Sequence[Toy], told: Mapping[str, Any], peers: Sequence[str], rounds: int
) -> str:
    """What the model must be if in each round exactly those trained who are named; its digest."""
    model = first.parameters()
    numbers = {peer: number for number, peer in enumerate(peers)}
    for contributors in contributors_by_round(told, rounds):
        chosen = [numbers[peer] for peer in contributors]
        if chosen:
            model = averaged([trained(model, n) for n in chosen], [toys[n].samples for n in chosen])
    return digest(model, [])


def contributors_by_round(told: Mapping[str, Any], rounds: int) -> list[list[str]]:
    assert list(told["contributors_by_round"]) == [str(number + 1) for number in range(rounds)]
    return [list(names) for names in told["contributors_by_round"].values()]


def check(results: Sequence[NodeResult], toys: Sequence[Toy], rounds: int) -> Mapping[str, Any]:
    """All that must hold of any run with toys; one of the answers."""
    told = values(results)
    assert {each["digest"] for each in told} == {told[0]["digest"]}
    assert all(each["rounds"] == rounds for each in told)
    peers = [result.peer_id for result in results]
    for each in told:
        assert digest(each["model"], []) == each["digest"]
        assert each["metrics"] == told[0]["metrics"]
        assert each["contributors_by_round"] == told[0]["contributors_by_round"]
    everybody = {peer for names in contributors_by_round(told[0], rounds) for peer in names}
    for result in results:
        assert result.killed or set(result.contributors) == everybody
    fresh = [Toy(number=toy.number, samples=toy.samples, size=toy.size) for toy in toys]
    # Whose model is the first depends on who was there to give it.
    possible = [replay(first, fresh, told[0], peers, rounds) for first in fresh]
    assert told[0]["digest"] in (possible if results[0].killed else possible[:1])
    return told[0]


def toys_of(count: int, size: int = 7) -> list[Toy]:
    return [Toy(number=number, samples=3 + 7 * number, size=size) for number in range(count)]


def test_everybody_trains_and_the_mean_is_exact() -> None:
    for nodes, size, chunk in ((1, 7, 1024), (2, 300, 1024), (3, 7, 1024), (5, 100, 1024), (8, 7, 2048)):
        toys = toys_of(nodes, size)
        learning = Learning(rounds=3, chunk_bytes=chunk)
        results = Federation(nodes, topology="complete", loss=0.1).run(learning, toys)
        told = check(results, toys, 3)
        assert all(len(names) == nodes for names in told["contributors_by_round"].values())
        assert set(told["metrics"]["accuracy"]) == {result.peer_id for result in results}
        assert told["left_out"] == []


@pytest.mark.parametrize(
    ("size", "chunk", "ahead_s"),
    [(7, 4 * 1024 * 1024, AHEAD_S), (100, 1024, AHEAD_S), (100, 1024, -1.0)],
    ids=["whole", "in-parts", "agreed-first"],
)
def test_a_death_at_every_exchange(
    size: int, chunk: int, ahead_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "AHEAD_S", ahead_s)
    nodes, rounds = 4, 2
    learning = Learning(rounds=rounds, chunk_bytes=chunk)
    quiet = Federation(nodes, topology="complete").run(learning, toys_of(nodes, size))
    exchanges = quiet[0].rounds
    assert exchanges < 20
    for at in range(exchanges):
        for number, reaches in enumerate(REACHES):
            for victim in ((0,), (2,))[(at + number) % 2]:
                toys = toys_of(nodes, size)
                kills = [Kill(victim, at, reaches)]
                results = Federation(nodes, topology="complete", kills=kills).run(learning, toys)
                told = check(results, toys, rounds)
                dead = results[victim].peer_id
                living = {r.peer_id for r in results} - {dead}
                assert all(living <= set(names) for names in told["contributors_by_round"].values()), (
                    at,
                    victim,
                    reaches,
                )
                assert set(told["metrics"]["loss"]) >= living


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_deaths_that_the_quorum_bears(data: st.DataObject) -> None:
    nodes = data.draw(st.integers(3, 7))
    rounds = data.draw(st.integers(1, 3))
    aggregator = data.draw(st.sampled_from(["fedavg", "median"]))
    chunk = data.draw(st.sampled_from([1024, 4 * 1024 * 1024]))
    victims = data.draw(st.lists(st.integers(0, nodes - 1), unique=True, max_size=(nodes - 1) // 2))
    kills = [
        Kill(
            victim,
            data.draw(st.integers(0, 40)),
            data.draw(
                st.sampled_from(REACHES) | st.lists(st.integers(0, nodes - 1), max_size=nodes).map(tuple)
            ),
        )
        for victim in victims
    ]
    toys = toys_of(nodes, size=data.draw(st.sampled_from([1, 7, 300])))
    federation = Federation(
        nodes,
        topology="complete",
        kills=kills,
        loss=0.1,
        latency_s=(0.001, 0.3),
        seed=data.draw(st.integers(0, 99)),
    )
    results = federation.run(Learning(rounds=rounds, aggregator=aggregator, chunk_bytes=chunk), toys)
    told = values(results)
    assert {each["digest"] for each in told} == {told[0]["digest"]}
    if aggregator == "fedavg":
        check(results, toys, rounds)


@pytest.mark.parametrize("way", ["rendezvous", "vote"])
def test_one_train_set_for_everybody(way: str) -> None:
    toys = toys_of(6)
    results = Federation(6, topology="complete", seed=3).run(
        Learning(rounds=8, train_set=2, train_set_by=way),
        toys,
    )
    told = check(results, toys, 8)
    assert all(len(names) == 2 for names in told["contributors_by_round"].values())
    assert len({name for names in told["contributors_by_round"].values() for name in names}) >= 4
    assert told["left_out"] == []


def test_a_diverged_training_hurts_itself_only() -> None:
    toys = toys_of(4)
    toys[1].diverges_at = 2
    results = Federation(4, topology="complete").run(Learning(rounds=3), toys)
    told = check(results, toys, 3)
    peer = results[1].peer_id
    assert [peer in names for names in told["contributors_by_round"].values()] == [True, False, True]
    assert told["left_out"] == [
        {"peer_id": peer, "round": 2, "reason": "its training diverged: the model is not finite"}
    ]


def test_a_learner_that_fails_costs_its_own_node() -> None:
    toys = toys_of(4)
    toys[3].fails_at = 2
    toys[3].label = toys[2].label = "seven"
    toys[0].label = "two"
    toys[3].label = "nine"
    results = Federation(4, topology="complete").run(Learning(rounds=3), toys)
    assert "the sensor is broken" in str(results[3].error)
    living = [result for result in results if result is not results[3]]
    assert all(result.error is None for result in living)
    told: Any = living[0].value
    assert [len(names) for names in told["contributors_by_round"].values()] == [4, 3, 3]
    assert told["lost_labels"] == ["nine"]


def test_who_has_another_model_is_left_alone() -> None:
    toys = [Toy(number=number, size=9 if number == 2 else 7) for number in range(5)]
    results = Federation(5, topology="complete").run(Learning(rounds=2), toys)
    assert "f4:9x3;f8:9" in str(results[2].error)
    living: list[Any] = [result.value for result in results if result.peer_id != results[2].peer_id]
    assert all(result.error is None for number, result in enumerate(results) if number != 2)
    assert len({each["digest"] for each in living}) == 1
    assert all(len(names) == 4 for names in living[0]["contributors_by_round"].values())


def test_whoever_claims_too_many_samples_does_not_count() -> None:
    toys = toys_of(3)
    toys[0].samples = 10**9
    toys[1].samples = 0
    results = Federation(3, topology="complete").run(Learning(rounds=1), toys)
    told = check(results, toys, 1)
    assert told["contributors"] == [results[2].peer_id]
    assert [entry["reason"] for entry in told["left_out"]] == [
        "it claims 1000000000 samples, more than max_samples=10000000",
        "it has no samples",
    ]


def test_without_anybody_to_train_the_model_stays() -> None:
    toys = [Toy(number=number, samples=0) for number in range(3)]
    results = Federation(3, topology="complete").run(Learning(rounds=2), toys)
    told = check(results, toys, 2)
    assert told["contributors_by_round"] == {"1": [], "2": []}


@pytest.mark.parametrize("aggregator", ["fedavg", "fedprox", "scaffold", "fedadam", "median", "multi-krum"])
def test_a_second_run_gives_the_same_bits(aggregator: str) -> None:
    def digests() -> set[str]:
        toys = toys_of(5)
        results = Federation(5, topology="complete").run(Learning(rounds=2, aggregator=aggregator), toys)
        return {each["digest"] for each in values(results)}

    if aggregator in ("fedprox", "scaffold"):
        results = Federation(5, topology="complete").run(
            Learning(rounds=2, aggregator=aggregator), toys_of(5)
        )
        assert all("the learner toy of this device has no" in str(result.error) for result in results)
        return
    first = digests()
    assert len(first) == 1
    assert digests() == first


def test_a_ring_is_refused() -> None:
    results = Federation(5, topology="ring").run(Learning(), toys_of(5))
    assert all("--topology complete" in result.error.hint for result in results if result.error is not None)
    assert all(result.error is not None for result in results)


def test_the_models_are_averaged_in_the_order_of_the_members() -> None:
    """The same sum in another order has other bits: nobody may take them as they come."""
    models: list[list[Array]] = [[np.float64([1e16])], [np.float64([1.0])], [np.float64([-1e16])]]
    assert (
        averaged(models, [1, 1, 1])[0].tolist()
        != averaged([models[0], models[2], models[1]], [1, 1, 1])[0].tolist()
    )
