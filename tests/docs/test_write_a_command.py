"""The plugin of the page on commands does what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-command.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    plugin, test = blocks("python")
    (tmp_path / "fedd_valve.py").write_text(plugin)
    (tmp_path / "test_valve.py").write_text(test)
    return tmp_path


def test_its_own_tests_pass(project: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_valve.py"]
    ran = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout


def test_it_passes_the_type_checker(project: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "fedd_valve.py"]
    ran = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_its_entry_point_leads_to_its_hook(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry_points = tomllib.loads(blocks("toml")[0])["project"]["entry-points"]
    assert entry_points == {"fedd": {"valve": "fedd_valve"}}
    monkeypatch.syspath_prepend(project)
    module = __import__(entry_points["fedd"]["valve"])
    monkeypatch.delitem(sys.modules, "fedd_valve")
    assert [cls.name for cls in module.fedd_register_commands()] == ["valve"]


def test_its_policy_is_a_good_configuration(tmp_path: Path) -> None:
    (tmp_path / "fedd.toml").write_text(blocks("toml")[1])
    command = [sys.executable, "-m", "fedd", "--config", str(tmp_path / "fedd.toml"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_its_numbers_are_those_of_the_code() -> None:
    from fedd.host.command_call import HostTimes
    from fedd.host.command_host import STRIKES
    from fedd.host.command_turns import RUNNING, RUNNING_PER_SENDER
    from fedd.host.plugins import MAX_COMMAND_BYTES, MAX_COMMAND_TIMEOUT_S
    from fedd.worker import parameters

    text = PAGE.read_text("utf-8")
    assert parameters.MAX_COMMAND_BYTES == MAX_COMMAND_BYTES == 16 * 1024 * 1024
    assert parameters.MAX_TIMEOUT_S == MAX_COMMAND_TIMEOUT_S == 30
    assert f"{RUNNING} handlers on a node, {RUNNING_PER_SENDER} of one sender" in text
    assert f"killed after {HostTimes.block_s:g} s" in " ".join(text.split())
    assert f"and {HostTimes.grace_s:g} s later killed" in text
    assert STRIKES == 3
