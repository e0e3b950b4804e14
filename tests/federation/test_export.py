"""A run's curves and its whole value leave the daemons as files, also after a restart."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from federation.daemons import GUARD_S, eventually, federation, result_of


def test_the_curves_of_all_members_and_a_large_value(tmp_path: Path) -> None:
    with federation(3) as fed:
        size = 1200  # more than a result shows
        for number, daemon in enumerate(fed):
            daemon.ctl("set", "x", str([float(number)] * size)).ok()
        run = fed[1].ctl("run", "consensus", "--input", "x", "--topology", "line").ok()
        assert run["value"]["shape"] == [size]
        for daemon in fed:
            daemon.wait_kept(run["run_id"])
        first = result_of(fed[0], run["run_id"])

        table = tmp_path / "run.csv"
        told = fed[0].ctl("export", run["run_id"], "-o", str(table)).ok()
        assert (told["missing"], told["bytes"]) == ([], table.stat().st_size)
        rows = list(csv.DictReader(table.open()))
        assert {row["name"] for row in rows} == {daemon.name for daemon in fed}
        ours = [row for row in rows if row["name"] == fed[0].name]
        assert int(ours[-1]["round"]) <= first["rounds"]
        assert float(ours[-1]["residual"]) == pytest.approx(first["residual"])
        assert len(ours) > 5

        fed[0].kill()
        fed[2].kill()
        fed[0].start().wait_ready()
        for one, other in ((fed[0], fed[1]), (fed[1], fed[0])):
            eventually(
                lambda o=one, n=other.name: o.states().get(n) == "alive", GUARD_S, f"{other.name} is found"
            )
        arrays = tmp_path / "run.npz"
        told = fed[0].ctl("export", run["run_id"][:8], "-o", str(arrays)).ok()
        assert [gap["name"] for gap in told["missing"]] == [fed[2].name]
        found = np.load(arrays, allow_pickle=False)
        assert found["value"].tolist() == [pytest.approx(1.0)] * size
        assert len(found[f"{fed[0].name}/residual"]) == len(ours)

        picture = tmp_path / "run.svg"
        fed[1].ctl("export", run["run_id"], "-o", str(picture)).ok()
        assert picture.read_text().count("<polyline") == 2

        for words, said in (
            (("export", run["run_id"], "-o", "run.png"), ".npz, .csv, .svg"),
            (("export", "ffff", "-o", str(table)), "no run"),
            (("export", run["run_id"], "-o", str(tmp_path / "no" / "run.csv")), "cannot write"),
        ):
            refused = fed[1].ctl(*words)
            assert refused.code != 0
            assert said in refused.err
