"""The table that the demo solves: 442 diabetes patients, ten measurements, one outcome each.

Source: B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, "Least angle regression", Annals of
Statistics 32 (2004) 407-499, the table "diabetes" in its original units. Columns: age (years), sex
(1 or 2), bmi (kg/m^2), bp (mean arterial pressure, mmHg), six serum measurements s1 to s6, and
progression (a measure of the disease one year later), which is to be predicted from the others.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from pathlib import Path

TARGET = "progression"
"""The column that the others predict; the last one of the file."""


@dataclass(frozen=True)
class Table:
    """Rows of exact decimal numbers, `rows[i][k]` in the column `columns[k]`."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Fraction, ...], ...]

    def pick(self, indices: Sequence[int]) -> Table:
        """The table of these rows only."""
        return Table(self.columns, tuple(self.rows[i] for i in indices))

    def write_csv(self, path: Path) -> None:
        """Write the rows with a header, each number as the decimal that it is."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.columns)
            writer.writerows([_decimal(value) for value in row] for row in self.rows)


def load() -> Table:
    """Read the shipped file."""
    text = resources.files("fedd.demo").joinpath("diabetes.csv").read_text("utf-8")
    header, *lines = csv.reader(text.splitlines())
    return Table(tuple(header), tuple(tuple(Fraction(field) for field in line) for line in lines))


def uneven_sizes(rows: int, parts: int) -> list[int]:
    """Split `rows` into `parts` shares that fall as squares do, from the largest to the smallest.

    Five parts of 442 rows hold 201, 129, 72, 32 and 8: the last has fewer rows than the model has
    coefficients. Every part has at least two rows.
    """
    weights = [(parts - i) ** 2 for i in range(parts)]
    sizes = [max(2, round(rows * weight / sum(weights))) for weight in weights]
    sizes[0] += rows - sum(sizes)
    return sizes


def split(table: Table, parts: int) -> list[Table]:
    """Deal the table's rows, in their order, to `parts` owners as `uneven_sizes` says."""
    shares, start = [], 0
    for size in uneven_sizes(len(table.rows), parts):
        shares.append(table.pick(range(start, start + size)))
        start += size
    return shares


def _decimal(value: Fraction) -> str:
    number = float(value)
    return str(int(number)) if number.is_integer() else repr(number)
