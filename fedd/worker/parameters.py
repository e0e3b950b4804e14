"""The fields of a plugin's dataclass: parameters of a run, a command's message, a learner's options."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from fedd.api.aggregator import Aggregator
from fedd.api.algorithm import Algorithm
from fedd.api.command import Command, Notice
from fedd.api.errors import FeddError, InvalidParameter
from fedd.api.learner import Learner
from fedd.api.types import Message
from fedd.core.command_events import (
    MAX_EVENT_CHARS,
    MAX_EVENT_FIELDS,
    RESERVED_FIELDS,
    check_length,
    check_said,
)
from fedd.core.nearest import nearest

_TYPES: Mapping[type, str] = {bool: "bool", int: "int", float: "float", str: "str"}
_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
MAX_INTEGER = 2**63 - 1
"""What fits a CBOR integer and NumPy's int64 alike."""
MAX_COMMAND_BYTES = 16 * 1024 * 1024
"""Of a command's parameters or answer: a small model. The daemon holds one of each while a call lasts."""
MAX_TIMEOUT_S = 30.0
"""Of a handler: somebody waits for its answer. Longer work is a run, or tells its end by another command."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `choices` are the texts allowed, None when any of up to `max_chars` characters is.

    `type` is bool, int, float or str; a command's can also be array (NumPy) or message (anything that can
    travel). `default` is None for one that is `required`.
    """

    name: str
    type: str
    default: Message
    help: str
    choices: tuple[str, ...] | None
    required: bool = False
    max_chars: int | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """A command's class variables, checked. `event_text` is a notice's, empty for one with a handler."""

    version: str
    audience: str
    max_payload_bytes: int
    timeout_s: float
    event_text: str = ""


def schema(algorithm: type[Any]) -> tuple[Parameter, ...]:
    """The parameters of an algorithm class, in the order of its fields.

    Raises InvalidParameter, saying what the plugin's author has to change, when the class is no dataclass
    with a name and an `async def run`, or a field lacks a default or has a type that fedctl cannot ask for.
    """
    label = _check_class(algorithm, "run", "my-algorithm")
    return _options(label, algorithm)


def command_schema(command: type[Any]) -> tuple[Parameter, ...]:
    """The parameters of a command class, in the order of its fields.

    Raises InvalidParameter, saying what the plugin's author has to change, when the class is no dataclass
    with a name and an `async def handle`, or a field has a type that cannot travel; or when it is no notice,
    but has an `event_text`.
    """
    if event_text_of(command):
        label = _check_named(command, "my-notice", "@dataclass(frozen=True)")
    else:
        label = _check_class(command, "handle", "my-command")
    found = tuple(
        _parameter(label, field, hint, _TYPES.get(hint) or _large_kind(field, hint), required=True)
        for field, hint in _fields(command)
    )
    return notice_schema(label, command, found) if event_text_of(command) else found


def event_text_of(command: type[Any]) -> Any:
    """A notice's class variable. Empty for a command with a handler, also if a field has that name."""
    fields = dataclasses.fields(command) if dataclasses.is_dataclass(command) else ()
    return "" if any(each.name == "event_text" for each in fields) else getattr(command, "event_text", "")


def notice_schema(label: str, notice: type[Any], found: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
    """A notice's parameters, each text with its longest length. Raises InvalidParameter as `command_schema`.

    What the daemon writes into the event log must be what a handler may write there (`CommandContext.event`).
    """
    for method, instead in (
        ("handle", "the daemon writes the event"),
        ("__post_init__", "declare max_chars"),
    ):
        if hasattr(notice, method):
            raise InvalidParameter(
                f"{label} has an event_text, so its {method} is never called", hint=instead
            )
    said = event_text_of(notice)
    texts = [each.name for each in found if each.type == "str" and each.choices is None]
    if said not in texts:
        raise InvalidParameter(
            f"{label}.event_text is {said!r:.80}",
            hint=f"it names a str field: {', '.join(texts) or 'add one'}",
        )
    for each in found:
        if each.type not in _TYPES.values():
            raise InvalidParameter(f"{label}.{each.name} is a {each.type}: an event has no room for one")
        if each.name != said and each.name in RESERVED_FIELDS:
            raise InvalidParameter(f"{label}.{each.name}: the event log itself writes {each.name!r}")
        if (each.max_chars or 0) > MAX_EVENT_CHARS:
            raise InvalidParameter(f"{label}.{each.name}: an event has texts of up to {MAX_EVENT_CHARS}")
    if len(found) - 1 > MAX_EVENT_FIELDS:
        raise InvalidParameter(f"{label} has more than {MAX_EVENT_FIELDS} fields beside {said}")
    bounded = tuple(
        dataclasses.replace(each, max_chars=each.max_chars or MAX_EVENT_CHARS) if each.name in texts else each
        for each in found
    )
    for each in bounded:
        if not each.required:
            convert(each, each.default)
    return bounded


def learner_schema(learner: type[Any]) -> tuple[Parameter, ...]:
    """The options of a learner class, in the order of its fields.

    Raises InvalidParameter, saying what the plugin's author has to change, when the class is no dataclass
    with a name and a learner's methods, or a field lacks a default or has a type that a configuration
    cannot hold.
    """
    label = _check_kind(learner, "learner", ("prepare", "parameters", "load", "train", "evaluate"))
    return _options(label, learner)


def aggregator_schema(aggregator: type[Any]) -> tuple[Parameter, ...]:
    """The options of an aggregator class, as `learner_schema`."""
    label = _check_kind(aggregator, "aggregator", ("start", "aggregate", "before", "after"))
    if not isinstance(getattr(aggregator, "mean", None), bool):
        raise InvalidParameter(f"{label}.mean must be True or False", hint="see fedd.api.Aggregator")
    return _options(label, aggregator)


def _options(label: str, cls: type[Any]) -> tuple[Parameter, ...]:
    return tuple(
        _parameter(label, field, hint, _TYPES.get(hint), required=False) for field, hint in _fields(cls)
    )


def command_terms(command: type[Any]) -> Terms:
    """A command class's further class variables. Raises InvalidParameter as `command_schema`."""
    label = command.__name__
    version = getattr(command, "version", "1.0.0")
    if not (isinstance(version, str) and len(version) <= 32 and re.fullmatch(r"\d+(\.\d+)*", version)):
        raise InvalidParameter(f"{label}.version must be a text such as '1.0.0', not {version!r:.80}")
    audience = getattr(command, "audience", "members")
    if audience not in ("local", "direct", "members", "run"):
        raise InvalidParameter(
            f"{label}.audience must be 'local', 'direct', 'members' or 'run', not {audience!r:.80}"
        )
    largest = getattr(command, "max_payload_bytes", 65_536)
    if type(largest) is not int or not 0 < largest <= MAX_COMMAND_BYTES:
        raise InvalidParameter(
            f"{label}.max_payload_bytes must be a number up to {MAX_COMMAND_BYTES}, not {largest!r:.80}"
        )
    timeout_s = getattr(command, "timeout_s", 10.0)
    if type(timeout_s) not in (int, float) or not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise InvalidParameter(
            f"{label}.timeout_s must be a number of seconds up to {MAX_TIMEOUT_S:g}, not {timeout_s!r:.80}"
        )
    event_text = event_text_of(command)
    if event_text and audience == "run":
        raise InvalidParameter(f"{label} is a notice of the audience 'run', which nobody could send")
    return Terms(version, audience, largest, float(timeout_s), event_text)


def build(algorithm: type[Any], values: Mapping[str, Any]) -> Algorithm:
    """The algorithm with these parameters, the others at their defaults.

    `values` are typed, or texts as a user wrote them. Raises InvalidParameter with the field to blame.
    """
    return cast(Algorithm, _built(algorithm, schema(algorithm), values))


def build_learner(learner: type[Any], values: Mapping[str, Any]) -> Learner:
    """The learner with these options, as `build`."""
    return cast(Learner, _built(learner, learner_schema(learner), values))


def build_aggregator(aggregator: type[Any], values: Mapping[str, Any]) -> Aggregator:
    """The aggregator with these options, as `build`."""
    return cast(Aggregator, _built(aggregator, aggregator_schema(aggregator), values))


@dataclass(frozen=True, slots=True)
class CommandKind:
    """A command class and what it asks for: looked at once, however many calls there are."""

    cls: type[Any]
    parameters: tuple[Parameter, ...]
    terms: Terms


def command_kind(command: type[Any]) -> CommandKind:
    """What there is to know of a command class. Raises InvalidParameter as `command_schema`."""
    return CommandKind(command, command_schema(command), command_terms(command))


def build_command(kind: CommandKind, values: Mapping[str, Any]) -> Command | Notice:
    """The command with these parameters, as `build`; arrays become NumPy arrays."""
    command: Command | Notice = _built(kind.cls, kind.parameters, values)
    if said := kind.terms.event_text:
        check_said(said, getattr(command, said))
    return command


def _built(cls: type[Any], parameters: tuple[Parameter, ...], values: Mapping[str, Any]) -> Any:
    known = {parameter.name: parameter for parameter in parameters}
    label = cls.name
    for name in values:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else f"it has {', '.join(known) or 'none'}"
            raise InvalidParameter(f"{label} has no parameter {name!r:.80}", hint=hint, field=name)
    for parameter in parameters:
        if parameter.required and parameter.name not in values:
            raise InvalidParameter(
                f"{label} needs {parameter.name}", hint=parameter.help, field=parameter.name
            )
    typed = {name: convert(known[name], value) for name, value in values.items()}
    try:
        return cls(**typed)
    except FeddError:
        raise
    except ValueError as error:
        blamed = next((name for name in known if name in str(error)), "")
        raise InvalidParameter(f"{label}: {error}", field=blamed) from error


def convert(parameter: Parameter, value: Any) -> Any:
    """`value` in the parameter's type: a bool, an int that fits 64 bits, a finite float, a text, an array.

    Raises InvalidParameter when it is not one.
    """
    if parameter.type == "message":
        return value
    if parameter.type == "array":
        return _array(parameter.name, value)
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
    if parameter.max_chars is not None:
        check_length(parameter.name, str(result), parameter.max_chars)
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


def _array(name: str, value: Any) -> Any:
    """A NumPy array of numbers, from one or from nested lists."""
    import numpy as np  # here, because the inspector needs none

    try:
        array = np.asarray(value)
    except ValueError:
        raise InvalidParameter(f"{name} is no array: its rows differ in length", field=name) from None
    if array.dtype.kind not in "biuf":
        raise InvalidParameter(f"{name} must be an array of numbers, not {value!r:.80}", field=name)
    return array


def _check_class(cls: type[Any], method: str, example: str) -> str:
    """What to call the class in messages. Raises InvalidParameter when it is not what it should be."""
    label = _check_named(cls, example, "@dataclass(frozen=True)")
    if not inspect.iscoroutinefunction(getattr(cls, method, None)):
        raise InvalidParameter(f"{label}.{method} must be `async def {method}(self, ctx)`")
    return label


def _check_kind(cls: type[Any], kind: str, methods: tuple[str, ...]) -> str:
    """The same for a learner or aggregator, whose methods are plain ones."""
    label = _check_named(cls, f"my-{kind}", "@dataclass" if kind == "learner" else "@dataclass(frozen=True)")
    for method in methods:
        found = getattr(cls, method, None)
        if not callable(found) or inspect.iscoroutinefunction(found):
            raise InvalidParameter(
                f"{label}.{method} must be `def {method}(self, ...)`", hint=f"see fedd.api.{kind.title()}"
            )
    return label


def _check_named(cls: type[Any], example: str, decorator: str) -> str:
    label = getattr(cls, "__name__", repr(cls))
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        raise InvalidParameter(f"{label} is no dataclass", hint=f"decorate it with {decorator}")
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name or len(name) > 64 or not name.replace("-", "_").isidentifier():
        raise InvalidParameter(f"{label}.name must be a word such as {example!r}, not {name!r:.80}")
    return label


def _fields(cls: type[Any]) -> list[tuple[dataclasses.Field[Any], Any]]:
    """The fields that are parameters, each with its type."""
    # `Message` is a union of names that only fedd.api.types knows; authors import it for annotations.
    hints = typing.get_type_hints(cls, localns={"Message": Message, "Array": Any})
    return [(field, hints[field.name]) for field in dataclasses.fields(cls) if field.init]


def _large_kind(field: dataclasses.Field[Any], hint: Any) -> str | None:
    """message or array, None for any other type."""
    written = field.type if isinstance(field.type, str) else ""
    if field.type == Message or written.rpartition(".")[2] == "Message":
        return "message"
    origin = typing.get_origin(hint) or hint
    is_array = (getattr(origin, "__module__", ""), getattr(origin, "__name__", "")) == ("numpy", "ndarray")
    return "array" if is_array else None


def _parameter(
    label: str, field: dataclasses.Field[Any], hint: Any, kind: str | None, *, required: bool
) -> Parameter:
    """`required`: whether a field may have no default."""
    choices: tuple[str, ...] | None = None
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        kind = "str" if all(isinstance(choice, str) for choice in choices) else None
    if kind is None:
        more = ", a NumPy array or a Message" if required else ""
        raise InvalidParameter(
            f"{label}.{field.name} has the type {hint!r:.80}",
            hint=f"a parameter is a bool, int, float, str or Literal of strings{more}",
        )
    max_chars = field.metadata.get("max_chars")
    if max_chars is not None and (kind != "str" or type(max_chars) is not int or max_chars < 1):
        raise InvalidParameter(
            f"{label}.{field.name} has max_chars={max_chars!r:.80}", hint="a text takes one, a number from 1"
        )
    help_text = str(field.metadata.get("help", ""))
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    elif field.default is not dataclasses.MISSING:
        default = field.default
    elif required:
        return Parameter(field.name, kind, None, help_text, choices, required=True, max_chars=max_chars)
    else:
        raise InvalidParameter(f"{label}.{field.name} has no default", hint="every parameter needs one")
    parameter = Parameter(field.name, kind, default, help_text, choices, max_chars=max_chars)
    return dataclasses.replace(parameter, default=convert(parameter, default))
