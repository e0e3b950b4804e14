"""What plugins find wrong with a configuration, at `--check` and in a daemon."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from fedd import __main__ as program
from fedd import checks
from fedd.host.plugins import PluginRegistry

LEARNER = {
    "name": "net",
    "doc": "",
    "parameters": [{"name": "step", "type": "float", "default": 0.1}],
    "abilities": [],
}
PLUGIN = {"name": "nets", "distribution": "acme", "version": "1", "error": None, "learners": [LEARNER]}


async def inspector() -> bytes:
    return json.dumps({"format": 1, "plugins": [PLUGIN]}).encode()


@pytest.fixture(autouse=True)
def _nets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PluginRegistry", partial(PluginRegistry, inspector=inspector))


def check(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> tuple[int, str]:
    path = tmp_path / "fedd.toml"
    path.write_text(text)
    status = program.main(["--config", str(path), "--check"])
    return status, capsys.readouterr().err.replace(str(path), "fedd.toml")


def test_a_good_learner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path, capsys, "[inputs.x]\nlearner = 'net'\nstep = 1\nvalue = 2") == (0, "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[inputs.x]\nvalue = 1\nlearner = 'nett'",
            "fedd: fedd.toml:3: inputs.x.learner: the input 'x': there is no learner 'nett' here"
            " - did you mean 'net'?\n",
        ),
        (
            "[inputs.x]\nlearner = 'net'\nvalue = 1\n\nstpe = 1",
            "fedd: fedd.toml:5: inputs.x.stpe: the input 'x': net has no option 'stpe'"
            " - did you mean 'step'?\n",
        ),
    ],
)
def test_what_is_wrong_is_said_with_key_line_and_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    assert check(tmp_path, capsys, text) == (78, said)


def test_the_plugins_that_are_asked_read_no_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Registry(PluginRegistry):
        def __init__(self, hidden: tuple[str, ...]) -> None:
            super().__init__(inspector=inspector, hidden=hidden)
            made.append(self.walls(()))

    monkeypatch.setattr(checks, "PluginRegistry", Registry)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    assert check(tmp_path, capsys, "[inputs.x]\nlearner = 'net'") == (0, "")
    assert made == [("--hide", str(tmp_path))]


def test_without_a_learner_no_plugin_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "check_learners", None)
    assert check(tmp_path, capsys, "[inputs.x]\nvalue = 1") == (0, "")
