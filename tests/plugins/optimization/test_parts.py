"""Packing, mixing, books, the start, metrics, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from plugins.optimization.problems import LeastSquares, Objective, Quadratic, run, values

import fedd_optimization
from fedd.api import FeddError, InvalidMessage, InvalidParameter, TrainResult
from fedd.testing import Federation, Kill, NodeResult
from fedd_optimization import (
    ADPSGD,
    DGD,
    DSGD,
    EXTRA,
    KGT,
    ChocoSGD,
    ExactDiffusion,
    GradientTracking,
    GTAdam,
    PushPull,
    mixing,
    outlook,
)
from fedd_optimization.mixing import Books, Heard, combine
from fedd_optimization.vectors import Layout

ALL = [DGD, DSGD, GradientTracking, GTAdam, KGT, EXTRA, ExactDiffusion, PushPull, ChocoSGD, ADPSGD]
BOTH_WAYS = [GradientTracking, GTAdam, KGT, EXTRA, ExactDiffusion, ChocoSGD, ADPSGD]


class Shaped(Objective):
    """The gradient pulls a model of several arrays to 3."""

    name = "shaped"

    def __init__(self, *arrays: NDArray[Any]) -> None:
        super().__init__(0)
        self.model = list(arrays)

    def parameters(self) -> list[NDArray[Any]]:
        return [array.copy() for array in self.model]

    def load(self, parameters: Sequence[NDArray[Any]]) -> None:
        self.model = [array.copy() for array in parameters]

    def gradient(self, *, batch: int = 0) -> list[NDArray[Any]]:
        return [(array - 3).astype(array.dtype) for array in self.model]

    def objective(self) -> float:
        return 0.0

    def evaluate(self) -> dict[str, float]:
        return {}


class OnlyTrains:
    """The least that a learner has."""

    name = "only-trains"

    def prepare(self, data: Any, rng: np.random.Generator) -> None: ...

    def parameters(self) -> list[NDArray[Any]]:
        return [np.zeros(2)]

    def load(self, parameters: Sequence[NDArray[Any]]) -> None: ...

    def train(self, *, epochs: int = 0, steps: int = 0) -> TrainResult:
        return TrainResult(1, 1)

    def evaluate(self) -> dict[str, float]:
        return {}


def failures(results: Sequence[NodeResult]) -> list[FeddError | None]:
    return [result.error for result in results]


def test_all_methods_are_registered_with_a_contract() -> None:
    assert fedd_optimization.fedd_register_algorithms() == ALL
    names = [
        "dgd",
        "dsgd",
        "gradient-tracking",
        "gtadam",
        "k-gt",
        "extra",
        "exact-diffusion",
        "push-pull",
        "choco-sgd",
        "ad-psgd",
    ]
    assert [each.name for each in ALL] == names
    assert {each.name for each in ALL if each.contract == "restart"} == {"extra", "exact-diffusion"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        *((lambda each=each: each(iterations=0), "iterations") for each in ALL),
        (lambda: DGD(step=0.0), "step"),
        (lambda: DGD(step=float("inf")), "step"),
        (lambda: DGD(history=-1), "history"),
        *((lambda each=each: each(batch=-1), "batch") for each in (DGD, DSGD, GTAdam, PushPull)),
        *((lambda each=each: each(batch=-1), "batch") for each in (ChocoSGD, ADPSGD)),
        (lambda: DSGD(local_steps=0), "local_steps"),
        (lambda: KGT(local_steps=0), "local_steps"),
        (lambda: KGT(mixing_step=0.0), "mixing_step"),
        (lambda: GTAdam(beta1=1.0), "beta1"),
        (lambda: GTAdam(beta2=-0.1), "beta2"),
        (lambda: GTAdam(epsilon=0.0), "epsilon"),
        (lambda: GTAdam(cap=0.0), "cap"),
        (lambda: ChocoSGD(gamma=1.1), "gamma"),
        (lambda: ChocoSGD(codec="int7"), "int7"),
    ],
)
def test_bad_parameters_are_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_packing_keeps_shapes_and_types() -> None:
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, dtype=np.float16)]
    layout = Layout(arrays)
    assert (layout.size, layout.dtype) == (7, np.float32)
    back = layout.unpack(layout.pack(arrays))
    assert [(each.shape, each.dtype) for each in back] == [(each.shape, each.dtype) for each in arrays]
    assert all((one == other).all() for one, other in zip(arrays, back, strict=True))
    assert Layout([np.zeros(1, np.float32), np.zeros(1)]).dtype == np.float64
    with pytest.raises(InvalidMessage, match="shapes"):
        layout.pack([arrays[0].T, arrays[1]])
    with pytest.raises(InvalidMessage, match="shapes"):
        layout.pack(arrays[:1])
    with pytest.raises(InvalidParameter, match="int64"):
        Layout([np.arange(3)])


def test_both_ends_book_the_same_to_the_last_bit_and_the_dead_are_forgotten() -> None:
    rng = np.random.default_rng(1)
    mine, theirs, other = rng.normal(size=(3, 5))
    here, there = Books(5, np.dtype(np.float64)), Books(5, np.dtype(np.float64))
    for _ in range(3):
        here.transfer(mine, {"b": Heard(1 / 3, theirs), "c": Heard(0.1, other)}, share=0.5)
        there.transfer(theirs, {"a": Heard(1 / 3, mine)}, share=0.5)
    assert here.peers == ("b", "c")
    here.delete(["c", "nobody"])
    assert (here.total == -there.total).all()
    here.delete(["b"])
    assert (here.total == 0).all()
    assert (combine(mine, {"b": Heard(0.25, theirs)}) == mine + 0.25 * (theirs - mine)).all()


def test_a_model_of_several_arrays_comes_back_as_such() -> None:
    learners = [Shaped(np.zeros((2, 2), np.float32), np.zeros(3, np.float32)) for _ in range(3)]
    results = run(DGD(iterations=60, step=0.5), learners)
    for result in results:
        assert isinstance(result.value, list)
        assert [(each.shape, each.dtype) for each in result.value] == [
            ((2, 2), np.float32),
            ((3,), np.float32),
        ]
        assert all(np.abs(each - 3).max() < 1e-6 for each in result.value)


@pytest.mark.parametrize("start", ["zero", "model", "first"])
def test_the_start_is_what_was_asked_for(start: Any) -> None:
    problem = Quadratic(4)
    for index, each in enumerate(problem.learners):
        each.x = np.full(problem.size, float(index + 1))
    run(DGD(iterations=1, start=start), problem.learners, topology="line")
    firsts = [each.seen[0][0] for each in problem.learners]
    assert firsts == {"zero": [0.0] * 4, "model": [1.0, 2.0, 3.0, 4.0], "first": [1.0] * 4}[start]


def test_every_iterate_is_reported() -> None:
    problem = Quadratic(4)
    (last, *_) = run(GradientTracking(iterations=30, step=0.1), problem.learners)
    assert last.metrics["iteration"] == 30
    assert last.metrics["bytes"] == 30 * 2 * 2 * problem.size * 8  # neighbours, vectors, elements, bytes
    assert last.metrics["planned_bytes"] == last.metrics["bytes"]
    assert last.metrics["mixing_rounds"] == pytest.approx(np.log(1e-6) / np.log(1 / 3), abs=1)
    seen = [each.seen[-32:] for each in problem.learners]  # before them gradients to find the curvature
    assert last.metrics["objective"] == problem.learners[0].value(seen[0][30])
    assert last.metrics["gradient_norm"] == np.linalg.norm(problem.learners[0].slope(seen[0][30]))
    far = max(float(np.linalg.norm(seen[0][29] - seen[peer][29])) for peer in (1, 3))
    assert last.metrics["disagreement"] == pytest.approx(far, rel=1e-12)
    assert last.metrics["loss"] == last.metrics["objective"]
    silent = run(GradientTracking(iterations=30, history=0), Quadratic(4).learners)
    assert set(silent[0].metrics) == {"loss"}


def test_long_vectors_travel_in_pieces_and_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(GradientTracking(iterations=20), Quadratic(4).learners)
    monkeypatch.setattr(mixing, "CHUNK_BYTES", 16)
    pieces = run(GradientTracking(iterations=20), Quadratic(4).learners)
    assert (values(pieces) == values(whole)).all()
    assert pieces[0].rounds - whole[0].rounds == 20 * 2  # six elements in pieces of two


def test_a_death_between_the_pieces_of_a_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "CHUNK_BYTES", 16)
    problem = Quadratic(5)
    algorithm = GradientTracking(iterations=200, step=0.15, history=0)
    results = run(algorithm, problem.learners, topology="complete", kills=[Kill(1, 13, "one")])
    assert np.abs(values(results) - problem.optimum([0, 2, 3, 4])).max() < 1e-9


def test_a_step_that_is_too_large_is_told() -> None:
    results = Federation(3).run(DGD(iterations=3000, step=50.0, history=0), Quadratic(3).learners)
    assert any("diverged in iteration" in str(error) for error in failures(results))


def test_models_of_two_sizes_are_told_with_both() -> None:
    learners = [Quadratic(1, size=3).learners[0], Quadratic(1, size=4).learners[0]]
    results = Federation(2, quorum=1).run(DGD(iterations=2), learners)
    reasons = [drop.reason for result in results for drop in result.dropped]
    assert any("4 values of float64" in reason for reason in reasons)


def test_what_a_learner_lacks_is_told_before_the_first_round() -> None:
    for algorithm, lack in ((DGD(), "gradient"), (KGT(), "correction"), (KGT(history=0), "step")):
        results = Federation(2).run(algorithm, [OnlyTrains(), OnlyTrains()])
        assert all(isinstance(error, InvalidParameter) for error in failures(results))
        assert lack in str(results[0].error)
        assert results[0].rounds == 0
    (plain, _) = Federation(2).run(DGD(), [1.0, 2.0])
    assert "no learner" in str(plain.error)


@pytest.mark.parametrize("algorithm", BOTH_WAYS)
def test_methods_that_need_both_ways_say_so_on_a_directed_graph(algorithm: Any) -> None:
    results = Federation(4, topology="directed-ring").run(algorithm(), Quadratic(4).learners)
    assert all(isinstance(error, InvalidParameter) for error in failures(results))
    assert "push-pull" in str(results[0].error)


@pytest.mark.parametrize("topology", ["directed-ring", "directed-exponential", "ring"])
def test_push_pull_reaches_the_optimum_on_directed_graphs(topology: str) -> None:
    problem = Quadratic(4)
    algorithm = PushPull(iterations=360, step=0.08, history=0)
    reached = values(run(algorithm, problem.learners, topology))
    assert np.abs(reached - problem.optimum()).max() < 1e-9


def test_push_pull_bears_graphs_that_take_turns_and_a_death_on_them() -> None:
    problem = Quadratic(8)
    algorithm = PushPull(iterations=450, step=0.08, history=0)
    results = run(algorithm, problem.learners, "one-peer-exponential", kills=[Kill(3, 50, "one")])
    assert np.abs(values(results) - problem.optimum([0, 1, 2, 4, 5, 6, 7])).max() < 1e-9


def test_push_pull_ends_at_the_survivors_optimum() -> None:
    problem = Quadratic(6)
    algorithm = PushPull(iterations=400, step=0.08, history=0)
    results = run(algorithm, problem.learners, "directed-exponential", kills=[Kill(2, 30, "one")])
    assert np.abs(values(results) - problem.optimum([0, 1, 3, 4, 5])).max() < 1e-9


def test_choco_without_compression_is_dsgd_to_rounding() -> None:
    plain = values(run(DSGD(iterations=50, batch=0, history=0), Quadratic(5).learners))
    choco = ChocoSGD(iterations=50, batch=0, codec="none", gamma=1.0, history=0)
    assert np.abs(values(run(choco, Quadratic(5).learners)) - plain).max() < 1e-12


@pytest.mark.parametrize(
    ("codec", "gamma", "less", "off"),
    [("int8", 0.9, 6.0, 0.02), ("float16", 0.9, 3.5, 0.02), ("top-k:0.25", 0.3, 2.6, 0.06)],
)
def test_choco_ends_near_the_optimum_with_fewer_bytes(
    codec: str, gamma: float, less: float, off: float
) -> None:
    problem = Quadratic(4, size=64, unlike=0.1)
    for each in problem.learners:
        each.hessian = np.eye(64) + 0.1 * each.hessian / np.abs(each.hessian).max()
    algorithm = ChocoSGD(iterations=150, step=0.05, batch=0, codec=codec, gamma=gamma)
    results = run(algorithm, problem.learners, "complete")
    plain_bytes = 150 * 3 * 64 * 8
    assert plain_bytes / float(results[0].metrics["bytes"]) > less
    assert np.abs(values(results).mean(axis=0) - problem.optimum()).max() < off


def test_choco_goes_on_without_the_dead() -> None:
    problem = Quadratic(5, unlike=0.3)
    algorithm = ChocoSGD(iterations=400, step=0.02, batch=0, history=0)
    results = run(algorithm, problem.learners, "complete", kills=[Kill(1, 60, "one")])
    assert np.abs(values(results).mean(axis=0) - problem.optimum([0, 2, 3, 4])).max() < 0.02


@pytest.mark.parametrize(
    ("make", "bound"),
    [
        (lambda step: DGD(iterations=3, step=step), lambda lower, top: (1 + lower) / top),
        (lambda step: DGD(iterations=3, step=step, form="atc"), lambda lower, top: 2 / top),
        (lambda step: EXTRA(iterations=3, step=step), lambda lower, top: (1 + lower) / top),
        (lambda step: ExactDiffusion(iterations=3, step=step), lambda lower, top: 2 / top),
    ],
)
def test_a_step_beyond_the_known_bound_warns(
    make: Callable[[float], Any], bound: Callable[[float, float], float]
) -> None:
    problem = Quadratic(6)
    top = float(np.linalg.eigvalsh(problem.learners[0].hessian)[-1])
    expected = bound(-1 / 3, top)  # the smallest eigenvalue of a ring of six with thirds
    (small, *_) = run(make(0.98 * expected), problem.learners)
    assert small.metrics["spectral_gap"] == pytest.approx(1 / 3, abs=1e-9)
    assert small.metrics["curvature"] == pytest.approx(top, rel=1e-2)
    assert small.metrics["step_bound"] == pytest.approx(expected, rel=1e-2)
    assert "warning" not in small.metrics
    (large, *_) = run(make(1.05 * expected), Quadratic(6).learners)
    assert "beyond" in str(large.metrics["warning"])
    silent = run(make(0.1), [Shaped(np.zeros(2)) for _ in range(3)])
    assert silent[0].metrics["curvature"] == pytest.approx(1.0, rel=1e-6)


def test_a_flat_objective_has_no_bound() -> None:
    flat = [LeastSquares(np.zeros((1, 2)), np.zeros(1)) for _ in range(2)]
    (result, _) = run(EXTRA(iterations=2), flat)
    assert result.metrics["curvature"] == 0.0
    assert "step_bound" not in result.metrics


def test_large_and_disconnected_mixing_is_not_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    swap_only = run(DGD(iterations=1), Quadratic(2).learners, "edges:undirected\nnode-00,node-01,1.0")
    assert swap_only[0].metrics["spectral_gap"] == pytest.approx(0.0, abs=1e-12)  # they exchange for ever
    assert "mixing_rounds" not in swap_only[0].metrics
    monkeypatch.setattr(outlook, "LARGEST_SPECTRUM", 2)
    large = run(DGD(iterations=1), Quadratic(3).learners)
    assert "planned_bytes" in large[0].metrics
    assert "spectral_gap" not in large[0].metrics
