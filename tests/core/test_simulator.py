"""A hundred nodes, and with `-m long` a thousand, live through a history in simulated time."""

from __future__ import annotations

import random
import statistics

import pytest
from core.simulated_history import Story
from core.simulator import Simulation

from fedd.core.own_record import SPARE_EDGE_S


def check(nodes: int) -> None:
    told = Story(nodes, 0.7, seed=1).tell()
    assert told["not_dialable"] == round(0.7 * nodes)
    assert told["equal_databases"]
    for name, chapter in told.items():
        if isinstance(chapter, dict) and name != "partition":
            assert chapter["false_deaths"] == 0
    # Some have all their links across the cut, and dial into it before they find their own side.
    survivors = 0.7 * nodes
    assert told["partition"]["false_deaths"] <= 0.05 * survivors * survivors / 2
    assert told["join"]["full_view_after_s"] <= 5.0
    for chapter in ("quiet", "end"):
        assert told[chapter]["degree_min"] >= 5
        assert told[chapter]["degree_max"] <= 24
        assert told[chapter]["bytes_s_a_node_mean"] <= 1.2 * 1024
        assert told[chapter]["messages_s_a_link_end"] <= 1.1 * 1.5
    assert told["kill"]["detected_p50_s"] <= 1.6
    assert told["silent_death"]["detected_p50_s"] <= 6.9
    assert told["mass_death"]["detected_p50_s"] <= 6.9
    assert told["partition"]["detected_p50_s"] <= 6.9
    assert told["partition"]["detected_share"] >= 1.0
    assert told["heal"]["full_view_s"] <= 15.0


def test_a_hundred_nodes_of_which_seventy_cannot_be_dialled() -> None:
    check(100)


@pytest.mark.long
def test_a_thousand_nodes() -> None:
    check(1000)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_thirty_that_join_at_once_are_quiet_a_second_later(seed: int) -> None:
    """On a LAN, all by the same first address: the bytes of a node, from one second after all see all."""
    sim = Simulation(seed, latency_s=(0.0005, 0.003))
    names = [f"n{index:02d}" for index in range(30)]
    sim.add(names[0], [])
    for name in names[1:]:
        sim.add(name, names[:1])
    assert sim.run_until(sim.full_view, 2.0, step_s=0.01) < 0.5
    sim.run(1.0)
    joined = [node.sent_bytes for node in sim.living()]
    assert statistics.mean(joined) <= 250e3
    sim.run(20.0)
    sent = [node.sent_bytes - before for node, before in zip(sim.living(), joined, strict=True)]
    assert statistics.mean(sent) / 20.0 <= 1.2 * 1024
    assert statistics.mean(sim.degrees()) <= 7.0
    assert sim.degrees()[0] >= 5


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_thirty_that_come_one_soon_after_the_other_wait_for_no_pause(seed: int) -> None:
    """Whoever finds no room at the first begins with several links at once: each end could tell of it."""
    sim = Simulation(seed, latency_s=(0.0005, 0.003))
    names = [f"n{index:02d}" for index in range(30)]
    rng = random.Random(seed)
    rng.shuffle(names)
    sim.add(names[0], [])
    for name in names[1:]:
        sim.at(rng.uniform(0.0, 0.1), sim.add, name, names[:1])
    sim.run(0.1)
    assert sim.run_until(sim.full_view, 2.0, step_s=0.01) < SPARE_EDGE_S - 0.1
