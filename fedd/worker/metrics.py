"""What an algorithm reports: numbers, texts, and a number for each of several keys, such as members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from fedd.api.errors import InvalidParameter

Metric: TypeAlias = float | int | str | bool | Mapping[str, float]

MAX_METRICS = 64
"""Names that one node may report: a live table shows about ten."""
MAX_METRIC_BYTES = 256
"""A metric's name or text: a word, not a log."""
MAX_METRIC_KEYS = 256
"""Of one metric that has a number for each member: a run has no more of them."""


def checked(name: str, value: Any) -> Metric:
    """`value` as it travels, NumPy's numbers as Python's.

    Raises InvalidParameter when it is no metric, too long or has too many keys.
    """
    if len(name) > MAX_METRIC_BYTES:
        raise _too_long(name)
    if isinstance(value, Mapping):
        if len(value) > MAX_METRIC_KEYS:
            raise InvalidParameter(f"the metric {name} has more than {MAX_METRIC_KEYS} keys", field=name)
        return {_key(name, key): _number(f"{name}, {key:.40}", each) for key, each in value.items()}
    if isinstance(value, str):
        if len(value) > MAX_METRIC_BYTES:
            raise _too_long(name)
        return value
    return _number(name, value)


def _key(name: str, key: object) -> str:
    if not isinstance(key, str) or len(key) > MAX_METRIC_BYTES:
        raise _too_long(name)
    return key


def _number(name: str, value: Any) -> float | int | bool:
    item = getattr(value, "item", None)
    number = item() if callable(item) else value
    if not isinstance(number, bool | int | float):
        raise InvalidParameter(f"the metric {name} is no number, text or bool", field=name)
    return float(number) if isinstance(number, float) else number


def _too_long(name: str) -> InvalidParameter:
    return InvalidParameter(f"the metric {name:.40} is longer than {MAX_METRIC_BYTES}", field="metrics")
