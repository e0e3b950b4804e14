"""The simulated federation: repeatable, faithful to the rules of a run, and unkind where it should be."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import trio

from fedd.api import InvalidMessage, InvalidParameter, Message, PluginFailed, QuorumLost, RunContext, TimedOut
from fedd.core.graph import Graph
from fedd.testing import DroppedPeer, Federation, Kill, NodeResult
from fedd_consensus import AverageConsensus


@dataclass(frozen=True)
class Gossip:
    """Exchanges `rounds` times and returns what it heard; node 1 may do something else."""

    name: ClassVar[str] = "gossip"
    rounds: int = 3
    trouble: str = ""

    async def run(self, ctx: RunContext) -> Message:
        heard: list[Message] = []
        for number in range(self.rounds):
            if self.trouble and ctx.me == ctx.members[1] and number == 1:
                await make_trouble(self.trouble, ctx)
            heard.append(dict(await ctx.exchange({"from": ctx.me, "round": number})))
        return heard


async def make_trouble(trouble: str, ctx: RunContext) -> None:
    match trouble:
        case "raise":
            raise ValueError("the sensor is on fire")
        case "sleep":
            await trio.sleep_forever()
        case "tag":
            await ctx.exchange(None, tag="other")
        case "pause":
            await trio.sleep(3600)


@dataclass(frozen=True)
class Returns:
    """Returns its input without an exchange, or what cannot be returned."""

    name: ClassVar[str] = "returns"
    bad: bool = False

    async def run(self, ctx: RunContext) -> Message:
        return object() if self.bad else ctx.input


@pytest.mark.parametrize("topology", ["complete", "ring"])
def test_who_finishes_first_takes_nothing_back_from_the_others(topology: str) -> None:
    for seed in range(8):
        federation = Federation(5, topology=topology, seed=seed, latency_s=(0.001, 0.1))
        results = federation.run(AverageConsensus(tolerance=0, iterations=80), [1.0, 2.0, 4.0, 9.0, 16.0])
        assert [result.value for result in results] == [pytest.approx(6.4, abs=1e-9)] * 5


def test_everybody_hears_its_neighbours_in_every_round() -> None:
    results = Federation(4, topology="ring").run(Gossip(), [None] * 4)
    near = {0: (1, 3), 1: (0, 2), 2: (1, 3), 3: (0, 2)}
    for result in results:
        assert result.error is None
        assert result.rounds == 3
        expected = [f"node-{index:02d}" for index in near[result.node]]
        assert isinstance(result.value, list)
        for number, heard in enumerate(result.value):
            assert heard == {peer: {"from": peer, "round": number} for peer in expected}


def disturbed(seed: int) -> list[NodeResult]:
    federation = Federation(
        6,
        topology="random-regular:3",
        seed=seed,
        latency_s=(0.001, 0.5),
        loss=0.3,
        kills=[Kill(2, 9, "some")],
    )
    return federation.run(AverageConsensus(), [0.1 * index for index in range(6)])


def test_one_seed_gives_the_same_to_the_last_bit_and_another_does_not() -> None:
    first, again = disturbed(1), disturbed(1)
    for one, other in zip(first, again, strict=True):
        assert np.asarray(one.value).tobytes() == np.asarray(other.value).tobytes()
        assert (one.dropped, one.rounds, one.contributors) == (
            other.dropped,
            other.rounds,
            other.contributors,
        )
        assert (one.residual, one.metrics, one.killed) == (other.residual, other.metrics, other.killed)
    assert [result.dropped for result in first] != [result.dropped for result in disturbed(2)]


@pytest.mark.parametrize(
    ("reaches", "heard_by"),
    [("none", ()), ("one", (1,)), ("some", (1, 3)), ("all", (1, 2, 3)), ((2,), (2,))],
)
def test_a_dying_nodes_last_message_reaches_whom_the_test_says(
    reaches: str | tuple[int, ...], heard_by: tuple[int, ...]
) -> None:
    kill = Kill(0, 1, reaches)
    results = Federation(4, topology="complete", kills=[kill]).run(Gossip(rounds=4), [None] * 4)
    assert results[0].killed
    assert "killed in exchange 1" in str(results[0].error)
    for result in results[1:]:
        assert isinstance(result.value, list)
        assert "node-00" in result.value[0]
        assert ("node-00" in result.value[1]) == (result.node in heard_by)
        assert "node-00" not in result.value[2]
        (dropped,) = result.dropped
        assert (dropped.peer_id, dropped.reason) == ("node-00", "dead")
        assert dropped.round == (2 if result.node in heard_by else 1)


def test_those_who_are_no_neighbours_hear_of_a_death_too() -> None:
    results = Federation(6, topology="ring", kills=[Kill(0, 1)]).run(Gossip(rounds=9), [None] * 6)
    assert all(result.dropped[0].peer_id == "node-00" for result in results[1:])


def test_a_node_whose_algorithm_raises_leaves_and_says_why() -> None:
    results = Federation(4, topology="complete").run(Gossip(trouble="raise"), [None] * 4)
    assert isinstance(results[1].error, PluginFailed)
    assert "ValueError: the sensor is on fire" in str(results[1].error)
    assert "make_trouble" in results[1].error.hint
    for result in (results[0], results[2], results[3]):
        assert result.error is None
        assert result.dropped == (DroppedPeer("node-01", 1, "left: ValueError: the sensor is on fire"),)
        assert result.contributors == ("node-00", "node-02", "node-03")


def test_a_node_that_never_comes_back_ends_by_the_deadline_and_so_do_those_who_wait() -> None:
    results = Federation(3, topology="complete", deadline_s=100).run(Gossip(trouble="sleep"), [None] * 3)
    assert all(isinstance(result.error, TimedOut) for result in results)
    assert "waits for node-01" in str(results[0].error)
    assert not results[0].killed


def test_time_is_virtual() -> None:
    results = Federation(3, latency_s=900.0).run(Gossip(trouble="pause"), [None] * 3)
    assert all(result.error is None for result in results)


def test_who_makes_an_exchange_with_another_tag_is_cut_off_and_told() -> None:
    results = Federation(2).run(Gossip(trouble="tag"), [None] * 2)
    for result, other, tag in ((results[0], "node-01", "other"), (results[1], "node-00", "")):
        assert isinstance(result.error, QuorumLost)
        assert f"out: {other} (bad message: it is at an exchange tagged {tag!r}" in str(result.error)
    results = Federation(3, topology="complete").run(Gossip(trouble="tag"), [None] * 3)
    assert isinstance(results[1].error, QuorumLost)
    for result in (results[0], results[2]):
        assert result.error is None
        ((peer, reason),) = [(dropped.peer_id, dropped.reason) for dropped in result.dropped]
        assert peer == "node-01"
        assert reason.startswith("bad message: it is at an exchange tagged 'other'")


def test_quorum() -> None:
    kills = [Kill(0, 2), Kill(1, 3)]
    results = Federation(5, topology="complete", kills=kills, quorum=4).run(Gossip(rounds=9), [None] * 5)
    for result in results[2:]:
        assert isinstance(result.error, QuorumLost)
        assert "3 of 5 members are left, the quorum is 4" in str(result.error)
        assert "node-00 (dead)" in str(result.error)
    results = Federation(5, topology="complete", kills=kills).run(Gossip(rounds=9), [None] * 5)
    assert [result.error is None for result in results] == [False, False, True, True, True]


def test_values_travel_as_they_would_between_processes() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    (result,) = Federation(1).run(Returns(), [{"a": array, "b": [1, None, True, "x", b"y"]}])
    assert isinstance(result.value, dict)
    returned = result.value["a"]
    assert isinstance(returned, np.ndarray)
    assert returned.dtype == np.float32
    assert returned.tolist() == array.tolist()
    assert result.value["b"] == [1, None, True, "x", b"y"]
    (result,) = Federation(1).run(Returns(bad=True), [None])
    assert isinstance(result.error, InvalidMessage)


def test_graphs_can_be_given_in_every_form() -> None:
    edges = [(0, 1), (2, 1)]
    by_pairs = Federation(3, topology=edges)
    assert by_pairs.graph.edges == {("node-00", "node-01"), ("node-01", "node-02")}
    assert Federation(3, topology=by_pairs.graph).graph == by_pairs.graph
    assert Federation(["a", "b"]).peer_ids == ("a", "b")
    assert Federation(8).graph.degree("node-00") == 4
    assert isinstance(Federation(3).graph, Graph)


@pytest.mark.parametrize(
    "arguments",
    [
        {"loss": 1.0},
        {"latency_s": (0.2, 0.1)},
        {"latency_s": -1.0},
        {"detection_s": 0.0},
        {"kills": [Kill(3, 0)]},
        {"kills": [Kill(0, -1)]},
        {"kills": [Kill(0, 1), Kill(0, 2)]},
        {"topology": "circle"},
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidParameter):
        Federation(3, **arguments)


def test_one_input_a_node() -> None:
    with pytest.raises(InvalidParameter, match="2 inputs for 3 nodes"):
        Federation(3).run(Returns(), [1, 2])


@pytest.mark.parametrize(("topology", "node", "every"), [("ring", 0, 1), ("ring", 3, 3), ("complete", 0, 1)])
def test_consensus_survives_a_death_in_every_round(topology: str, node: int, every: int) -> None:
    """The initiator, node 0, is a member like any other."""
    algorithm = AverageConsensus(tolerance=1e-11)
    inputs: list[Message] = [1.0, 4.0, 9.0, 16.0, 25.0]
    undisturbed = Federation(5, topology=topology).run(algorithm, inputs)[0].rounds
    words = itertools.cycle(["none", "one", "some", "all"])
    for round, reaches in zip(range(0, undisturbed, every), words):  # noqa: B905 - the words repeat
        kill = Kill(node, round, reaches)
        federation = Federation(5, topology=topology, seed=round, kills=[kill])
        survivors = [result for result in federation.run(algorithm, inputs) if not result.killed]
        assert all(result.error is None for result in survivors)
        assert len({np.float64(result.value).tobytes() for result in survivors}) == 1
        assert len({result.contributors for result in survivors}) == 1
        named = survivors[0].contributors
        assert {result.peer_id for result in survivors} <= set(named)
        mean = np.mean([inputs[federation.peer_ids.index(peer)] for peer in named])
        assert survivors[0].value == pytest.approx(mean, abs=1e-9)
