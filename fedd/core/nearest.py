"""The name that a mistyped one was meant to be."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of `known` that is most like `name`, empty when none is near."""
    import difflib  # here, because it stays in memory, and only a mistake needs it

    return next(iter(difflib.get_close_matches(name, list(known), n=1)), "")
