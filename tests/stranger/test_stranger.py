"""A package that nobody here wrote: built, installed beside fedd in a fresh environment, found, run."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = Path(__file__).parent / "fedd_stranger_median"

RUN_IT = """
import json
from fedd.testing import Federation, Kill
from fedd.worker.parameters import build
from fedd.worker.plugins import find_algorithm

median = build(find_algorithm("stranger-median", "median"), {"middle": "lower"})
federation = Federation(6, topology="ring", seed=4, kills=[Kill(node=5, round=0)])
results = federation.run(median, inputs=[3.0, 1.0, 7.0, 9.0, 5.0, 100.0])
print(json.dumps([[r.value, list(r.contributors), str(r.error or "")] for r in results]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A fresh environment with fedd and the stranger's built wheel."""
    directory = tmp_path_factory.mktemp("stranger")
    subprocess.run([sys.executable, "-m", "venv", str(directory / "venv")], check=True)
    python = directory / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(directory), str(PACKAGE)], check=True)
    (wheel,) = directory.glob("fedd_stranger_median-*.whl")
    subprocess.run([*pip, "install", str(ROOT), str(wheel)], check=True)
    return str(python)


@pytest.mark.slow
def test_it_is_found_by_its_entry_point(python: str) -> None:
    done = subprocess.run(
        [python, "-I", "-m", "fedd.worker", "inspect"], capture_output=True, text=True, check=True
    )
    plugins = {plugin["name"]: plugin for plugin in json.loads(done.stdout)["plugins"]}
    bundled = {
        "aggregators",
        "basics",
        "consensus",
        "learners",
        "learning",
        "optimization",
        "regression",
        "voting",
    }
    assert set(plugins) == {*bundled, "stranger-median"}
    stranger = plugins["stranger-median"]
    assert (stranger["distribution"], stranger["version"]) == ("fedd-stranger-median", "0.3.1")
    assert stranger["error"] is None
    (algorithm,) = stranger["algorithms"]
    assert algorithm["name"] == "median"
    assert algorithm["parameters"][0]["choices"] == ["mean", "lower", "upper"]


@pytest.mark.slow
def test_it_runs_and_survives_a_death(python: str) -> None:
    done = subprocess.run([python, "-I", "-c", RUN_IT], capture_output=True, text=True, check=True)
    *survivors, dead = json.loads(done.stdout)
    members = [f"node-{index:02d}" for index in range(5)]
    assert survivors == [[5.0, members, ""]] * 5
    assert "killed" in dead[2]


def test_it_imports_the_api_only() -> None:
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text())
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules += [
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        ]
        assert {module for module in modules if module.split(".")[0] == "fedd"} == {"fedd.api"}
