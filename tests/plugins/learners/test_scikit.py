"""scikit-learn's models as learners."""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fedd.api import InvalidMessage, InvalidParameter, PluginFailed
from fedd.worker.abilities import abilities
from fedd_learners import SklearnModel

pytest.importorskip("sklearn")

RNG = np.random.default_rng(5)
X = RNG.normal(size=(60, 4))
WEIGHTS = np.array([1.0, -2.0, 0.5, 0.0])
DATA: dict[str, Any] = {
    "sgd-classifier": {"x": X, "y": (X @ WEIGHTS > 0).astype(int)},
    "logistic-regression": {"x": X, "y": (X @ WEIGHTS > 0).astype(int)},
    "mlp-classifier": {"x": X, "y": (X @ WEIGHTS > 0).astype(int) + (X[:, 3] > 0.5)},
    "sgd-regressor": {"x": X, "y": X @ WEIGHTS + 3},
}
SHAPES = {
    "sgd-classifier": [(1, 4), (1,)],
    "logistic-regression": [(1, 4), (1,)],
    "mlp-classifier": [(4, 8), (8,), (8, 3), (3,)],
    "sgd-regressor": [(4,), (1,)],
}


def prepared(model: Any, data: Any = None, seed: int = 0, **options: Any) -> SklearnModel:
    learner = SklearnModel(model=model, rate=0.1, hidden="8", **options)
    learner.prepare(DATA[model] if data is None else data, np.random.default_rng(seed))
    return learner


@pytest.mark.parametrize("model", list(DATA))
def test_it_learns(model: str) -> None:
    learner = prepared(model)
    assert [array.shape for array in learner.parameters()] == SHAPES[model]
    if model != "mlp-classifier":
        assert not any(array.any() for array in learner.parameters())  # from zero, whatever the data
    before = learner.evaluate()["loss"]
    result = learner.train(epochs=40)
    steps = 40 if model == "logistic-regression" else 80  # an iteration takes all samples
    assert (result.num_samples, result.steps, result.step) == (60, steps, 0.0)
    told = learner.evaluate()
    assert told == {name: value for name, value in result.metrics.items() if "." not in name}
    classes = 0 if model == "sgd-regressor" else len(np.unique(DATA[model]["y"]))
    assert len(result.metrics) - len(told) == classes
    assert told["loss"] < before / 3
    assert told.get("accuracy", told.get("r2")) > 0.9


@pytest.mark.parametrize("model", list(DATA))
def test_a_loaded_model_is_the_one_it_goes_on_from(model: str) -> None:
    learner, other = prepared(model), prepared(model, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(learner.parameters(), other.parameters(), strict=True))
    learner.train(epochs=3)
    learned = learner.parameters()
    other.load(learned)
    assert other.evaluate() == learner.evaluate()
    before = [array.copy() for array in learned]
    other.train(steps=1)
    assert all(np.array_equal(a, b) for a, b in zip(learned, before, strict=True))
    change = max(np.abs(a - b).max() for a, b in zip(other.parameters(), learned, strict=True))
    assert 0 < change < 1  # one step away, and not from where it was before


def test_a_warm_start_goes_on_where_one_long_fit_would_be() -> None:
    """Thirty trainings of one iteration each, every one from where the last one ended."""
    learner, long = (prepared("logistic-regression", l2=0.1) for _ in range(2))
    objectives = []
    for _ in range(30):
        loss = learner.train(epochs=1).metrics["loss"]
        objectives.append(loss + 0.05 * float(np.square(learner.parameters()[0]).sum()))
    assert all(later <= before + 1e-12 for before, later in itertools.pairwise(objectives))
    long.train(steps=200)
    for ours, theirs in zip(learner.parameters(), long.parameters(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_l2_means_the_same_for_both_ways_to_fit_a_linear_model() -> None:
    """The gradient of the mean log loss + l2/2 |w|^2 is zero where L-BFGS ends."""
    learner = prepared("logistic-regression", l2=0.1)
    learner.train(steps=500)
    (w,), b = learner.parameters()
    data = DATA["logistic-regression"]
    residual = 1 / (1 + np.exp(-(data["x"] @ w + b))) - data["y"]
    np.testing.assert_allclose(data["x"].T @ residual / 60 + 0.1 * w, 0, atol=1e-4)
    free = prepared("logistic-regression", l2=0.0)
    free.train(steps=20)
    assert np.abs(free.parameters()[0]).max() > 5 * np.abs(w).max()


@pytest.mark.parametrize("model", ["sgd-classifier", "logistic-regression"])
def test_a_device_that_has_not_seen_all_classes(model: str) -> None:
    learner = prepared(model, {"x": X, "y": np.full(60, 7)}, classes=10)
    learner.train(epochs=1)
    assert learner.parameters()[0].shape == (10, 4)
    with pytest.raises(InvalidMessage, match="class 7, and `classes` is 3"):
        prepared(model, {"x": X, "y": np.full(60, 7)}, classes=3)


def test_test_samples() -> None:
    data = {**DATA["sgd-classifier"], "x_test": X[:5], "y_test": DATA["sgd-classifier"]["y"][:5]}
    learner = prepared("sgd-classifier", data)
    assert learner.train(epochs=9).metrics != learner.evaluate()
    assert prepared("sgd-classifier", test=0.5).train(epochs=1).num_samples == 30
    with pytest.raises(InvalidMessage, match="class 5"):
        prepared("sgd-classifier", {**data, "y_test": [5] * 5})
    constant = prepared("sgd-regressor", {"x": X, "y": np.ones(60)})
    assert set(constant.evaluate()) == {"loss"}


def test_it_offers_no_more_than_it_can() -> None:
    assert abilities(SklearnModel) == frozenset()


@pytest.mark.parametrize(
    ("options", "field"),
    [({"batch": -1}, "batch"), ({"classes": -1}, "classes"), ({"seed": -1}, "seed"), ({"l2": -1.0}, "l2"),
     ({"rate": 0.0}, "rate"), ({"test": 1.0}, "test"), ({"hidden": "8,x"}, "hidden"),
     ({"hidden": "0"}, "hidden")],
)  # fmt: skip
def test_options_that_make_no_sense(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        SklearnModel(**options)
    assert caught.value.field == field


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(PluginFailed, match="scikit-learn is needed") as caught:
        prepared("sgd-classifier")
    assert "install" in caught.value.hint


def test_the_plugin_imports_neither_framework() -> None:
    program = "import sys, fedd_learners; print(sorted({'sklearn', 'torch', 'scipy'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
