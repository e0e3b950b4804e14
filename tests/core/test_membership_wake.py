"""A member that wakes from a pause: what has piled up meanwhile is no reason to accuse anybody."""

from __future__ import annotations

import pytest
from core.membership_bench import federation

from fedd.core.membership_parts import WAKE_SETTLE_S


@pytest.mark.parametrize("seconds", [3.0, 3.3, 4.0, 8.0, 30.0])
def test_who_wakes_changes_its_mind_about_nobody(seconds: float) -> None:
    """The others have withdrawn their edges to it, and list it again before it judges."""
    for seed in range(12):
        bench = federation(6, seed)
        woken_s = bench.now + seconds
        bench.pause("p02", seconds)
        bench.run(seconds + WAKE_SETTLE_S + 1.0)
        others = [
            (observer, change)
            for _, observer, change in bench.changes("suspect", "dead", "left", "alive")
            if change.peer_id != "p02"
        ]
        assert not others, f"seed {seed}"
        assert bench.all_alive()
        late = [at for at, _, _ in bench.changes("alive") if at >= woken_s]
        assert max(late, default=woken_s) <= woken_s + 1.0


def test_who_died_while_a_member_slept_is_found_out_after_it_has_settled() -> None:
    bench = federation(6, 3)
    bench.pause("p02", 8.0)
    bench.run(4.0)
    bench.kill("p04")
    bench.run(4.0 + WAKE_SETTLE_S / 2)
    sleeper = bench.nodes["p02"].core
    assert sleeper.state_of("p04") == "alive"
    bench.run_until(lambda: sleeper.state_of("p04") == "dead", 6.0)


def test_a_short_gap_makes_no_new_version() -> None:
    """Where a crowd starves every member for a moment each, that must not make them a flood of records."""
    bench = federation(6, 1)
    node = bench.nodes["p02"]
    for pause_s, publishes in ((1.6, False), (2.9, True)):
        before = node.core.records["p02"].stamp
        bench.pause("p02", pause_s)
        bench.run(pause_s + 1.5)
        assert (node.core.records["p02"].stamp > before) is publishes, pause_s
