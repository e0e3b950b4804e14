"""Learning among real daemons: the exact mean of everybody, and a death in each stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation.daemons import GUARD_S, Federation, eventually, federation, result_of

from fedd.api import Contribution
from fedd.demo import digits
from fedd_aggregators import FedAvg
from fedd_learners import Softmax
from fedd_learning.layout import digest
from fedd_learning.means import weighted_mean

CONFIG = '[inputs.digits]\nlearner = "softmax"\nfile = "digits.npz"\nclasses = 10\n'
DETECTION_S = 10.0
"""Of a death, on a machine with much to do."""


def share_out(fed: Federation) -> list[digits.Images]:
    """A part of the digits to each, of different sizes."""
    train, test = digits.load()
    parts, begin = [], 0
    for number, daemon in enumerate(fed):
        end = begin + 20 + 7 * number
        parts.append(digits.Images(train.rows[begin:end], train.labels[begin:end]))
        digits.write_shares(daemon.dir / "digits.npz", parts[-1], test)
        begin = end
    return parts


def expected(
    parts: Sequence[digits.Images], peers: Sequence[str], rounds: Sequence[Sequence[str]]
) -> list[Any]:
    """The model if in each round exactly those trained: `softmax` takes all its samples, by no chance."""
    _, test = digits.load()
    learners = {}
    for peer, part in zip(peers, parts, strict=True):
        learner = Softmax(classes=10)
        x, x_test = (np.array([[*row] for row in images.rows]) / 16 for images in (part, test))
        data = {"x": x, "y": np.array([*part.labels]), "x_test": x_test, "y_test": np.array([*test.labels])}
        learner.prepare(data, np.random.default_rng(0))
        learners[peer] = learner
    model = learners[peers[0]].parameters()
    for contributors in rounds:
        models, weights = [], []
        for peer in sorted(contributors):
            learners[peer].load(model)
            weights.append(learners[peer].train(epochs=1).num_samples)
            models.append(learners[peer].parameters())
        mean = [weighted_mean(arrays, weights) for arrays in zip(*models, strict=True)]
        model = FedAvg().aggregate(model, [Contribution("", mean, sum(weights))], []).model
    return model


def check(
    fed: Federation, parts: Sequence[digits.Images], results: Sequence[dict[str, Any]], rounds: int
) -> None:
    """All hold the same model, and it is what those whom the result names have trained."""
    assert {result["state"] for result in results} == {"finished"}, [r.get("error") for r in results]
    assert len({result["value"]["digest"] for result in results}) == 1
    told = results[0]["value"]
    by_round = [told["contributors_by_round"][str(number + 1)] for number in range(rounds)]
    everybody = {peer for names in by_round for peer in names}
    assert all(set(result["contributors"]) == everybody for result in results)
    model = expected(parts, PEERS[fed.root], by_round)
    for ours, theirs in zip(model, told["model"], strict=True):
        np.testing.assert_allclose(np.array(theirs), ours, rtol=0, atol=1e-12)
    assert digest([np.array(array) for array in told["model"]], []) == told["digest"]


PEERS: dict[Path, list[str]] = {}


def learn(fed: Federation, starter: int, *options: str) -> str:
    PEERS.setdefault(fed.root, [daemon.peer_id() for daemon in fed])
    command = ("run", "learning", "--input", "digits", "--detach", *options)
    return str(fed[starter].ctl(*command).ok()["run_id"])


@pytest.mark.slow
def test_eight_trainers_and_the_exact_mean() -> None:
    with federation(8, configs=[CONFIG] * 8) as fed:
        parts = share_out(fed)
        run_id = learn(fed, 3, "rounds=3")
        results = [result_of(daemon, run_id) for daemon in fed]
        check(fed, parts, results, 3)
        told = results[0]["value"]
        assert all(len(names) == 8 for names in told["contributors_by_round"].values())
        assert told["left_out"] == []
        assert set(results[5]["metrics"]["accuracy"]) == set(PEERS[fed.root])


@pytest.mark.long
def test_the_exact_mean_twenty_times_of_twenty() -> None:
    with federation(8, configs=[CONFIG] * 8) as fed:
        parts = share_out(fed)
        for trial in range(20):
            run_id = learn(fed, trial % 8, "rounds=2", "--seed", str(trial))
            results = [result_of(daemon, run_id) for daemon in fed]
            check(fed, parts, results, 2)
            assert all(len(n) == 8 for n in results[0]["value"]["contributors_by_round"].values()), trial


# Five members, a quorum of three: agreements of three exchanges. The first sync has three, then come three of
# offers, with which the models go. From then on the members have trained before each sync, and offers and
# models go with it. With small chunks the model goes in parts: one more exchange of spreading then.
STAGES = {"train": 9, "spread": 10, "offer": 11, "sync": 15, "parts": 14}


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_a_death_in_each_stage(stage: str) -> None:
    rounds = 4
    chunks = ("chunk_bytes=1024",) if stage == "parts" else ()
    with federation(5, configs=[CONFIG] * 5) as fed:
        parts = share_out(fed)
        quiet = result_of(fed[1], learn(fed, 1, f"rounds={rounds}", "--pace", fed.pace(0.2), *chunks))
        run_id = learn(fed, 0, f"rounds={rounds}", "--pace", fed.pace(0.2), *chunks)

        fed[1].wait_round(run_id, STAGES[stage])
        fed[0].kill()
        results = [result_of(daemon, run_id) for daemon in fed.survivors()]
        check(fed, parts, results, rounds)
        dead = PEERS[fed.root][0]
        assert [entry["peer_id"] for entry in results[0]["dropped"]] == [dead]
        living = set(PEERS[fed.root]) - {dead}
        assert all(living <= set(n) for n in results[0]["value"]["contributors_by_round"].values())
        assert results[0]["wall_s"] <= quiet["wall_s"] + DETECTION_S


@pytest.mark.long
def test_who_comes_back_learns_on_with_the_others() -> None:
    rounds = 80
    with federation(4, configs=[CONFIG] * 4) as fed:
        share_out(fed)
        run_id = learn(fed, 0, f"rounds={rounds}", "--pace", fed.pace(0.1))

        def learned(least: int) -> bool:
            return bool(fed[0].shown(run_id).get("metrics", {}).get("learning_round", 0) >= least)

        eventually(lambda: learned(3), GUARD_S, "three rounds are done")
        fed[2].kill()
        eventually(lambda: learned(5), GUARD_S, "the others go on")
        fed[2].start(config=CONFIG).wait_ready()
        results = [result_of(daemon, run_id) for daemon in fed]
        assert {result["state"] for result in results} == {"finished"}, [r.get("error") for r in results]
        assert len({result["value"]["digest"] for result in results}) == 1
        assert PEERS[fed.root][2] in results[0]["value"]["contributors_by_round"][str(rounds)]
        assert results[0]["epoch"] > 1
