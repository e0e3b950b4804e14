"""Learners and aggregators are found by name, in the bundled plugins first."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from worker import strangers

from fedd.api.errors import NotFound
from fedd.worker import plugins

LEARNER = """
from dataclasses import dataclass
from typing import ClassVar
from fedd.api import hookimpl

class Base:
    mean = True
    def prepare(self, data, rng): ...
    def parameters(self): ...
    def load(self, parameters): ...
    def train(self, *, epochs=0, steps=0): ...
    def evaluate(self): ...
    def start(self, model): ...
    def aggregate(self, model, contributions, state): ...
    def before(self, model, state, own): ...
    def after(self, model, trained, result, state, own): ...

@dataclass
class Net(Base):
    name: ClassVar[str] = "net"

@dataclass
class Own(Base):
    name: ClassVar[str] = "own-MODULE"

@hookimpl
def fedd_register_learners(): return [Net, Own]
@hookimpl
def fedd_register_aggregators(): return [Net]
"""


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("alpha", "bundled", "broken")
    modules = {f"finders_{name}": LEARNER.replace("MODULE", name) for name in names[:2]}
    modules["finders_broken"] = "raise SystemExit(3)"
    strangers.install(tmp_path, {}, modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def point(name: str) -> Any:
        made = importlib.metadata.EntryPoint(name, f"finders_{name}", "fedd")
        dist = "fedd" if name == "bundled" else "strangers"
        return SimpleNamespace(name=name, value=made.value, load=made.load, dist=SimpleNamespace(name=dist))

    found = {name: point(name) for name in sorted(names)}
    monkeypatch.setattr(plugins, "entry_points", lambda: list(found.values()))
    monkeypatch.setattr(plugins, "_named", lambda plugin: iter([found[plugin]] if plugin in found else []))


def test_a_bundled_one_wins_its_name() -> None:
    assert plugins.find_learner("net").__module__ == "finders_bundled"
    assert plugins.find_aggregator("net").__module__ == "finders_bundled"
    assert plugins.find_learner("own-alpha").__module__ == "finders_alpha"


def test_of_a_given_plugin() -> None:
    assert plugins.find_learner("net", "alpha").__module__ == "finders_alpha"
    assert plugins.find_aggregator("net", {"net": "alpha"}).__module__ == "finders_alpha"
    with pytest.raises(NotFound, match="the plugin alpha has no learner own-bundled"):
        plugins.find_learner("own-bundled", "alpha")
    with pytest.raises(NotFound, match="the plugin gone is not installed"):
        plugins.find_learner("net", "gone")


def test_the_nearest_is_named_and_who_failed() -> None:
    with pytest.raises(NotFound, match="there is no learner 'own-alhpa' here") as caught:
        plugins.find_learner("own-alhpa")
    assert caught.value.hint == "did you mean own-alpha?; failed to load: broken"
    with pytest.raises(NotFound) as caught:
        plugins.find_aggregator("zzzzzz")
    assert caught.value.hint.startswith("there are net, net")


def test_the_policys_word_counts() -> None:
    with pytest.raises(NotFound, match="that the policy allows") as caught:
        plugins.find_aggregator("net", {"nets": "alpha"})
    assert "did you mean nets?" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        plugins.find_aggregator("net", {})
    assert "there are none" in caught.value.hint
