"""Least squares in rational arithmetic: what the demo's answers are measured against.

The normal equations of the shipped table are far too ill-conditioned for floating point (5e7), and
exactly right in fractions, which need no library. So the reference shares neither code nor method
with the algorithm that it judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from fedd.demo.table import Table


@dataclass(frozen=True)
class Model:
    """A linear model: the outcome is about `intercept + sum(slopes[k] * column k)`."""

    intercept: Fraction
    slopes: tuple[Fraction, ...]

    def error_of(self, coefficients: dict[str, float], columns: tuple[str, ...]) -> float:
        """The largest deviation of `coefficients` from this model, over the largest coefficient here."""
        exact = dict(zip(("intercept", *columns), (self.intercept, *self.slopes), strict=True))
        largest = max(abs(value) for value in exact.values())
        return max(
            float(abs(Fraction(coefficients[name]) - value) / largest) for name, value in exact.items()
        )

    def r2(self, table: Table) -> float:
        """The share of the outcome's variance in `table` that the model explains; may be negative."""
        outcomes = [row[-1] for row in table.rows]
        mean = sum(outcomes, Fraction(0)) / len(outcomes)
        total = sum((y - mean) ** 2 for y in outcomes)
        # Exact slopes have thousands of digits; a multiplication by each row of them adds nothing to
        # a figure that is shown with three.
        intercept, slopes = float(self.intercept), [float(slope) for slope in self.slopes]
        left = 0.0
        for row in table.rows:
            predicted = intercept + sum(s * float(x) for s, x in zip(slopes, row[:-1], strict=True))
            left += (float(row[-1]) - predicted) ** 2
        return 1.0 - left / float(total)


def fit(table: Table, ridge: Fraction = Fraction(0)) -> Model:
    """Fit the last column on the others and an intercept, exactly.

    With `ridge`, `ridge * rows * variance_k * slope_k^2` is added to the squared error for every
    column k, so that the penalty does not depend on units. Columns without variance then get the
    slope zero. Raises ZeroDivisionError when the columns are linearly dependent and `ridge` is zero.
    """
    count, width = len(table.rows), len(table.columns) - 1
    means = [sum(column, Fraction(0)) / count for column in zip(*table.rows, strict=True)]
    centred = [[x - m for x, m in zip(row, means, strict=True)] for row in table.rows]
    products = [
        [sum((row[i] * row[j] for row in centred), Fraction(0)) for j in range(width + 1)]
        for i in range(width)
    ]
    for i in range(width):
        products[i][i] = products[i][i] * (1 + ridge) or Fraction(1 if ridge else 0)
    slopes = _solve(products)
    intercept = means[-1] - sum((s * m for s, m in zip(slopes, means[:-1], strict=True)), Fraction(0))
    return Model(intercept, tuple(slopes))


def _solve(augmented: list[list[Fraction]]) -> list[Fraction]:
    """Solve a symmetric positive definite system given as [matrix | right-hand side] by elimination."""
    rows = [list(row) for row in augmented]
    size = len(rows)
    for pivot in range(size):
        for below in range(pivot + 1, size):
            factor = rows[below][pivot] / rows[pivot][pivot]
            if factor:
                rows[below] = [b - factor * p for b, p in zip(rows[below], rows[pivot], strict=True)]
    solution = [Fraction(0)] * size
    for i in reversed(range(size)):
        known = sum((rows[i][j] * solution[j] for j in range(i + 1, size)), Fraction(0))
        solution[i] = (rows[i][size] - known) / rows[i][i]
    return solution
