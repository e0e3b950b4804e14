"""From agreed sums to coefficients: the normal equations of standardised columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedd.api import InvalidMessage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedd.api.types import FloatArray

COLLINEAR = 1e-10
"""Smallest eigenvalue of the correlation matrix that still leaves six digits of the coefficients."""


@dataclass(frozen=True)
class Standard:
    """The agreed centre and scale of every column (target last), the same bits on all nodes."""

    center: FloatArray
    scale: FloatArray
    labels: tuple[str, ...]
    tolerance: float

    def check(self) -> None:
        """Raise InvalidMessage when a column is constant: what its scale holds is then rounding only."""
        noise = max(1e-13, self.tolerance) * 10 * np.abs(self.center)
        flat = [label for label, low in zip(self.labels, self.scale <= noise, strict=True) if low]
        if flat:
            raise InvalidMessage(
                f"constant over all members: {', '.join(flat)}", hint="leave constant columns out"
            )


@dataclass(frozen=True)
class Moments:
    """Sums over rows z of standardised columns: how many, sum z (k), sum z z' (k, k)."""

    count: float
    sums: FloatArray
    products: FloatArray

    @classmethod
    def of(cls, rows: NDArray[np.float64]) -> Moments:
        """The moments of these rows (n, k)."""
        return cls(float(rows.shape[0]), rows.sum(axis=0), rows.T @ rows)

    def packed(self) -> FloatArray:
        """All numbers in one vector, of the symmetric products the upper triangle."""
        upper = self.products[np.triu_indices(len(self.sums))]
        return np.concatenate(([self.count], self.sums, upper))

    @classmethod
    def unpacked(cls, vector: FloatArray, columns: int) -> Moments:
        """The inverse of `packed` for `columns` columns."""
        products = np.zeros((columns, columns))
        products[np.triu_indices(columns)] = vector[1 + columns :]
        products += np.triu(products, 1).T
        return cls(float(vector[0]), vector[1 : 1 + columns], products)


@dataclass(frozen=True)
class Fit:
    """Least squares with intercept, in the units of the columns."""

    coefficients: FloatArray
    intercept: float
    r2: float
    rows: int


def fit(moments: Moments, standard: Standard) -> Fit:
    """Solve for the rows behind `moments`, which `standard` has standardised.

    The columns' means over these rows, in standardised units, are sums / count: zero if the centre was
    their mean, and subtracting them makes the result right if it was not.

    Raises InvalidMessage for too few rows, a constant target or collinear columns, naming them.
    """
    rows = round(moments.count)
    explaining = len(moments.sums) - 1
    if rows < explaining + 1:
        raise InvalidMessage(
            f"{rows} rows in all are too few for {explaining} coefficients and an intercept",
            hint=f"at least {explaining + 1} are needed",
        )
    means = moments.sums / moments.count
    covariance = moments.products / moments.count - np.outer(means, means)
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    flat = [label for label, low in zip(standard.labels, spread <= 1e-6, strict=True) if low]
    if flat:
        raise InvalidMessage(
            f"constant over the members that are left: {', '.join(flat)}", hint="leave constant columns out"
        )
    correlation = covariance / np.outer(spread, spread)
    _refuse_collinear(correlation[:-1, :-1], standard.labels)
    slopes = np.linalg.solve(correlation[:-1, :-1], correlation[:-1, -1])
    r2 = float(slopes @ correlation[:-1, -1])
    units = standard.scale * spread
    coefficients = slopes * units[-1] / units[:-1]
    center = standard.center + standard.scale * means
    intercept = float(center[-1] - coefficients @ center[:-1])
    return Fit(coefficients, intercept, min(r2, 1.0), rows)


def _refuse_collinear(correlation: FloatArray, labels: tuple[str, ...]) -> None:
    values, vectors = np.linalg.eigh(correlation)
    if values[0] > COLLINEAR:
        return
    involved = [label for label, part in zip(labels, np.abs(vectors[:, 0]), strict=False) if part > 0.05]
    raise InvalidMessage(
        f"collinear columns, of which one follows from the others: {', '.join(involved)}",
        hint="leave one of them out",
    )
