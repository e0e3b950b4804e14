"""The table of topologies says what fedctl topology says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedd.core.topology import NAMES
from fedd.worker.topology import describe_topology

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "topologies.md").read_text("utf-8")
ROWS = [
    [cell.strip(" `") for cell in line.split("|")[1:-1]]
    for line in PAGE.splitlines()
    if line.startswith("| `") and line.count("|") == 8
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_is_right(row: list[str]) -> None:
    few, many = (describe_topology(row[0], nodes, 0, 1e-6) for nodes in (16, 64))

    def gap(found: dict[str, Any]) -> str:
        return f"{found['spectral_gap']:.4g}"

    expected = [
        few["degree_max"],
        gap(few),
        few["rounds"],
        few["chebyshev_rounds"] or "-",
        gap(many),
        many["rounds"],
    ]
    assert row[1:] == [str(cell) for cell in expected]


def test_every_name_is_on_the_page() -> None:
    assert len(ROWS) == 12
    for name in NAMES:
        assert f"`{name}" in PAGE or f"## {name}" in PAGE
