"""The plugin of the tutorial does what the tutorial says."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from docs.pages import DOCS, blocks, fedd_accepts, pytest_passes

TUTORIAL = DOCS / "tutorial" / "first-plugin.md"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    plugin, test = blocks(TUTORIAL, "python")
    (tmp_path / "fedd_median.py").write_text(plugin)
    (tmp_path / "test_median.py").write_text(test)
    (tmp_path / "pyproject.toml").write_text(blocks(TUTORIAL, "toml")[0])
    return tmp_path


def test_its_own_tests_pass(project: Path) -> None:
    pytest_passes(project, "test_median.py", "2 passed")


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
    fedd_accepts(tmp_path, blocks(TUTORIAL, "toml")[1])
