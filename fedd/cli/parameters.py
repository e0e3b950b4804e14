"""Parameters as people write them behind a command."""

from __future__ import annotations

from collections.abc import Sequence

from fedd.api.errors import InvalidParameter


def parse_parameters(words: Sequence[str]) -> dict[str, str]:
    """`key=value` words as a dictionary. Raises InvalidParameter for others, and for a key given twice."""
    parameters: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidParameter(f"{word!r} is no parameter", hint="write key=value", field="parameters")
        if name in parameters:
            raise InvalidParameter(f"{name} is given twice", field=name)
        parameters[name] = value
    return parameters
