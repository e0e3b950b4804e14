"""`kill -9` at random moments of a run: the survivors finish, agree, and name who counted."""

from __future__ import annotations

import os
import random

import pytest
from federation.daemons import GUARD_S, Federation, eventually, federation, result_of

TRIALS = int(os.environ.get("FEDD_DEATH_TRIALS", "2"))
VALUES = [3.0, -1.5, 40.25, 7.0, 1e3]


def mean_of(fed: Federation, contributors: list[str], ids: dict[str, float]) -> float:
    return sum(ids[c] for c in contributors) / len(contributors)


@pytest.mark.parametrize("topology", ["ring", "complete"])
def test_five_daemons_reach_the_exact_mean(topology: str) -> None:
    with federation(5) as fed:
        fed.set_inputs(VALUES)
        result = fed[2].ctl("run", "consensus", "--input", "x", "--topology", topology).ok()
        exact = sum(VALUES) / len(VALUES)
        assert abs(result["value"] - exact) <= 1e-12 * max(map(abs, VALUES))
        values = {result_of(d, result["run_id"])["value"] for d in fed}
        assert values == {result["value"]}


@pytest.mark.parametrize("trial", range(TRIALS))
@pytest.mark.parametrize("topology", ["ring", "complete"])
def test_a_killed_member_changes_nothing_but_who_counts(trial: int, topology: str) -> None:
    rng = random.Random(f"{trial} {topology}")
    with federation(5) as fed:
        fed.set_inputs(VALUES)
        ids = {d.peer_id(): v for d, v in zip(fed, VALUES, strict=True)}
        names = {d.peer_id(): d.name for d in fed}
        # the initiator is among the killed: every other trial it is the victim
        initiator = fed[rng.randrange(5)]
        victim = initiator if trial % 2 == 0 else rng.choice([d for d in fed if d is not initiator])
        started = initiator.ctl(
            "run", "consensus", "--input", "x", "--topology", topology, "--pace", fed.pace(0.05), "--detach"
        ).ok()
        run_id = started["run_id"]
        watcher = next(d for d in fed if d is not victim)
        target = rng.randrange(1, 12)

        watcher.wait_round(run_id, target, or_end=True)
        victim.kill()
        survivors = fed.survivors()
        results = [result_of(d, run_id) for d in survivors]
        assert {r["state"] for r in results} == {"finished"}, results
        assert len({r["value"] for r in results}) == 1
        assert len({tuple(r["contributors"]) for r in results}) == 1
        exact = mean_of(fed, results[0]["contributors"], ids)
        assert abs(results[0]["value"] - exact) <= 1e-9 * max(map(abs, VALUES))
        victim_id = next(p for p, n in names.items() if n == victim.name)
        assert set(results[0]["contributors"]) >= set(ids) - {victim_id}
        expected = {d.name: "alive" for d in survivors} | {victim.name: "dead"}
        for daemon in survivors:
            eventually(
                lambda d=daemon: d.states() == expected, GUARD_S, f"{daemon.name} sees just the victim dead"
            )
            dead = {e["name"] for e in daemon.events() if e["kind"] == "member" and e["state"] == "dead"}
            assert dead == {victim.name}
