"""`kill -9` in the middle of every method of averaging: the survivors end at their own exact mean."""

from __future__ import annotations

import os
import random

import pytest
from federation.daemons import GUARD_S, Daemon, Federation, eventually, federation, result_of

pytestmark = pytest.mark.long

TRIALS = int(os.environ.get("FEDD_DEATH_TRIALS", "20"))
VALUES = [3.0, -1.5, 40.25, 7.0, 1e3]

METHODS = {
    "lazy": ("ring", 0.02, ("method=lazy", "tolerance=1e-10")),
    "choco": ("ring", 0.02, ("method=choco", "codec=int8", "tolerance=1e-10")),
    "push-sum": ("directed-exponential", 0.1, ("method=push-sum", "tolerance=1e-10")),
    "pairwise": ("complete", 0.02, ("method=pairwise", "tolerance=0", "iterations=2000")),
}
"""Topology, pace and parameters: long enough to die in the middle of them, also when a death makes four times
as many rounds of them."""

QUESTION_BYTES = 150
"""That come for a question of pairwise and its answer, about: it has no rounds to count."""


def progress(daemon: Daemon, run_id: str, method: str) -> float:
    """Which part of the rounds (or questions) that were foreseen a run has made; 1 when it ended."""
    shown = daemon.shown(run_id)
    if not shown:
        return 0.0
    foreseen = shown["metrics"].get("rounds_predicted")
    if shown["state"] != "running" or foreseen is None:
        return 0.0 if shown["state"] == "running" else 1.0
    made = shown["bytes_in"] / QUESTION_BYTES if method == "pairwise" else shown["rounds"]
    return float(made / foreseen)


def kill_in_a_run(fed: Federation, method: str, rng: random.Random) -> Daemon:
    """One trial: start a run anywhere, kill anybody in its first third, look at everybody else's answer."""
    topology, pace_s, parameters = METHODS[method]
    victim, starter = fed[rng.randrange(len(fed))], fed[rng.randrange(len(fed))]
    watcher = rng.choice([daemon for daemon in fed if daemon is not victim])
    ids = {daemon.peer_id(): value for daemon, value in zip(fed, VALUES, strict=True)}
    gone = victim.peer_id()
    asked = ("--input", "x", "--topology", topology, "--pace", fed.pace(pace_s), "--detach")
    run_id = starter.ctl("run", "consensus", *parameters, *asked).ok()["run_id"]
    target = rng.uniform(0.02, 0.3)
    eventually(
        lambda: progress(watcher, run_id, method) >= target, GUARD_S, f"{target:.0%} of the run is made"
    )
    victim.kill()
    results = [result_of(daemon, run_id) for daemon in fed.survivors()]
    assert {result["state"] for result in results} == {"finished"}, results
    for result in results:
        assert [drop["peer_id"] for drop in result["dropped"]] == [gone], result
        assert sorted(result["contributors"]) == sorted(set(ids) - {gone})
    mean = sum(value for peer, value in ids.items() if peer != gone) / (len(ids) - 1)
    assert max(abs(result["value"] - mean) for result in results) <= 1e-9 * max(map(abs, VALUES))
    return victim


@pytest.mark.parametrize("method", METHODS)
def test_whoever_dies_the_others_end_at_their_mean(method: str) -> None:
    rng = random.Random(method)
    with federation(len(VALUES)) as fed:
        fed.set_inputs(VALUES)
        for trial in range(TRIALS):
            victim = kill_in_a_run(fed, method, rng)
            if trial + 1 < TRIALS:
                victim.start().wait_ready().wait_plugins()
                fed.wait_alive()
