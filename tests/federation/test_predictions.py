"""What fedctl foresees of a run among real daemons, and how one that diverges ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from federation.daemons import result_of
from federation.test_optimization import RUN, devices, optimum, tables

pytestmark = pytest.mark.slow

NODES = 4


def test_steps_and_iterations_are_foreseen_and_a_step_beyond_them_fails_with_a_word(tmp_path: Path) -> None:
    data = tables(NODES)
    with devices(tmp_path, 'learner = "least-squares"', data) as fed:
        dry = fed[1].ctl("run", "gradient-tracking", "step=0.1", *RUN, "--dry-run").ok()
        assert len(dry["members"]) == NODES
        assert all(daemon.ctl("runs").json == [] for daemon in fed)
        foreseen = dry["prediction"]
        hessian = data[1]["A"].T @ data[1]["A"] / 20
        eigenvalues = np.linalg.eigvalsh(hessian)
        assert foreseen["curvature"] == pytest.approx(eigenvalues[-1], rel=1e-5)
        assert foreseen["strong_convexity"] == pytest.approx(eigenvalues[0], rel=1e-5)
        bound = foreseen["step_bound"]
        assert bound == pytest.approx((1 - 1 / 3) ** 2 / (2 * eigenvalues[-1]), rel=1e-5)  # a ring of four

        count = foreseen["predicted_iterations"]
        good = fed[1].ctl("run", "gradient-tracking", "step=0.1", f"iterations={count}", *RUN)
        assert (good.code, "warning" in good.err) == (0, False)
        assert np.abs(np.array(good.json["value"]) - optimum(data)).max() < 1e-4
        assert good.json["prediction"]["planned_bytes"] == count * 2 * 2 * 3 * 8

        bad = fed[1].ctl("run", "gradient-tracking", "step=2", "iterations=300", *RUN)
        assert bad.code == 1
        assert f"step 2 is beyond {bound:.3g}" in bad.err
        assert "diverged in iteration" in bad.err
        for daemon in fed:
            result = result_of(daemon, bad.json["run_id"])
            assert (result["state"], result["value"]) == ("failed", None)
            assert "diverged in iteration" in result["error"]
        warned = [event for event in fed[1].events() if event.get("state") == "warning"]
        assert {event["run_id"] for event in warned} == {bad.json["run_id"]}
        assert any("seems to diverge" in event["error"] for event in warned)

        wrong = fed[1].ctl("run", "gradient-tracking", "--input", "here", "--topology", "directed-ring")
        assert wrong.code == 2
        assert "both ways" in wrong.err
        assert len(fed[1].ctl("runs").json) == 2
