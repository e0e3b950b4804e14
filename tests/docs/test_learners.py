"""The pages on learners: their table is that of the code, their example does what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from docs.pages import DOCS, blocks, mypy_passes, pytest_passes

from fedd.worker.abilities import ABILITIES, abilities
from fedd.worker.parameters import learner_schema
from fedd_learners import fedd_register_learners

REFERENCE = DOCS / "reference" / "learners.md"
HOW_TO = DOCS / "how-to" / "write-a-learner.md"
LEARNERS = {cls.name: cls for cls in fedd_register_learners()}


def section(heading: str) -> str:
    return REFERENCE.read_text("utf-8").split(f"\n### {heading}\n")[1].split("\n##")[0]


def options(heading: str) -> dict[str, object]:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", section(heading), re.MULTILINE)
    return {name: json.loads(default) for name, default in rows}


def test_the_table_names_every_learner_and_what_it_can() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| .* \| .* \| (\w+) \|$", REFERENCE.read_text("utf-8"), re.MULTILINE)
    can = {name: "all" if abilities(cls) == set(ABILITIES) else "none" for name, cls in LEARNERS.items()}
    assert dict(rows) == can
    assert not abilities(LEARNERS["sklearn"])


@pytest.mark.parametrize(
    ("name", "heading", "more"),
    [
        ("least-squares", "least-squares", {}),
        ("ridge", "least-squares", {"l2": 0.1}),
        ("logistic", "least-squares", {"l2": 0.1}),
        ("softmax", "softmax", {}),
        ("numpy-softmax", "softmax", {"batch": 32}),
        ("sklearn", "sklearn", {}),
        ("torch", "torch", {}),
    ],
)
def test_options_and_defaults_are_those_of_the_code(name: str, heading: str, more: dict[str, object]) -> None:
    schema = {each.name: each.default for each in learner_schema(LEARNERS[name])}
    assert {**options(heading), **more} == schema


def test_a_network_has_the_options_of_softmax_and_its_own() -> None:
    schema = {each.name: each.default for each in learner_schema(LEARNERS["mlp"])}
    assert {**options("softmax"), **options("mlp")} == schema
    small = {each.name: each.default for each in learner_schema(LEARNERS["numpy-mlp"])}
    assert small == {**schema, "batch": 32}


def test_the_division_of_the_page(tmp_path: Path) -> None:
    (code,) = blocks(REFERENCE, "python")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    files = sorted(tmp_path.glob("*.npz"))
    assert len(files) == 10
    parts = [np.load(path) for path in files]
    assert sum(len(part["y"]) for part in parts) == 1437
    assert parts[0]["x_test"].shape == (360, 64)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("line")
    plugin, test = blocks(HOW_TO, "python")
    (folder / "fedd_line.py").write_text(plugin)
    (folder / "test_line.py").write_text(test)
    return folder


def test_the_examples_own_tests_pass(project: Path) -> None:
    pytest_passes(project, "test_line.py", "2 passed")


def test_the_example_passes_the_type_checker(project: Path) -> None:
    mypy_passes(project, "fedd_line.py")


def test_the_examples_entry_point_leads_to_its_hook(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, configuration = map(tomllib.loads, blocks(HOW_TO, "toml"))
    assert package["project"]["entry-points"] == {"fedd": {"line": "fedd_line"}}
    monkeypatch.syspath_prepend(project)
    module = __import__("fedd_line")
    monkeypatch.delitem(sys.modules, "fedd_line")
    (line,) = module.fedd_register_learners()
    assert abilities(line) == {"gradient"}
    configured = configuration["inputs"]["pump"]
    assert configured["learner"] == line.name
    assert {each.name for each in learner_schema(line)} == configured.keys() - {"learner", "file"}
