"""Every error has a stable code, and says the hint after the detail."""

from __future__ import annotations

import inspect

import pytest

from fedd.api import errors
from fedd.api.errors import FeddError

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, FeddError)]


def test_codes_are_distinct() -> None:
    assert len(CLASSES) >= 14
    assert len({c.code for c in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_an_error_carries_detail_hint_and_field(cls: type[FeddError]) -> None:
    error = cls("no such run 'x'", hint="`fedctl runs` lists them", field="run_id")
    assert (error.detail, error.hint, error.field) == (
        "no such run 'x'",
        "`fedctl runs` lists them",
        "run_id",
    )
    assert str(error) == "no such run 'x' (`fedctl runs` lists them)"
    assert str(cls("no such run 'x'")) == "no such run 'x'"
