"""The benchmark of the simulator tells what it is asked for."""

from __future__ import annotations

import json
import sys

import pytest
from bench import simulation


def test_a_line_for_each_size(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["simulation.py", "--nodes", "8", "12"])
    monkeypatch.setattr(simulation, "TARGET_NODES", 12)
    monkeypatch.setattr(simulation, "TARGET_S", -1.0)  # so few take no time when rounded
    with pytest.raises(SystemExit) as end:
        simulation.main()
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["nodes"], second["nodes"]) == (8, 12)
    assert sum(second["chapters_cpu_s"].values()) == pytest.approx(second["cpu_s"], abs=0.15)
    assert {"join", "mass_death", "partition", "heal"} <= second["chapters_cpu_s"].keys()
    # a target only where there is one, and missed here on purpose
    assert "met" not in first
    assert second["met"] is False
    assert end.value.code == 1
