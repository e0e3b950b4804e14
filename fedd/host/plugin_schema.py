"""What plugins offer, each with its parameters, and values against those parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any, NamedTuple

from fedd.api.errors import InvalidParameter
from fedd.core.codec import ArrayView
from fedd.core.command_events import check_length
from fedd.core.command_messages import protocol_of
from fedd.core.dataclass import dataclass
from fedd.core.nearest import nearest
from fedd.core.run_terms import SURVIVORS
from fedd.core.run_terms import Parameter as ParameterValue

_WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class Parameter(NamedTuple):
    """One field of a plugin's dataclass.

    `type` is bool, int, float or str, a command's also array or message. `default` is None for one that is
    `required`, and for arrays. A str has at most `max_chars` characters, None: as many as travel.
    """

    name: str
    type: str
    default: Any
    help: str
    choices: tuple[str, ...] | None
    required: bool = False
    max_chars: int | None = None

    def describe(self) -> dict[str, Any]:
        """As `--json` shows it."""
        shown = {"name": self.name, "type": self.type, "default": self.default, "help": self.help}
        if self.choices:
            shown["choices"] = list(self.choices)
        if self.max_chars is not None:
            shown["max_chars"] = self.max_chars
        if self.required:
            shown["required"] = True
        return shown


def _told_of_all(info: AlgorithmInfo | CommandInfo | LearnerInfo | AggregatorInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "plugin": info.plugin,
        "distribution": info.distribution,
        "version": info.version,
        "doc": info.doc,
        "parameters": [parameter.describe() for parameter in info.parameters],
    }


@dataclass(frozen=True)
class AlgorithmInfo:
    """An algorithm that can be run here. `plugin` is its entry point's name.

    `contract` says what a death means for it, unless the run says otherwise; `joinable` whether members may
    come later; `topology` is the graph of a run that names none (empty: fedd's default). `contracts` has
    other contracts for values of parameters, each written `name=value`.
    """

    name: str
    plugin: str
    distribution: str
    version: str
    doc: str
    parameters: tuple[Parameter, ...]
    contract: str = SURVIVORS
    joinable: bool = False
    topology: str = ""
    contracts: Mapping[str, str] = field(default_factory=dict)

    def contract_of(self, parameters: Mapping[str, object]) -> str:
        """What a death means for a run with these parameters."""
        for written, contract in self.contracts.items():
            name, _, value = written.partition("=")
            if str(parameters.get(name)) == value:
                return contract
        return self.contract

    def describe(self) -> dict[str, Any]:
        """As `fedctl algorithms --json` shows it."""
        return {
            **_told_of_all(self),
            "contract": self.contract,
            "joinable": self.joinable,
            "topology": self.topology,
        }


@dataclass(frozen=True)
class CommandInfo:
    """A command that can be sent to this node. `plugin` is its entry point's name, `version` its package's.

    `command_version` is the command's own, in its protocol id. `allowed` is the policy's word. `event_text`
    is the parameter that a notice writes into the event log, empty for a command with a handler.
    """

    name: str
    plugin: str
    distribution: str
    version: str
    doc: str
    parameters: tuple[Parameter, ...]
    command_version: str
    audience: str
    max_payload_bytes: int
    timeout_s: float
    allowed: bool = True
    event_text: str = ""

    @property
    def protocol(self) -> str:
        """Its protocol id."""
        return protocol_of(self.name, self.command_version)

    def describe(self) -> dict[str, Any]:
        """As `fedctl commands --json` shows it."""
        return {
            **_told_of_all(self),
            "protocol": self.protocol,
            "audience": self.audience,
            "max_payload_bytes": self.max_payload_bytes,
            "timeout_s": self.timeout_s,
            "event_text": self.event_text,
            "allowed": self.allowed,
        }


@dataclass(frozen=True)
class LearnerInfo:
    """A learner that an input of this device can have. `abilities` are those of `fedd.api.RunLearner`."""

    name: str
    plugin: str
    distribution: str
    version: str
    doc: str
    parameters: tuple[Parameter, ...]
    abilities: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """As `fedctl learners --json` shows it."""
        return {
            **_told_of_all(self),
            "abilities": list(self.abilities),
        }


@dataclass(frozen=True)
class AggregatorInfo:
    """An aggregator that a run can name.

    `mean`: whether the mean of all models is enough for it. `allowed` is the policy's word.
    """

    name: str
    plugin: str
    distribution: str
    version: str
    doc: str
    parameters: tuple[Parameter, ...]
    mean: bool = False
    allowed: bool = True

    def describe(self) -> dict[str, Any]:
        """As `fedctl aggregators --json` shows it."""
        return {
            **_told_of_all(self),
            "mean": self.mean,
            "allowed": self.allowed,
        }


def check_known(
    name: str, known: Mapping[str, Parameter], given: Mapping[str, Any], word: str = "parameter"
) -> None:
    """Raise InvalidParameter, naming the nearest, for the first key of `given` that `name` does not have."""
    for key in given:
        if key not in known:
            near = nearest(key, known)
            hint = f"did you mean {near!r}?" if near else f"it has {', '.join(known) or 'none'}"
            raise InvalidParameter(f"{name} has no {word} {key!r:.80}", hint=hint, field=key)


def convert(parameter: Parameter, value: Any) -> Any:
    """`value` (a text, or a JSON value) as the parameter's type. Raises InvalidParameter."""
    if parameter.type in ("array", "message"):
        return _large(parameter, value)
    typed = _typed(parameter.type, value)
    if typed is None:
        kind = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text"}
        raise InvalidParameter(
            f"{parameter.name}={value} is not {kind.get(parameter.type, parameter.type)}",
            hint=parameter.help or f"the default is {parameter.default!r}",
            field=parameter.name,
        )
    if parameter.choices is not None and typed not in parameter.choices:
        raise InvalidParameter(
            f"{parameter.name}={value} is not one of {', '.join(parameter.choices)}",
            hint=parameter.help,
            field=parameter.name,
        )
    if parameter.max_chars is not None and isinstance(typed, str):
        check_length(parameter.name, typed, parameter.max_chars)
    return typed


def _large(parameter: Parameter, value: Any) -> Any:
    """An array or a message: a text is read as JSON, and stays a text for a message when it is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            if parameter.type == "array":
                raise InvalidParameter(
                    f"{parameter.name}={value:.60} is no array",
                    hint="write nested lists of numbers, as in [[1, 2], [3, 4]]",
                    field=parameter.name,
                ) from None
    if parameter.type == "array" and not isinstance(value, list | int | float | ArrayView):
        raise InvalidParameter(f"{parameter.name} is no array", hint=parameter.help, field=parameter.name)
    return value


def _typed(kind: str, value: Any) -> ParameterValue | None:
    text = value.strip() if isinstance(value, str) else None
    if kind == "str":
        return value if isinstance(value, str) else None
    if kind == "bool":
        return value if isinstance(value, bool) else _WORDS.get((text or "").lower())
    if isinstance(value, bool):
        return None
    try:
        if kind == "int":
            number = value if isinstance(value, int) else int(text or "")
            return number if -(1 << 63) <= number < 1 << 63 else None
        if kind == "float":
            return float(value if text is None else text)
    except (ValueError, TypeError, OverflowError):
        return None
    return None
