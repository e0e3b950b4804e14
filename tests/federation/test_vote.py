"""A vote among real daemons, one of them killed meanwhile: one winner and one digest."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator

import pytest
from federation.daemons import GUARD_S, Federation, eventually, federation, result_of

BALLOTS = ["yes", "no", "yes", "yes", "no"]
PACE_S = 0.2  # between exchanges, so that a kill can fall between them


@pytest.fixture(scope="module")
def fed() -> Iterator[Federation]:
    with federation(5) as five:
        five.set_inputs(BALLOTS, "ballot")
        yield five


def vote(fed: Federation, initiator: int, *options: str) -> str:
    """Start one; its run id."""
    started = fed[initiator].ctl(
        "run", "vote", "question=open the vent", "quorum=3/5", "--input", "ballot", "--detach", *options
    )
    return str(started.ok()["run_id"])


def kill_one_during_a_vote(fed: Federation, trial: int) -> None:
    rng = random.Random(f"vote {trial}")
    initiator, victim = rng.randrange(5), rng.randrange(5)
    run_id = vote(fed, initiator, "--pace", str(PACE_S))
    threading.Event().wait(rng.uniform(0, 3 * PACE_S))  # when is the point of the test
    fed[victim].kill()
    survivors = fed.survivors()
    results = [result_of(daemon, run_id) for daemon in survivors]
    assert {result["state"] for result in results} == {"finished"}, results
    values = {json.dumps(result["value"], sort_keys=True) for result in results}
    assert len(values) == 1, values
    value = results[0]["value"]
    everybody = {"yes": 3, "no": 2}
    without = dict(everybody)
    without[BALLOTS[victim]] -= 1
    assert value["tally"] in (everybody, without)
    assert value["winner"] == ("yes" if value["tally"]["yes"] >= 3 else None)
    fed[victim].start().wait_ready().wait_plugins()
    fed.wait_alive()


@pytest.mark.slow
def test_everybody_has_the_winner_and_the_same_digest(fed: Federation) -> None:
    run_id = vote(fed, 1)
    values = [result_of(daemon, run_id)["value"] for daemon in fed]
    assert values[0]["winner"] == "yes"
    assert values[0]["tally"] == {"yes": 3, "no": 2}
    assert all(value == values[0] for value in values)
    again = vote(fed, 2)
    assert result_of(fed[0], again)["value"] == values[0]


@pytest.mark.slow
def test_one_is_killed_meanwhile(fed: Federation) -> None:
    kill_one_during_a_vote(fed, 0)


@pytest.mark.long
def test_20_votes_in_which_one_is_killed(fed: Federation) -> None:
    for trial in range(1, 21):
        kill_one_during_a_vote(fed, trial)


@pytest.mark.slow
def test_a_device_without_a_ballot_abstains_and_a_bad_one_falls_out(fed: Federation) -> None:
    fed[4].ctl("set", "ballot", '"perhaps"').ok()
    try:
        run_id = vote(fed, 0)
        results = [result_of(daemon, run_id) for daemon in fed]
        assert results[4]["state"] == "failed"
        assert "not on the list" in json.dumps(results[4])
        assert all(result["value"] == results[0]["value"] for result in results[:4])
        assert results[0]["value"]["tally"] == {"yes": 3, "no": 1}
    finally:
        fed[4].ctl("set", "ballot", '"no"').ok()
        eventually(lambda: len(fed.survivors()) == 5, GUARD_S, "all daemons are there")
