"""PyTorch modules as learners; what can be tested without PyTorch is in the first tests."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedd.api import InvalidMessage, InvalidParameter, PluginFailed
from fedd.worker.abilities import ABILITIES, abilities
from fedd_learners import Softmax, TorchModule

NETS = """
import torch

def linear():
    return torch.nn.Linear(5, 4)

def zero():
    net = torch.nn.Linear(5, 4)
    torch.nn.init.zeros_(net.weight)
    torch.nn.init.zeros_(net.bias)
    return net

class Deep(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh(),
                         torch.nn.Dropout(0.5), torch.nn.Linear(8, 4))

def frozen():
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    for each in net[0].parameters():
        each.requires_grad_(False)
    return net

def regression():
    return torch.nn.Linear(5, 1)

def nothing():
    return torch.nn.Tanh()

def no_module():
    return 5
"""
RNG = np.random.default_rng(7)
X = RNG.normal(size=(40, 5))
FOUR = {"x": X, "y": RNG.integers(0, 4, 40)}


def test_what_it_can() -> None:
    assert abilities(TorchModule) == set(ABILITIES)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"module": "net"}, "module"), ({"module": "net:"}, "module"), ({"module": ":Net"}, "module"),
     ({"module": "a:b c"}, "module"), ({"step": 0.0}, "step"), ({"batch": -1}, "batch"), ({"l2": -1.0}, "l2"),
     ({"classes": -1}, "classes"), ({"seed": -1}, "seed"), ({"test": 1.0}, "test")],
)  # fmt: skip
def test_options_that_make_no_sense(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        TorchModule(**options)
    assert caught.value.field == field


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(PluginFailed, match="PyTorch is needed") as caught:
        TorchModule(module="a:b").prepare(FOUR, np.random.default_rng(0))
    assert "extra torch" in caught.value.hint


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is an extra and not installed here")


@pytest.fixture
def prepared(torch: Any, tmp_path: Path) -> Any:
    (tmp_path / "nets.py").write_text(NETS)

    def prepare(name: str, data: Any = FOUR, seed: int = 0, **options: Any) -> TorchModule:
        learner = TorchModule(module=f"{tmp_path}/nets.py:{name}", **options)
        learner.prepare(data, np.random.default_rng(seed))
        return learner

    return prepare


@pytest.mark.parametrize("name", ["linear", "Deep", "frozen"])
def test_the_gradient_is_that_of_the_objective(prepared: Any, name: str) -> None:
    learner = prepared(name, l2=0.1)
    at = learner.parameters()
    gradient = learner.gradient()
    trained = len(learner._weights)
    assert [slope.shape for slope in gradient] == [array.shape for array in at]
    for index, array in enumerate(at[:trained]):
        for place in list(np.ndindex(array.shape))[:8]:
            values = []
            for sign in (1, -1):
                moved = [each.copy() for each in at]
                moved[index][place] += sign * 1e-2
                learner.load(moved)
                values.append(learner.objective())
            assert gradient[index][place] == pytest.approx((values[0] - values[1]) / 2e-2, abs=3e-3)
    assert all(not slope.any() for slope in gradient[trained:])


def test_it_agrees_with_numpy(prepared: Any) -> None:
    learner, ours = prepared("zero", batch=0, l2=0.0), Softmax(step=0.1)
    ours.prepare(FOUR, np.random.default_rng(0))
    correction = [RNG.normal(size=(4, 5)).astype(np.float32), np.ones(4, np.float32)]
    result = learner.train(steps=5, correction=correction, proximal=0.3)
    ours.train(steps=5, correction=[correction[0].T.astype(float), np.ones(4)], proximal=0.3)
    np.testing.assert_allclose(learner.parameters()[0].T, ours.parameters()[0], atol=1e-5)
    np.testing.assert_allclose(learner.parameters()[1], ours.parameters()[1], atol=1e-5)
    assert learner.objective() == pytest.approx(ours.objective(), abs=1e-5)
    assert learner.evaluate() == pytest.approx(ours.evaluate(), abs=1e-5)
    assert (result.num_samples, result.steps, result.step) == (40, 5, 0.1)
    counts = {name: value for name, value in result.metrics.items() if name != "loss"}
    assert counts == {f"samples_of.{label}": (FOUR["y"] == label).sum() for label in range(4)}


def test_buffers_travel_and_frozen_parameters_stay(prepared: Any) -> None:
    deep = prepared("Deep")
    assert [array.shape for array in deep.parameters()] == [
        (8, 5),
        (8,),
        (8,),
        (8,),
        (4, 8),
        (4,),
        (8,),
        (8,),
    ]
    before = deep.parameters()
    deep.train(epochs=2)
    after = deep.parameters()
    assert not np.array_equal(before[-1], after[-1])  # the running variance
    other = prepared("Deep", seed=3)
    other.load(after)
    assert other.evaluate() == deep.evaluate()
    frozen = prepared("frozen")
    assert [array.shape for array in frozen.parameters()] == [(4, 8), (4,)]
    held = frozen._net[0].weight.detach().clone()
    frozen.train(epochs=2)
    assert bool((frozen._net[0].weight == held).all())


def test_evaluation_is_apart_from_training(prepared: Any) -> None:
    deep = prepared("Deep")
    before = deep.parameters()
    assert deep._net.training
    assert deep.evaluate() == deep.evaluate()  # no dropout
    assert deep.objective() == deep.objective()
    deep.gradient(batch=8)
    assert deep._net.training
    assert all(part.training for part in deep._net.modules())
    assert all(np.array_equal(a, b) for a, b in zip(deep.parameters(), before, strict=True))
    deep._net[1].eval()  # a part that its author keeps in evaluation mode
    deep.evaluate()
    assert [part.training for part in deep._net] == [True, False, True, True, True]


def test_a_seed_gives_the_same_training(prepared: Any) -> None:
    def trained(seed: int) -> bytes:
        learner = prepared("Deep", seed=seed)
        learner.train(epochs=2)
        return b"".join(array.tobytes() for array in learner.parameters())

    assert trained(1) == trained(1) != trained(2)
    first = prepared("Deep", seed=1).parameters()[0]
    assert np.array_equal(first, prepared("Deep", seed=2).parameters()[0])


def test_a_regression(prepared: Any) -> None:
    data = {"x": X, "y": X @ np.arange(5.0)}
    learner = prepared("regression", data, loss="mse", test=0.25)
    assert learner.train(epochs=300).num_samples == 30
    assert learner.evaluate() == {"loss": pytest.approx(0, abs=1e-3)}


@pytest.mark.parametrize(
    ("name", "said"),
    [("nothing", "no parameter to train"), ("no_module", "made int, no torch.nn.Module"),
     ("missing", "cannot be loaded")],
)  # fmt: skip
def test_a_module_that_is_none(prepared: Any, name: str, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        prepared(name)


@pytest.mark.parametrize("where", ["", "/no/such/file.py:Net", "no_such_package:Net", "json:Net"])
def test_a_module_that_is_not_there(torch: Any, where: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        TorchModule(module=where).prepare(FOUR, np.random.default_rng(0))
    assert caught.value.field == "module"


def test_targets_that_do_not_fit(prepared: Any) -> None:
    with pytest.raises(InvalidMessage, match="class 3, and `classes` is 2"):
        prepared("linear", classes=2)
    with pytest.raises(InvalidMessage, match="class 9"):
        prepared("linear", {**FOUR, "x_test": X[:1], "y_test": [9]})
    assert set(prepared("linear", {**FOUR, "x_test": X[:1], "y_test": [1]}).evaluate()) == {
        "loss",
        "accuracy",
    }
