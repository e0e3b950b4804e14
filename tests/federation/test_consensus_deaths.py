"""`kill -9` in the middle of every method of averaging: the survivors end at their own exact mean."""

from __future__ import annotations

import os
import random

import pytest
from federation.daemons import Daemon, Federation, eventually, federation, result_of

pytestmark = pytest.mark.long

TRIALS = int(os.environ.get("FEDD_DEATH_TRIALS", "20"))
VALUES = [3.0, -1.5, 40.25, 7.0, 1e3]

METHODS = {
    "lazy": ("ring", ("method=lazy",)),
    "choco": ("ring", ("method=choco", "codec=int8")),
    "push-sum": ("directed-exponential", ("method=push-sum",)),
    "pairwise": ("complete", ("method=pairwise", "tolerance=0", "iterations=2000")),
}
"""Where a method's rounds are many enough to die in the middle of them; pairwise has questions."""


def progress(daemon: Daemon, run_id: str, method: str) -> float:
    """How far a run is: in rounds, or, where there are none, in KiB that came."""
    reply = daemon.ctl("show", run_id)
    if reply.code != 0 or reply.json["state"] != "running":
        return 0.0 if reply.code != 0 else float("inf")
    return float(reply.json["bytes_in"] / 1024 if method == "pairwise" else reply.json["rounds"])


def kill_in_a_run(fed: Federation, method: str, rng: random.Random) -> Daemon:
    """One trial: start a run anywhere, kill anybody in its first third, look at everybody else's answer."""
    topology, parameters = METHODS[method]
    victim, starter = fed[rng.randrange(len(fed))], fed[rng.randrange(len(fed))]
    watcher = rng.choice([daemon for daemon in fed if daemon is not victim])
    ids = {daemon.peer_id(): value for daemon, value in zip(fed, VALUES, strict=True)}
    gone = victim.peer_id()
    asked = ("--input", "x", "--topology", topology, "--pace", fed.pace(0.05), "--detach")
    run_id = starter.ctl("run", "consensus", *parameters, *asked).ok()["run_id"]
    target = rng.uniform(1, 15)
    eventually(lambda: progress(watcher, run_id, method) >= target, 60.0, f"the run reaches {target:.0f}")
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
