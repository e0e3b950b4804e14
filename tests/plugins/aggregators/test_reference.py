"""docs/reference/aggregators.md names every aggregator and option, with the default that it has."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from fedd_aggregators import fedd_register_aggregators

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "aggregators.md").read_text("utf-8")


def rows(name: str) -> list[str]:
    return re.findall(rf"^\| `{name}` \|.*$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("cls", fedd_register_aggregators(), ids=lambda cls: cls.name)
def test_the_page_has_its_options(cls: Any) -> None:
    row = rows(cls.name)[0].replace("as `fedadam`", rows("fedadam")[0])
    for field in dataclasses.fields(cls):
        if field.name != "max_norm":
            assert f"`{field.name}={field.default:g}`" in row, field.name
    has_max_norm = any(field.name == "max_norm" for field in dataclasses.fields(cls))
    assert has_max_norm == (not cls.mean), "the page says that the robust ones have max_norm"


@pytest.mark.parametrize("cls", fedd_register_aggregators(), ids=lambda cls: cls.name)
def test_its_docstring_says_where_it_is_from(cls: Any) -> None:
    assert "Source:" in cls.__doc__
    assert all(field.metadata.get("help") for field in dataclasses.fields(cls))
