"""What is said of a topology before anybody runs on it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fedd.api import InvalidParameter
from fedd.worker.topology import describe_topology


def test_a_ring() -> None:
    found = describe_topology("ring", 32, 0, 1e-6)
    assert found["rounds"] == 1072
    assert found["chebyshev_rounds"] == 74
    assert (found["diameter"], found["degree_min"], found["degree_max"]) == (16, 2, 2)
    assert (len(found["members"]), len(found["edges"]), found["arcs"]) == (32, 32, [])
    assert found["spectral_gap"] == pytest.approx(0.0128098, abs=1e-7)
    assert not found["directed"]


def test_arcs_that_take_turns() -> None:
    found = describe_topology("one-peer-exponential", 8, 0, 1e-6)
    assert (found["rounds"], found["chebyshev_rounds"], len(found["arcs"])) == (3, None, 3)
    assert found["directed"]


def test_written_edges_name_their_nodes() -> None:
    found = describe_topology("edges:undirected\nb,a,0.5", 0, 0, 1e-6)
    assert (found["members"], found["weights"], found["rounds"]) == (["a", "b"], "explicit", 1)


def test_a_matrix_that_never_converges_says_so() -> None:
    found = describe_topology("edges:undirected\nb,a,1", 0, 0, 1e-6)
    assert (found["spectral_gap"], found["rounds"]) == (0.0, None)


@pytest.mark.parametrize(
    ("name", "nodes", "tolerance", "field"),
    [("rung", 4, 1e-6, "topology"), ("ring", 2000, 1e-6, "members"), ("ring", 4, 2.0, "tolerance")],
)
def test_what_cannot_be(name: str, nodes: int, tolerance: float, field: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        describe_topology(name, nodes, 0, tolerance)
    assert caught.value.field == field


@pytest.mark.parametrize(("name", "key"), [("ring", "spectral_gap"), ("rung", "error")])
def test_the_program_writes_one_document(name: str, key: str) -> None:
    command = [sys.executable, "-m", "fedd.worker", "topology", name, "8", "0", "1e-6"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert key in json.loads(done.stdout)
