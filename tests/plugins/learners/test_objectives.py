"""Objectives: gradients against finite differences, minima against closed forms, training against both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedd.api import InvalidMessage, InvalidParameter
from fedd_learners import LeastSquares, Logistic, Mlp, NumpyMlp, NumpySoftmax, Ridge, Softmax

RNG = np.random.default_rng(7)
X = RNG.normal(size=(40, 5))
REGRESSION = {"A": X, "b": X @ np.arange(5.0) + RNG.normal(size=40)}
TWO = {"x": X, "y": (X[:, 0] + 0.3 * RNG.normal(size=40) > 0).astype(float)}
FOUR = {"x": X, "y": RNG.integers(0, 4, 40)}

LEARNERS = [
    (LeastSquares(), REGRESSION),
    (LeastSquares(intercept=True, l2=0.3), REGRESSION),
    (Ridge(), REGRESSION),
    (Logistic(), TWO),
    (Logistic(intercept=True, l2=0.0), {"x": X, "y": 2 * TWO["y"] - 1}),
    (Softmax(l2=0.2), FOUR),
    (Softmax(classes=6), FOUR),
    (Mlp(hidden="6", l2=0.1), FOUR),
    (Mlp(hidden="6,5", activation="tanh"), FOUR),
    (NumpySoftmax(), FOUR),
    (NumpyMlp(hidden="4"), FOUR),
]
IDS = [f"{learner.name}-{index}" for index, (learner, _) in enumerate(LEARNERS)]


def prepared(learner: Any, data: Any, seed: int = 0) -> Any:
    learner.prepare(data, np.random.default_rng(seed))
    return learner


@pytest.mark.parametrize(("learner", "data"), LEARNERS, ids=IDS)
def test_the_gradient_is_that_of_the_objective(learner: Any, data: Any) -> None:
    prepared(learner, data)
    single = learner.dtype is np.float32
    rng = np.random.default_rng(1)
    at = [array + rng.normal(size=array.shape).astype(array.dtype) / 2 for array in learner.parameters()]
    learner.load(at)
    gradient = learner.gradient()
    width = 1e-2 if single else 1e-5
    for index, array in enumerate(at):
        assert gradient[index].dtype == array.dtype == learner.dtype
        assert gradient[index].shape == array.shape
        for place in list(np.ndindex(array.shape))[:12]:
            values = []
            for sign in (1, -1):
                moved = [each.copy() for each in at]
                moved[index][place] += sign * width
                learner.load(moved)
                values.append(learner.objective())
            slope = (values[0] - values[1]) / (2 * width)
            assert gradient[index][place] == pytest.approx(slope, abs=3e-3 if single else 1e-8)


@pytest.mark.parametrize(("learner", "data"), LEARNERS, ids=IDS)
def test_parameters_are_copies_and_load_takes_copies(learner: Any, data: Any) -> None:
    prepared(learner, data)
    before = learner.parameters()
    learner.parameters()[0][...] = 9
    given = [array + 1 for array in before]
    learner.load(given)
    given[0][...] = 7
    assert all(np.array_equal(now, then + 1) for now, then in zip(learner.parameters(), before, strict=True))
    learner.train(steps=1)
    assert [(a.shape, a.dtype) for a in learner.parameters()] == [(a.shape, a.dtype) for a in before]


@pytest.mark.parametrize(("learner", "data"), LEARNERS, ids=IDS)
def test_training_adds_correction_and_proximal_term_to_every_gradient(learner: Any, data: Any) -> None:
    prepared(learner, data)
    learner.batch = 0
    rng = np.random.default_rng(2)
    start = [array + rng.normal(size=array.shape).astype(array.dtype) / 4 for array in learner.parameters()]
    correction = [rng.normal(size=array.shape).astype(array.dtype) for array in start]
    expected = [array.copy() for array in start]
    for _ in range(2):  # by hand, from the gradients that the first test has checked
        learner.load(expected)
        slopes = learner.gradient()
        expected = [
            w - 0.05 * (g + c + 0.7 * (w - w0))
            for w, g, c, w0 in zip(expected, slopes, correction, start, strict=True)
        ]
    learner.load(start)
    result = learner.train(steps=2, step=0.05, correction=correction, proximal=0.7)
    assert (result.num_samples, result.steps, result.step) == (40, 2, 0.05)
    for got, wanted in zip(learner.parameters(), expected, strict=True):
        np.testing.assert_allclose(
            got, wanted, rtol=1e-5 if learner.dtype is np.float32 else 1e-12, atol=1e-7
        )


def test_least_squares_ends_at_the_closed_form() -> None:
    learner = prepared(LeastSquares(), REGRESSION)
    learner.train(epochs=3000)
    solved = np.linalg.lstsq(X, REGRESSION["b"], rcond=None)[0]
    np.testing.assert_allclose(learner.parameters()[0], solved, atol=1e-9)
    residual = X @ solved - REGRESSION["b"]
    assert learner.objective() == pytest.approx(residual @ residual / 80)
    told = learner.evaluate()
    assert told["loss"] == pytest.approx(residual @ residual / 80)
    assert told["r2"] == pytest.approx(1 - residual.var() / REGRESSION["b"].var(), abs=0.01)


def test_ridge_ends_at_the_closed_form() -> None:
    learner = prepared(Ridge(l2=0.5), REGRESSION)
    learner.train(epochs=3000)
    solved = np.linalg.solve(X.T @ X / 40 + 0.5 * np.eye(5), X.T @ REGRESSION["b"] / 40)
    np.testing.assert_allclose(learner.parameters()[0], solved, atol=1e-9)


def test_logistic_ends_where_scikit_learn_does() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    learner = prepared(Logistic(l2=0.1, step=1.0, intercept=True), TWO)
    learner.train(epochs=4000)
    theirs = linear_model.LogisticRegression(C=1 / (0.1 * 40), tol=1e-12, max_iter=10_000).fit(X, TWO["y"])
    np.testing.assert_allclose(learner.parameters()[0], theirs.coef_[0], atol=1e-6)
    np.testing.assert_allclose(learner.parameters()[1], theirs.intercept_, atol=1e-6)
    assert learner.evaluate()["accuracy"] == pytest.approx(theirs.score(X, TWO["y"]))


def test_losses_of_great_margins_stay_finite() -> None:
    learner = prepared(Logistic(l2=0.0), TWO)
    learner.load([np.full(5, 1e6)])
    assert np.isfinite(learner.objective())
    assert np.isfinite(learner.gradient()[0]).all()
    learner = prepared(Softmax(), FOUR)
    learner.load([np.full((5, 4), 1e6) * np.arange(4), np.zeros(4)])
    assert np.isfinite(learner.objective())
    assert np.isfinite(learner.gradient()[0]).all()


def test_minibatches_go_through_all_samples_in_each_pass() -> None:
    seen: list[float] = []

    class Watched(LeastSquares):
        def _loss_and_gradient(self, samples: Any) -> Any:
            seen.extend(samples.y)
            return super()._loss_and_gradient(samples)

    learner = prepared(Watched(batch=16), REGRESSION)
    assert learner.train(epochs=2).steps == 6  # 16, 16 and 8 samples
    assert sorted(seen[:40]) == sorted(seen[40:]) == sorted(REGRESSION["b"])
    assert seen[:40] != seen[40:]
    learner.train(steps=1)
    learner.train(steps=2)  # goes on in the same pass
    assert sorted(seen[80:]) == sorted(REGRESSION["b"])


def test_a_seed_gives_the_same_training() -> None:
    runs = []
    for seed in (1, 1, 2):
        learner = prepared(NumpyMlp(), FOUR, seed)
        learner.train(epochs=3)
        runs.append(learner.parameters()[0].tobytes())
    assert runs[0] == runs[1] != runs[2]
    other = prepared(NumpyMlp(), FOUR, 3).parameters()[0]
    assert np.array_equal(
        other, prepared(NumpyMlp(), FOUR, 4).parameters()[0]
    )  # the first weights are shared
    assert not np.array_equal(other, prepared(NumpyMlp(seed=1), FOUR, 3).parameters()[0])


def test_a_random_gradient_has_the_exact_one_as_its_mean() -> None:
    learner = prepared(Softmax(), FOUR)
    exact = learner.gradient()[0]
    mean = np.mean([learner.gradient(batch=10)[0] for _ in range(3000)], axis=0)
    np.testing.assert_allclose(mean, exact, atol=0.01)
    assert np.array_equal(learner.gradient(batch=40)[0], exact)


def test_test_samples_are_for_evaluation_alone() -> None:
    data = {**FOUR, "x_test": X[:3], "y_test": FOUR["y"][:3]}
    learner = prepared(Softmax(step=1.0), data)
    loss = learner.evaluate()["loss"]
    assert loss == pytest.approx(np.log(4))
    assert learner.train(epochs=1).num_samples == 40
    held = prepared(Softmax(test=0.25), FOUR)
    assert held.train(epochs=1).num_samples == 30
    assert prepared(Softmax(test=0.001), FOUR).train(epochs=1).num_samples == 40
    assert prepared(Softmax(test=0.9), {"x": X[:2], "y": [0, 1]}).train(epochs=1).num_samples == 1


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Softmax(step=0.0), "step"), (lambda: Softmax(step=float("nan")), "step"),
        (lambda: Softmax(batch=-1), "batch"), (lambda: Softmax(l2=-1.0), "l2"),
        (lambda: Softmax(test=1.0), "test"), (lambda: Softmax(classes=1), "classes"),
        (lambda: Mlp(hidden="a"), "hidden"), (lambda: Mlp(hidden="0"), "hidden"),
        (lambda: Mlp(hidden=""), "hidden"), (lambda: Mlp(seed=-1), "seed"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(make: Any, field: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        make()
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("learner", "data", "said"),
    [
        (Logistic(), {"x": X, "y": FOUR["y"]}, "the targets are 0, 1, 2, 3"),
        (Softmax(), {"x": X, "y": FOUR["y"] + 0.5}, "target 1 is"),
        (Softmax(), {"x": X, "y": FOUR["y"] - 1}, "is -1"),
        (Softmax(classes=3), FOUR, "class 3, and `classes` is 3"),
        (Softmax(), {**FOUR, "x_test": X[:1], "y_test": [4]}, "class 4, and `classes` is 4"),
    ],
)
def test_targets_that_do_not_fit(learner: Any, data: Any, said: str) -> None:
    with pytest.raises(InvalidMessage, match=said) as caught:
        prepared(learner, data)
    assert caught.value.hint


def test_a_device_that_has_one_class_only() -> None:
    learner = prepared(Logistic(intercept=True, step=1.0), {"x": X, "y": np.zeros(40)})
    learner.train(epochs=50)
    assert learner.evaluate()["accuracy"] == 1.0
    skewed = prepared(Softmax(classes=10), {"x": X, "y": np.full(40, 3)})
    assert skewed.parameters()[0].shape == (5, 10)
    assert "r2" not in prepared(LeastSquares(), {"x": X, "y": np.ones(40)}).evaluate()


@pytest.mark.parametrize(
    ("learner", "data", "held"),
    [
        (Ridge(l2=0.3, intercept=True), REGRESSION, [0]),
        (Logistic(l2=0.3, intercept=True), TWO, [0]),
        (Softmax(l2=0.3), FOUR, [0]),
        (Mlp(l2=0.3, hidden="4"), FOUR, [0, 2]),
    ],
)
def test_the_penalty_is_on_weights_and_on_no_constant(learner: Any, data: Any, held: list[int]) -> None:
    prepared(learner, data)
    model = [np.full_like(array, 0.5) for array in learner.parameters()]
    learner.load(model)
    penalty = 0.3 / 2 * sum(float(np.sum(model[index] ** 2)) for index in held)
    with_penalty = learner.objective()
    learner.l2 = 0.0
    assert with_penalty - learner.objective() == pytest.approx(penalty)


def test_a_trainings_loss_is_the_mean_over_its_last_pass() -> None:
    learner, twin = prepared(LeastSquares(l2=0.1), REGRESSION), prepared(LeastSquares(l2=0.1), REGRESSION)
    twin.train(steps=2)
    assert learner.train(steps=3).metrics["loss"] == pytest.approx(twin.objective())
    seen: list[float] = []

    class Watched(LeastSquares):
        def _penalised_gradient(self, samples: Any) -> Any:
            loss, gradient = super()._penalised_gradient(samples)
            seen.append(loss)
            return loss, gradient

    watched = prepared(Watched(batch=10), REGRESSION)
    assert watched.train(epochs=2).metrics["loss"] == pytest.approx(np.mean(seen[4:]))
    assert watched.train(steps=2).metrics["loss"] == pytest.approx(np.mean(seen[8:]))
