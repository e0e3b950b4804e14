"""The plugin of the tutorial does what the tutorial says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial" / "first-plugin.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TUTORIAL.read_text("utf-8"), re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    plugin, test = blocks("python")
    (tmp_path / "fedd_median.py").write_text(plugin)
    (tmp_path / "test_median.py").write_text(test)
    (tmp_path / "pyproject.toml").write_text(blocks("toml")[0])
    return tmp_path


def test_its_own_tests_pass(project: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_median.py"]
    ran = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout


def test_its_algorithm_has_about_thirty_lines(project: Path) -> None:
    lines = (project / "fedd_median.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 30


def test_its_entry_point_leads_to_its_hook(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry_points = tomllib.loads((project / "pyproject.toml").read_text())["project"]["entry-points"]
    assert entry_points == {"fedd": {"median": "fedd_median"}}
    monkeypatch.syspath_prepend(project)
    module = __import__(entry_points["fedd"]["median"])
    monkeypatch.delitem(sys.modules, "fedd_median")
    assert [cls.name for cls in module.fedd_register_algorithms()] == ["median"]


def test_its_policy_is_a_good_configuration(tmp_path: Path) -> None:
    (tmp_path / "fedd.toml").write_text(blocks("toml")[1])
    command = [sys.executable, "-m", "fedd", "--config", str(tmp_path / "fedd.toml"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
