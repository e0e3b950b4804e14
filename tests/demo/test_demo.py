"""The demonstration itself: real daemons, a real death, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from federation.daemons import GUARD_S
from federation.processor import Race

from fedd.demo import run

FEDCTL = Path(sys.executable).parent / "fedctl"


def processes_in(folder: Path) -> list[str]:
    """Command lines of living processes that name a directory in `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
    return found


@pytest.fixture
def scratch() -> Path:
    # Short: the address of a Unix socket in it holds 107 bytes.
    return Path(tempfile.mkdtemp(prefix="fd-"))


def environment(scratch: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratch)}


def test_it_shows_what_it_claims(scratch: Path) -> None:
    race = Race()
    shown = subprocess.run(
        [FEDCTL, "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=2 * GUARD_S,
        env=environment(scratch),
        check=False,
    )
    took_s = race.seconds()
    assert shown.returncode == 0, shown.stderr + shown.stdout
    document = json.loads(shown.stdout)
    assert document["coefficients_max_error"] <= 1e-9
    assert document["survivors_max_error"] <= 1e-9
    steps = {step["step"]: step for step in document["steps"]}
    assert list(steps) == ["start", "alone", "federation", "together", "survivors", "teardown"]
    assert steps["alone"]["mean_r2"] == pytest.approx(0.44, abs=5e-3)
    assert steps["together"]["r2"] == pytest.approx(0.518, abs=5e-4)
    assert [entry["name"] for entry in document["dropped"]] == [steps["survivors"]["killed"]]
    assert document["dropped"][0]["round"] > 0
    assert document["dropped"][0]["reason"]
    assert took_s < 30  # 15 s on a machine that does nothing else
    assert processes_in(scratch) == []
    assert list(scratch.iterdir()) == []


def test_a_picture_is_drawn_without_a_terminal_too(scratch: Path) -> None:
    shown = subprocess.run(
        [FEDCTL, "demo", "--nodes", "3"],
        capture_output=True,
        text=True,
        timeout=2 * GUARD_S,
        env=environment(scratch),
        check=False,
    )
    assert shown.returncode == 0, shown.stderr + shown.stdout
    for name in ("clinic-1", "clinic-2", "clinic-3", "R2 0.518", "kill -9", "survivors"):
        assert name in shown.stdout
    assert "\x1b" not in shown.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_tears_everything_down_when_it_is_interrupted(scratch: Path, number: signal.Signals) -> None:
    demo = subprocess.Popen(
        [FEDCTL, "demo", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(scratch),
    )
    deadline = time.monotonic() + GUARD_S
    while len(processes_in(scratch)) < 5:
        assert demo.poll() is None
        assert time.monotonic() < deadline
    demo.send_signal(number)
    out, err = demo.communicate(timeout=2 * GUARD_S)
    assert demo.returncode == 130, err
    assert out == ""
    assert err.count("\n") == 1
    assert processes_in(scratch) == []
    assert list(scratch.iterdir()) == []


def test_a_figure_that_misses_is_a_failure(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "TOLERANCE", 1e-30)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    assert run.main(3, json_output=True) == 1
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document["ok"] is False
    assert "off by" in document["error"]
    assert document["error"] in shown.err
    assert processes_in(scratch) == []
    assert list(scratch.iterdir()) == []


def test_a_daemon_that_does_not_start_is_a_failure_with_its_last_words(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(run, "INPUT", "no name")
    assert run.main(3, json_output=False) == 1
    assert "ended before it was ready" in capsys.readouterr().err
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("nodes", ["2", "21"])
def test_it_says_how_many_daemons_are_possible(nodes: str) -> None:
    shown = subprocess.run([FEDCTL, "demo", "--nodes", nodes], capture_output=True, text=True, check=False)
    assert shown.returncode == 2
    assert "3 to 20" in shown.stderr
