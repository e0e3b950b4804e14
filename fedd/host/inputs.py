"""Named local inputs of this device: constants, files that the worker parses, commands, learners.

No value leaves the device through here; a run's worker gets it as a value or as an open descriptor.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Protocol

from fedd.api.errors import Conflict, FeddError, InvalidParameter, NotFound
from fedd.core import codec
from fedd.core.dataclass import dataclass
from fedd.core.nearest import nearest
from fedd.host.input_command import COMMAND_PATH, run_command
from fedd.host.plugin_schema import LearnerInfo
from fedd.host.stores import Store
from fedd.net.bounds import Bound

log = logging.getLogger("fedd.host")

INPUT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
FORMATS = ("csv", "npy", "npz", "json")

MAX_VALUE_BYTES = 64 * 1024
"""A constant travels in the message that starts a worker; what is larger belongs into a file."""

MAX_CONSTANTS = 1000
"""`set` is for an operator's constants; a thousand of them fill the state file with 64 MiB at most."""

MAX_SCALAR_BYTES = 4096
"""A number or text that a command prints alone; a larger output is a table, a list or an object."""

_STATE_NAME = "inputs.json"


@dataclass
class InputHandle:
    """An input as the worker gets it: a description for the start message and descriptors to inherit.

    The description is {"kind": "none"}, {"kind": "value", "name", "value"} or {"kind": "file" | "command",
    "name", "format", "path": for messages, "fd"}; a learner's is {"kind": "learner", "name", "learner",
    "plugin", "options", "data": one of the others}. Close it when the worker has started.
    """

    description: dict[str, Any]
    fds: tuple[int, ...] = ()
    _closed: bool = field(default=False, repr=False)

    def close(self) -> None:
        """Close this process's copies of the descriptors. Harmless when repeated."""
        if not self._closed:
            self._closed = True
            for fd in self.fds:
                os.close(fd)

    def __enter__(self) -> InputHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def no_input() -> InputHandle:
    """For a run that names no input."""
    return InputHandle({"kind": "none"})


class Learners(Protocol):
    """The part of the plugin registry that is used here."""

    def learner(self, name: str) -> LearnerInfo:
        """Raises NotFound."""

    def check_options(self, learner: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Raises NotFound or InvalidParameter."""


class Inputs:
    """The inputs of `[inputs.NAME]` and the constants that were `set`, which win and survive restarts.

    `configured` maps a name to {"value": v}, {"file": absolute path} or {"command": (program, ...)}; one of
    these or none stands beside {"learner": name, "options": {...}}. No constant wins over a learner.
    """

    def __init__(
        self, configured: Mapping[str, Mapping[str, Any]], state: Store, learners: Learners | None = None
    ) -> None:
        self._configured = dict(configured)
        self._learners = learners
        self._state = state
        self._constants = self._load()
        self._refused = 0

    def reload(self, configured: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace what the configuration file said."""
        self._configured = dict(configured)

    def bounds(self) -> list[Bound]:
        """How many constants are set, and how many may be."""
        return [Bound("constants", len(self._constants), MAX_CONSTANTS, self._refused, "made by `set`")]

    def list(self) -> list[dict[str, Any]]:
        """[{name, kind, source, value? / path? / command?, learner?, options?, error?}], sorted by name."""
        return [self._describe(name) for name in sorted({*self._configured, *self._constants})]

    def set(self, name: str, value: Any) -> None:
        """Make or replace a constant: a JSON value (number, string, nested lists, objects).

        Raises InvalidParameter for a bad name, a value that cannot travel, or too many constants, Conflict
        for the name of a learner.
        """
        if "learner" in self._configured.get(name, {}):
            raise Conflict(
                f"the input {name!r} is a learner",
                hint=f"change [inputs.{name}] of fedd.toml, or set another name",
                field="input",
            )
        if not INPUT_NAME.fullmatch(name):
            raise InvalidParameter(
                f"{name!r} is no name for an input",
                hint="letters, digits, _ . and -, at most 64, none of . and - in front",
                field="input",
            )
        try:
            size = len(codec.encode(value))
        except FeddError as error:
            raise InvalidParameter(
                f"the input {name!r}: {error.detail}", hint=error.hint, field="value"
            ) from error
        if size > MAX_VALUE_BYTES:
            raise InvalidParameter(
                f"the value of input {name!r} has {size} bytes; a constant may have {MAX_VALUE_BYTES}",
                hint=f"put it into a file and name that in [inputs.{name}] of fedd.toml",
                field="value",
            )
        constants = {**self._constants, name: value}
        if len(constants) > MAX_CONSTANTS:
            self._refused += 1
            raise InvalidParameter(f"{MAX_CONSTANTS} constants are set already", field="input")
        self._state.write(_STATE_NAME, json.dumps(constants, sort_keys=True).encode())
        self._constants = constants

    def check(self, name: str) -> None:
        """Raise what `open` would raise, as far as that is known without running anything."""
        source = self._source(name)
        if "learner" in source:
            self._learner(name, source)
        if "file" in source:
            os.close(_open_file(name, source["file"]))
        elif "command" in source:
            program = source["command"][0]
            if shutil.which(program, path=COMMAND_PATH) is None:
                raise NotFound(f"the input {name!r}: there is no program {program!r}", field="input")

    async def open(self, name: str) -> InputHandle:
        """The input for a worker that starts now; a command is run to its end here.

        Raises NotFound (naming the inputs there are), TimedOut, or InvalidParameter with what is wrong.
        """
        source = self._source(name)
        if "learner" not in source:
            return await self._open(name, source)
        learner = self._learner(name, source)
        data = await self._open(name, source)
        return InputHandle({**learner, "data": data.description}, data.fds)

    async def _open(self, name: str, source: Mapping[str, Any]) -> InputHandle:
        """The input's data."""
        if not {*source} & {"value", "file", "command"}:
            return no_input()
        if "value" in source:
            return InputHandle({"kind": "value", "name": name, "value": source["value"]})
        if "file" in source:
            path = str(source["file"])
            description = {"kind": "file", "name": name, "format": file_format(name, path), "path": path}
            fd = _open_file(name, path)
        else:
            command = tuple(source["command"])
            output = await run_command(name, command)
            description = {
                "kind": "command",
                "name": name,
                "format": _guess(output),
                "path": " ".join(command),
            }
            fd = _memory_file(name, output)
        return InputHandle({**description, "fd": fd}, (fd,))

    def problems(self) -> Iterator[tuple[str, FeddError]]:
        """(name, error) of every learner that cannot be used; the error's field is `learner` or an option."""
        for name, source in self._configured.items():
            if "learner" in source:
                try:
                    self._learner(name, source)
                except FeddError as error:
                    yield name, error

    def _learner(self, name: str, source: Mapping[str, Any]) -> dict[str, Any]:
        """What the worker is told about it. Raises NotFound or InvalidParameter as the registry does."""
        if self._learners is None:
            raise NotFound("no learner is known here", field="learner")
        try:
            options = self._learners.check_options(source["learner"], source["options"])
        except FeddError as error:
            raise type(error)(
                f"the input {name!r}: {error.detail}", hint=error.hint, field=error.field
            ) from error
        info = self._learners.learner(source["learner"])
        return {
            "kind": "learner",
            "name": name,
            "learner": info.name,
            "plugin": info.plugin,
            "options": options,
        }

    def _source(self, name: str) -> Mapping[str, Any]:
        if "learner" in self._configured.get(name, {}):
            return self._configured[name]
        if name in self._constants:
            return {"value": self._constants[name]}
        if name in self._configured:
            return self._configured[name]
        known = sorted({*self._configured, *self._constants})
        near = nearest(name, known)
        hint = f"did you mean {near!r}? " if near else ""
        there = f"there are {', '.join(known[:20])}" if known else "none is configured"
        raise NotFound(
            f"there is no input {name!r} here",
            hint=f"{hint}{there}; make one with fedctl set {name} VALUE",
            field="input",
        )

    def _describe(self, name: str) -> dict[str, Any]:
        source = self._source(name)
        if "learner" in source:
            return self._describe_learner(name, source)
        if name in self._constants:
            return {"name": name, "kind": "value", "source": "set", "value": self._constants[name]}
        return self._describe_data(name, source)

    def _describe_learner(self, name: str, source: Mapping[str, Any]) -> dict[str, Any]:
        data = self._describe_data(name, source)
        shown = {**data, "kind": "learner", "learner": source["learner"], "options": dict(source["options"])}
        try:
            self._learner(name, source)
        except FeddError as error:
            shown["error"] = f"{error.detail} ({error.hint})" if error.hint else error.detail
        return shown

    def _describe_data(self, name: str, source: Mapping[str, Any]) -> dict[str, Any]:
        shown = {"name": name, "kind": "", "source": "configuration"}
        if "file" in source:
            return {**shown, "kind": "file", "path": source["file"]}
        if "command" in source:
            return {**shown, "kind": "command", "command": list(source["command"])}
        return {**shown, "kind": "value", "value": source["value"]} if "value" in source else shown

    def _load(self) -> dict[str, Any]:
        stored = self._state.read(_STATE_NAME)
        if stored is None:
            return {}
        try:
            constants = json.loads(stored)
        except ValueError:
            constants = None
        if not isinstance(constants, dict):
            log.error("the constants in %s are damaged and were set aside; set them again", _STATE_NAME)
            self._state.write(f"{_STATE_NAME}.damaged", stored)
            return {}
        return constants


def file_format(name: str, path: str) -> str:
    """The format that a file's ending names. Raises InvalidParameter."""
    ending = Path(path).suffix.lstrip(".").lower()
    if ending not in FORMATS:
        raise InvalidParameter(
            f"the input {name!r}: the ending of {path} names no known format",
            hint=f"known endings: {', '.join(f'.{known}' for known in FORMATS)}",
            field="input",
        )
    return ending


def _open_file(name: str, path: str) -> int:
    try:
        # O_NONBLOCK: opening a named pipe must not wait for its writer
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidParameter(
            f"the input {name!r}: {path} cannot be opened: {error.strerror}",
            hint="check the path in fedd.toml and the file's mode",
            field="input",
        ) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidParameter(f"the input {name!r}: {path} is no regular file", field="input")
    return fd


def _memory_file(name: str, content: bytes) -> int:
    fd = os.memfd_create(f"fedd-input-{name}", os.MFD_CLOEXEC)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _guess(output: bytes) -> str:
    """How a command's output is to be parsed, from its beginning: the worker reads it, this loop must not."""
    start = output[:64].lstrip()
    if start.startswith((b"{", b"[")):
        return "json"
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if len(output) <= MAX_SCALAR_BYTES:
        try:
            json.loads(output)
        except ValueError:
            return "csv"
        return "json"
    return "csv"
