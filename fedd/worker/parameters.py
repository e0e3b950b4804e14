"""The fields of an algorithm's dataclass as the parameters of a run."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from fedd.api.algorithm import Algorithm
from fedd.api.errors import FeddError, InvalidParameter

_TYPES: Mapping[type, str] = {bool: "bool", int: "int", float: "float", str: "str"}
_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
MAX_INTEGER = 2**63 - 1
"""What fits a CBOR integer and NumPy's int64 alike."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an algorithm. `choices` are the texts allowed, None when any is."""

    name: str
    type: str
    default: bool | int | float | str
    help: str
    choices: tuple[str, ...] | None


def schema(algorithm: type[Any]) -> tuple[Parameter, ...]:
    """The parameters of an algorithm class, in the order of its fields.

    Raises InvalidParameter, saying what the plugin's author has to change, when the class is no dataclass
    with a name and an `async def run`, or a field lacks a default or has a type that fedctl cannot ask for.
    """
    label = getattr(algorithm, "__name__", repr(algorithm))
    if not isinstance(algorithm, type) or not dataclasses.is_dataclass(algorithm):
        raise InvalidParameter(f"{label} is no dataclass", hint="decorate it with @dataclass(frozen=True)")
    name = getattr(algorithm, "name", None)
    if not isinstance(name, str) or not name or len(name) > 64 or not name.replace("-", "_").isidentifier():
        raise InvalidParameter(f"{label}.name must be a word such as 'my-algorithm', not {name!r:.80}")
    if not inspect.iscoroutinefunction(getattr(algorithm, "run", None)):
        raise InvalidParameter(f"{label}.run must be `async def run(self, ctx)`")
    hints = typing.get_type_hints(algorithm)
    return tuple(
        _parameter(label, field, hints[field.name]) for field in dataclasses.fields(algorithm) if field.init
    )


def build(algorithm: type[Any], values: Mapping[str, Any]) -> Algorithm:
    """The algorithm with these parameters, the others at their defaults.

    `values` are typed, or texts as a user wrote them. Raises InvalidParameter with the field to blame.
    """
    known = {parameter.name: parameter for parameter in schema(algorithm)}
    label = algorithm.name
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}"
            raise InvalidParameter(f"{label} has no parameter {name!r:.80}", hint=hint, field=name)
    typed = {name: convert(known[name], value) for name, value in values.items()}
    try:
        return cast(Algorithm, algorithm(**typed))
    except FeddError:
        raise
    except ValueError as error:
        blamed = next((name for name in known if name in str(error)), "")
        raise InvalidParameter(f"{label}: {error}", field=blamed) from error


def convert(parameter: Parameter, value: object) -> bool | int | float | str:
    """`value` in the parameter's type: a bool, an int that fits 64 bits, a finite float, or a text.

    Raises InvalidParameter when it is not one.
    """
    result = _converted(parameter.type, value)
    if result is None:
        raise InvalidParameter(
            f"{parameter.name} must be {_SPOKEN[parameter.type]}, not {value!r:.80}", field=parameter.name
        )
    if parameter.choices is not None and result not in parameter.choices:
        raise InvalidParameter(
            f"{parameter.name} must be one of {', '.join(parameter.choices)}, not {value!r:.80}",
            field=parameter.name,
        )
    return result


_SPOKEN = {"bool": "true or false", "int": "a whole number", "float": "a finite number", "str": "a text"}


def _converted(kind: str, value: object) -> bool | int | float | str | None:
    """None when it cannot be."""
    if kind == "str":
        return value if isinstance(value, str) else None
    if kind == "bool":
        return (
            value
            if isinstance(value, bool)
            else _BOOLS.get(value.lower())
            if isinstance(value, str)
            else None
        )
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        if kind == "float":
            number = float(value)
            return number if math.isfinite(number) else None
        whole = int(value)
    except (ValueError, OverflowError):
        return None
    if isinstance(value, float) and whole != value:
        return None
    return whole if abs(whole) <= MAX_INTEGER else None


def _parameter(label: str, field: dataclasses.Field[Any], hint: Any) -> Parameter:
    choices: tuple[str, ...] | None = None
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        kind = "str" if all(isinstance(choice, str) for choice in choices) else None
    else:
        kind = _TYPES.get(hint)
    if kind is None:
        raise InvalidParameter(
            f"{label}.{field.name} has the type {hint!r:.80}",
            hint="a parameter is a bool, int, float, str or Literal of strings",
        )
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    elif field.default is not dataclasses.MISSING:
        default = field.default
    else:
        raise InvalidParameter(f"{label}.{field.name} has no default", hint="every parameter needs one")
    parameter = Parameter(field.name, kind, default, str(field.metadata.get("help", "")), choices)
    return dataclasses.replace(parameter, default=convert(parameter, default))
