"""The shipped table is the published one, and it is dealt out whole."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from sklearn.datasets import load_diabetes

from fedd.demo import table


def test_it_equals_the_copy_of_scikit_learn() -> None:
    shipped, known = table.load(), load_diabetes(scaled=False)
    assert list(shipped.columns) == [*known.feature_names, table.TARGET]
    assert len(shipped.rows) == 442
    for row, features, outcome in zip(shipped.rows, known.data, known.target, strict=True):
        assert [float(value) for value in row] == [*features, outcome]


@pytest.mark.parametrize("parts", range(3, 21))
def test_every_row_has_one_owner(parts: int) -> None:
    whole = table.load()
    shares = table.split(whole, parts)
    assert tuple(row for share in shares for row in share.rows) == whole.rows
    assert min(len(share.rows) for share in shares) >= 2


def test_five_owners_have_uneven_shares_and_one_too_few_rows() -> None:
    assert table.uneven_sizes(442, 5) == [201, 129, 72, 32, 8]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    whole = table.load()
    whole.write_csv(tmp_path / "out.csv")
    header, *lines = (tmp_path / "out.csv").read_text().splitlines()
    assert tuple(header.split(",")) == whole.columns
    assert tuple(tuple(Fraction(field) for field in line.split(",")) for line in lines) == whole.rows
