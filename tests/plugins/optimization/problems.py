"""Problems with known answers, and learners that remember every iterate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedd.api import TrainResult
from fedd.testing import Federation, Kill, NodeResult

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


class Objective:
    """A learner over one vector that is exact and remembers what it was loaded with."""

    name: ClassVar[str] = "objective"

    def __init__(self, size: int) -> None:
        self.x = np.zeros(size)
        self.seen: list[Vector] = []

    def prepare(self, data: Any, rng: np.random.Generator) -> None:
        raise AssertionError("prepared already")

    def parameters(self) -> list[NDArray[Any]]:
        return [self.x.copy()]

    def load(self, parameters: Sequence[NDArray[Any]]) -> None:
        self.x = parameters[0].copy()
        self.seen.append(self.x)

    def train(
        self,
        *,
        epochs: int = 0,
        steps: int = 0,
        step: float | None = None,
        correction: Sequence[NDArray[Any]] | None = None,
    ) -> TrainResult:
        added = np.zeros_like(self.x) if correction is None else correction[0]
        for _ in range(steps):
            self.x = self.x - (step or 0.0) * (self.slope(self.x) + added)
        return TrainResult(1, steps, step or 0.0)

    def gradient(self, *, batch: int = 0) -> list[NDArray[Any]]:
        return [self.slope(self.x)]

    def objective(self) -> float:
        return self.value(self.x)

    def evaluate(self) -> dict[str, float]:
        return {"loss": self.value(self.x)}

    def slope(self, x: Vector) -> Vector:
        raise NotImplementedError

    def value(self, x: Vector) -> float:
        raise NotImplementedError


class LeastSquares(Objective):
    """|A x - b|^2 / (2 m)."""

    name = "least-squares"

    def __init__(self, a: Matrix, b: Vector) -> None:
        super().__init__(a.shape[1])
        self.hessian: Matrix = a.T @ a / len(b)
        self.linear: Vector = a.T @ b / len(b)
        self.constant = float(b @ b) / (2 * len(b))

    def slope(self, x: Vector) -> Vector:
        return np.asarray(self.hessian @ x - self.linear)

    def value(self, x: Vector) -> float:
        return float(x @ self.hessian @ x / 2 - self.linear @ x) + self.constant


class Logistic(Objective):
    """Mean log loss plus regularization / 2 |w|^2, labels -1 and 1, no intercept of its own."""

    name = "logistic"

    def __init__(self, a: Matrix, y: Vector, regularization: float) -> None:
        super().__init__(a.shape[1])
        self.signed = a * y[:, None]
        self.regularization = regularization

    def slope(self, x: Vector) -> Vector:
        wrong = 1 / (1 + np.exp(self.signed @ x))
        return np.asarray(-self.signed.T @ wrong / len(wrong) + self.regularization * x)

    def value(self, x: Vector) -> float:
        return float(np.logaddexp(0, -self.signed @ x).mean() + self.regularization / 2 * x @ x)


@dataclass
class Quadratic:
    """Least squares over several nodes: unlike data, a known optimum for every set of nodes."""

    nodes: int
    size: int = 3
    seed: int = 5
    unlike: float = 1.0
    learners: list[LeastSquares] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.learners = []
        for _ in range(self.nodes):
            a = rng.normal(size=(20, self.size))
            truth = 1.0 + self.unlike * rng.normal(size=self.size)
            self.learners.append(LeastSquares(a, a @ truth + 0.1 * rng.normal(size=20)))

    def optimum(self, of: Sequence[int] | None = None) -> Vector:
        """The minimiser of the sum of these nodes' objectives (default: all)."""
        chosen = [self.learners[i] for i in (range(self.nodes) if of is None else of)]
        return np.asarray(
            np.linalg.solve(sum(each.hessian for each in chosen), sum(each.linear for each in chosen))
        )

    def blocks(self, of: Sequence[int] | None = None) -> tuple[Matrix, Vector]:
        """The block-diagonal Hessian (n d, n d) and the linear terms (n d) of these nodes."""
        chosen = [self.learners[i] for i in (range(self.nodes) if of is None else of)]
        d = self.size
        hessian = np.zeros((len(chosen) * d, len(chosen) * d))
        for i, each in enumerate(chosen):
            hessian[i * d : (i + 1) * d, i * d : (i + 1) * d] = each.hessian
        return hessian, np.concatenate([each.linear for each in chosen])


def ring_weights(nodes: int) -> Matrix:
    """Metropolis weights of a ring of three or more: a third each."""
    w = np.zeros((nodes, nodes))
    for i in range(nodes):
        w[i, [i, i - 1, (i + 1) % nodes]] = 1 / 3
    return w


def line_weights(nodes: int) -> Matrix:
    """Metropolis weights of a line: a ring that has lost one of its nodes."""
    w = np.zeros((nodes, nodes))
    for i in range(nodes - 1):
        w[i, i + 1] = w[i + 1, i] = 1 / 3
    return w + np.diag(1 - w.sum(axis=1))


def run(
    algorithm: Any,
    learners: Sequence[Any],
    topology: Any = "ring",
    kills: Sequence[Kill] = (),
    **options: Any,
) -> list[NodeResult]:
    """Run among simulated members; every node that was not killed must end well."""
    federation = Federation(len(learners), topology=topology, kills=kills, **options)
    results = federation.run(algorithm, list(learners))
    for result in results:
        assert result.killed or result.error is None, result.error
    return results


def values(results: Sequence[NodeResult]) -> Matrix:
    """The survivors' answers, a row each."""
    return np.array([result.value for result in results if not result.killed])
