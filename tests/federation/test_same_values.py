"""Real daemons and `fedd.testing` compute the same values, to the last bit."""

from __future__ import annotations

import numpy as np
from federation.daemons import federation

from fedd.testing import Federation
from fedd_consensus import AverageConsensus

INPUTS = [[0.1, 1e6 / 3], [-2.0 / 7, 1e-9], [3e5, 0.7], [1.1, 2.2]]


def test_a_run_gives_what_the_simulation_gives() -> None:
    with federation(len(INPUTS)) as fed:
        fed.set_inputs(INPUTS)
        inputs = {daemon.peer_id(): values for daemon, values in zip(fed, INPUTS, strict=True)}
        real = {
            name: fed[1].ctl("run", "consensus", "--input", "x", "--topology", name, "--seed", "7").ok()
            for name in ("complete", "ring")
        }
    members = sorted(inputs)
    values = [inputs[peer] for peer in members]
    for topology, result in real.items():
        for node in Federation(members, topology=topology, seed=7).run(AverageConsensus(), values):
            assert isinstance(node.value, np.ndarray)
            # JSON has the shortest decimals that name one float, so equal here is equal to the bit.
            assert node.value.tolist() == result["value"]
            assert list(node.contributors) == result["contributors"]
