"""`fedctl demo --learning`, and the digits that it divides without NumPy."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from federation.daemons import GUARD_S

from fedd.demo import digits
from fedd_learners.digits import load_digits

FEDCTL = Path(sys.executable).parent / "fedctl"


def test_the_digits_are_those_of_the_learners_plugin() -> None:
    train, test = digits.load()
    everything = load_digits()
    assert (len(train.rows), len(test.rows)) == (1437, 360)
    assert [*test.labels] == everything.y[::5].tolist()
    assert np.array([[*row] for row in test.rows]).tolist() == (everything.x[::5] * 16).tolist()


def test_what_a_daemon_gets_is_what_numpy_reads(tmp_path: Path) -> None:
    train, test = digits.load()
    share = train.of([3, 8])
    digits.write_shares(tmp_path / "digits.npz", share, test)
    with np.load(tmp_path / "digits.npz", allow_pickle=False) as read:
        assert sorted(read) == ["x", "x_test", "y", "y_test"]
        assert {str(read[name].dtype) for name in read} == {"float32", "int64"}
        assert set(read["y"].tolist()) == {3, 8}
        assert read["x"].shape == (len(share.rows), 64)
        assert (read["x_test"] * 16).tolist() == [[*row] for row in test.rows]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this is no"):
        digits.read_bytes(b"something else")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "other.npz") as archive, pytest.raises(ValueError, match="<f8"):
        digits.read_bytes(archive.read("x.npy"))


@pytest.mark.parametrize("nodes", ["2", "11"])
def test_each_member_needs_a_digit_of_its_own(nodes: str) -> None:
    command = [FEDCTL, "demo", "--learning", "--nodes", nodes]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=2 * GUARD_S, check=False)
    assert refused.returncode == 2
    assert "choose 3 to 10" in refused.stderr


@pytest.mark.slow
def test_five_daemons_learn_what_none_of_them_can() -> None:
    command = [FEDCTL, "demo", "--learning", "--json"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=2 * GUARD_S, check=False)
    assert shown.returncode == 0, shown.stderr + shown.stdout
    document = json.loads(shown.stdout)
    assert len(document["accuracy_alone"]) == 5
    assert all(0.1 < accuracy < 0.3 for accuracy in document["accuracy_alone"])
    assert document["accuracy_together"] >= 0.93
    assert 0.6 <= document["accuracy_survivors"] < document["accuracy_together"]
    assert document["lost_classes"] == [0, 5]
    assert [entry["name"] for entry in document["dropped"]] == ["reader-1"]
