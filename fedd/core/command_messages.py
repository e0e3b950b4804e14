"""What travels of a command: its protocol id, its parameters, the answer or the error that it ends with.

protocol     /fedd/command/NAME/VERSION, or /fedd/command/NAME from one who does not have the command
request      u32 length (big-endian), CBOR map of the parameters by name
answer       u32 length, CBOR map {"value": ...} or {"error": {code, detail, hint, field}}
broadcast    CBOR map {"command": NAME, "version": VERSION, "parameters": {...}} on the channel "command"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedd.api import errors
from fedd.api.errors import FeddError, InvalidMessage, PluginFailed, ProtocolError
from fedd.core import codec

COMMAND_PREFIX = "/fedd/command/"
BROADCAST_CHANNEL = "command"

MAX_ANSWER_OVERHEAD_BYTES = 4096
"""Of an answer beside its value: the map around it, or an error's texts."""

_MAX_TEXT_CHARS = 1000
"""Of an error's detail and hint: a few lines, cut and not refused."""

_ERROR_HEAD = codec.encode({"error": {}})[:-1]
_ERRORS: Mapping[str, type[FeddError]] = {
    cls.code: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, FeddError)
}


def protocol_of(command: str, version: str = "") -> str:
    """The protocol id of a command, without a version when the sender knows none."""
    return f"{COMMAND_PREFIX}{command}/{version}".rstrip("/")


def command_of(protocol: str) -> tuple[str, str]:
    """(command, version) of a protocol id; the version is empty when it names none."""
    command, _, version = protocol.removeprefix(COMMAND_PREFIX).partition("/")
    return command, version


def compatible(one: str, other: str) -> bool:
    """Whether two versions can talk: the same first number (semantic versioning), or one unknown."""
    return not one or not other or one.partition(".")[0] == other.partition(".")[0]


def read_parameters(data: bytes | memoryview, max_bytes: int) -> dict[str, Any]:
    """The parameters of a request. Raises ProtocolError when it is no map of them."""
    return _read_map(data, max_bytes, "command's parameters")


def encode_value(value: Any) -> bytes:
    """The answer of a handler that returned. Raises InvalidMessage for what cannot travel."""
    return codec.encode({"value": value}, canonical=False)


def is_error(answer: bytes | memoryview) -> bool:
    """Whether an answer holds an error, by its first bytes."""
    return bytes(answer[: len(_ERROR_HEAD)]) == _ERROR_HEAD


def encode_error(error: FeddError) -> bytes:
    """The answer of one that did not."""
    return codec.encode({"error": error_fields(error)}, canonical=False)


def error_fields(error: FeddError) -> dict[str, str]:
    """An error as a map of texts, each as long as it may be."""
    return {
        "code": error.code,
        "detail": error.detail.encode("utf-8", "replace").decode()[:_MAX_TEXT_CHARS],
        "hint": error.hint.encode("utf-8", "replace").decode()[:_MAX_TEXT_CHARS],
        "field": error.field.encode("utf-8", "replace").decode()[:_MAX_TEXT_CHARS],
    }


def error_of(fields: Any) -> FeddError:
    """The error that such a map describes; PluginFailed when its code is none of ours."""
    told = fields if isinstance(fields, dict) else {}
    texts = {key: str(told.get(key) or "")[:_MAX_TEXT_CHARS] for key in ("code", "detail", "hint", "field")}
    cls = _ERRORS.get(texts.pop("code"), PluginFailed)
    return cls(texts.pop("detail") or "no reason was given", **texts)


def read_answer(data: bytes | memoryview, max_bytes: int) -> Any:
    """The value of an answer.

    Raises the error that it holds, or ProtocolError when it is neither.
    """
    answer = _read_map(data, max_bytes + MAX_ANSWER_OVERHEAD_BYTES, "command's answer")
    if answer.keys() == {"value"}:
        return answer["value"]
    if answer.keys() == {"error"}:
        raise error_of(answer["error"])
    raise ProtocolError("a command's answer is neither a value nor an error")


def encode_broadcast(command: str, version: str, parameters: Mapping[str, Any]) -> bytes:
    """A broadcast's payload. Raises InvalidMessage for what cannot travel."""
    return codec.encode({"command": command, "version": version, "parameters": dict(parameters)})


def read_broadcast(data: bytes | memoryview, max_bytes: int) -> tuple[str, str, dict[str, Any]]:
    """(command, version, parameters) of a broadcast. Raises ProtocolError."""
    found = _read_map(data, max_bytes, "broadcast command")
    command, version, parameters = (found.get(key) for key in ("command", "version", "parameters"))
    if not (isinstance(command, str) and isinstance(version, str) and isinstance(parameters, dict)):
        raise ProtocolError("a broadcast command is not {command, version, parameters}")
    return command, version, parameters


def _read_map(data: bytes | memoryview, max_bytes: int, what: str) -> dict[str, Any]:
    try:
        found = codec.decode(data, max_bytes=max_bytes)
    except InvalidMessage as error:
        raise ProtocolError(f"a {what} cannot be read: {error.detail}") from None
    if not isinstance(found, dict):
        raise ProtocolError(f"a {what} is no map")
    return found
