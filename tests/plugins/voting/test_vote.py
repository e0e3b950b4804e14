"""The algorithm `vote` on virtual time: one winner and one digest, whoever dies."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from fedd.api import Message
from fedd.testing import Federation, Kill, NodeResult
from fedd.worker.context import Context
from fedd_voting import Vote, fedd_register_algorithms

complete = partial(Federation, topology="complete")
WORDS = ("none", "one", "some", "all")


def one_answer(results: list[NodeResult]) -> dict[str, Any]:
    """What all survivors have, after looking whether they have the same."""
    survivors = [result for result in results if not result.killed]
    assert all(result.error is None for result in survivors), [result.error for result in survivors]
    answers = [result.value for result in survivors]
    assert all(answer == answers[0] for answer in answers), answers
    assert isinstance(answers[0], dict)
    assert set(answers[0]) == {"winner", "tally", "digest"}
    return answers[0]


def test_everybody_has_the_winner_after_two_exchanges() -> None:
    results = complete(5).run(Vote(question="open the vent"), ["yes", "no", "yes", None, True])
    answer = one_answer(results)
    assert (answer["winner"], answer["tally"]) == ("yes", {"yes": 3, "no": 1})
    assert len(bytes.fromhex(answer["digest"])) == 32
    assert {result.rounds for result in results} == {2}
    assert results[0].metrics == {"ballots": 4, "void": 0, "needed": 0}


def test_a_vote_of_one() -> None:
    assert one_answer(complete(1).run(Vote(), ["no"]))["winner"] == "no"


def test_without_quorum_there_is_no_winner_and_the_tally_says_why() -> None:
    vote = Vote(options="open,wait", quorum="5/7")
    answer = one_answer(complete(7).run(vote, ["open"] * 4 + ["wait"] * 2 + [None]))
    assert (answer["winner"], answer["tally"]) == (None, {"open": 4, "wait": 2})
    assert one_answer(complete(7).run(vote, ["open"] * 5 + ["wait"] * 2))["winner"] == "open"
    assert one_answer(complete(6).run(vote, ["open"] * 5 + ["wait"]))["winner"] == "open"


def test_a_quorum_of_fewer_members_than_there_are_is_refused() -> None:
    results = complete(3).run(Vote(quorum="2/2"), ["yes"] * 3)
    assert all("the quorum is 2/2" in str(result.error) for result in results)


@pytest.mark.parametrize("rule", ["approval", "borda"])
def test_lists_of_options(rule: Any) -> None:
    vote = Vote(options="a,b,c", rule=rule)
    inputs: list[Message] = [["b", "a"], ["b", "c"], ["c"]]
    answer = one_answer(complete(3).run(vote, inputs))
    assert (answer["winner"], answer["tally"]["b"]) == ("b", 2 if rule == "approval" else 4)


def test_a_train_set_is_drawn_where_no_ballot_is_given() -> None:
    federation = complete(9, seed=3)
    answer = one_answer(federation.run(Vote(rule="train-set", size=3), [None] * 9))
    assert len(answer["winner"]) == 3
    assert set(answer["winner"]) <= set(federation.peer_ids)
    best = sorted(answer["tally"].items(), key=lambda pair: (pair[1], pair[0]), reverse=True)
    assert answer["winner"] == [member for member, _ in best[:3]]
    again = one_answer(federation.run(Vote(rule="train-set", size=3), [None] * 9))
    other = one_answer(complete(9, seed=4).run(Vote(rule="train-set", size=3), [None] * 9))
    assert answer == again != other


def test_a_bad_ballot_hurts_the_device_that_has_it_alone() -> None:
    results = complete(4).run(Vote(), ["yes", "perhaps", "yes", "no"])
    assert "'perhaps' is not on the list" in str(results[1].error)
    others = [result for result in results if result.node != 1]
    assert one_answer(others)["tally"] == {"yes": 2, "no": 1}


@pytest.mark.parametrize(("nodes", "schedules"), [(3, 80), (5, 80), (7, 40)])
def test_200_schedules_of_crashes(nodes: int, schedules: int) -> None:
    """Up to as many as the quorum bears, in any exchange, their last words reaching anybody."""
    for seed in range(schedules):
        rng = random.Random(f"vote/{nodes}/{seed}")
        dead = rng.sample(range(nodes), rng.randint(1, (nodes - 1) // 2))
        kills = [
            Kill(node, rng.choice((0, 0, 1, 1, 2, 3, 4)), rng.choice((*WORDS, rng.sample(range(nodes), 2))))
            for node in dead
        ]
        inputs: list[Message] = [rng.choice(("yes", "no", "wait", None)) for _ in range(nodes)]
        federation = complete(nodes, seed=seed, latency_s=(0.001, 0.05), loss=0.1, kills=kills)
        results = federation.run(Vote(options="yes,no,wait"), inputs)
        answer = one_answer(results)
        finished = [result for result in results if not result.killed]
        cast = sum(inputs[result.node] is not None for result in finished)
        assert cast <= sum(answer["tally"].values()) <= sum(given is not None for given in inputs)


def test_a_chain_of_crashes_that_hides_a_ballot_as_long_as_it_can() -> None:
    kills = [Kill(index, index, [index + 1]) for index in range(3)]
    answer = one_answer(complete(7, kills=kills).run(Vote(), ["yes", "no", "no", None, None, None, None]))
    assert answer["tally"] == {"yes": 1, "no": 2}


def test_a_member_that_does_not_answer_ends_the_vote_at_its_limit() -> None:
    """A death takes an hour to be noticed here: nobody waits so long."""
    federation = complete(3, detection_s=3600.0, kills=[Kill(2, 0)], deadline_s=7200.0)
    results = federation.run(Vote(time_limit_s=5.0), ["yes"] * 3)
    assert all("not over after 5 s" in str(result.error) for result in results[:2])
    patient = federation.run(Vote(time_limit_s=0), ["yes"] * 3)
    assert one_answer(patient)["tally"] == {"yes": 2, "no": 0}


@pytest.mark.parametrize("topology", ["ring", "line", "star"])
def test_on_a_graph_that_is_not_complete_it_takes_longer(topology: str) -> None:
    results = Federation(5, topology=topology).run(Vote(), ["yes", "no", "no", "yes", "yes"])
    assert one_answer(results)["tally"] == {"yes": 3, "no": 2}
    assert {result.rounds for result in results} == {4}


@pytest.mark.parametrize(
    ("make", "blamed"),
    [
        (lambda: Vote(options="yes"), "options"),
        (lambda: Vote(quorum="8/7"), "quorum"),
        (lambda: Vote(size=0), "size"),
        (lambda: Vote(time_limit_s=-1), "time_limit_s"),
        (lambda: Vote(question="?" * 1001), "question"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(make: Callable[[], object], blamed: str) -> None:
    with pytest.raises(ValueError, match=blamed):
        make()


def test_the_plugin_registers_the_vote() -> None:
    assert fedd_register_algorithms() == [Vote]


def test_a_vote_never_starts_over() -> None:
    """Some could have finished with the ballot of the one that was lost."""
    federation = complete(5, contract="restart", kills=[Kill(0, 1, "one")])
    results = federation.run(Vote(), ["yes"] * 5)
    answers = {str(result.value) for result in results if result.error is None}
    assert len(answers) <= 1
    assert any("does not start over" in str(result.error) for result in results)


def test_a_signature_that_the_others_would_refuse_is_no_silent_abstention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Context, "verify", lambda self, peer, data, signature: False)
    results = complete(2).run(Vote(), ["yes", "no"])
    assert all("signature under its ballot is not valid" in str(result.error) for result in results)
