"""Named local inputs of this device: constants, files opened here and parsed by the worker, commands.

No value leaves the device through here; a run's worker gets it as a value or as an open descriptor.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import trio

from fedd.api.errors import FeddError, InvalidParameter, NotFound, TimedOut
from fedd.core import codec
from fedd.core.nearest import nearest
from fedd.net.bounds import Bound

log = logging.getLogger("fedd.host")

INPUT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
FORMATS = ("csv", "npy", "npz", "json")

MAX_VALUE_BYTES = 64 * 1024
"""A constant travels in the message that starts a worker; what is larger belongs into a file."""

MAX_CONSTANTS = 1000
"""`set` is for an operator's constants; a thousand of them fill the state file with 64 MiB at most."""

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
"""What a command may print: the size of the largest table that the worker would parse in some seconds."""

MAX_SCALAR_BYTES = 4096
"""A number or text that a command prints alone; a larger output is a table, a list or an object."""

COMMAND_TIMEOUT_S = 30.0
"""A sensor answers in seconds; meanwhile the whole run waits for this node."""

_STATE_NAME = "inputs.json"
_COMMAND_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Store(Protocol):
    """The part of the state directory that is used here."""

    def read(self, name: str) -> bytes | None:
        """The file's content, None when there is none."""
        ...

    def write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """Replace the file durably."""
        ...


@dataclass
class InputHandle:
    """An input as the worker gets it: a description for the start message and descriptors to inherit.

    The description is {"kind": "none"}, {"kind": "value", "name", "value"} or {"kind": "file" | "command",
    "name", "format", "path": for messages, "fd"}. Close it when the worker has started.
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


class Inputs:
    """The inputs of `[inputs.NAME]` and the constants that were `set`, which win and survive restarts.

    `configured` maps a name to {"value": v}, {"file": absolute path} or {"command": (program, ...)}.
    """

    def __init__(self, configured: Mapping[str, Mapping[str, Any]], state: Store) -> None:
        self._configured = dict(configured)
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
        """[{name, kind: value/file/command, source, value? / path? / command?}], sorted by name."""
        return [self._describe(name) for name in sorted({*self._configured, *self._constants})]

    def set(self, name: str, value: Any) -> None:
        """Make or replace a constant: a JSON value (number, string, nested lists, objects).

        Raises InvalidParameter for a bad name, a value that cannot travel, or too many constants.
        """
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
        if "file" in source:
            os.close(_open_file(name, source["file"]))
        elif "command" in source:
            program = source["command"][0]
            if shutil.which(program, path=_COMMAND_PATH) is None:
                raise NotFound(f"the input {name!r}: there is no program {program!r}", field="input")

    async def open(self, name: str) -> InputHandle:
        """The input for a worker that starts now; a command is run to its end here.

        Raises NotFound (naming the inputs there are), TimedOut, or InvalidParameter with what is wrong.
        """
        source = self._source(name)
        if "value" in source:
            return InputHandle({"kind": "value", "name": name, "value": source["value"]})
        if "file" in source:
            path = str(source["file"])
            description = {"kind": "file", "name": name, "format": file_format(name, path), "path": path}
            fd = _open_file(name, path)
        else:
            command = tuple(source["command"])
            output = await _run_command(name, command)
            description = {
                "kind": "command",
                "name": name,
                "format": _guess(output),
                "path": " ".join(command),
            }
            fd = _memory_file(name, output)
        return InputHandle({**description, "fd": fd}, (fd,))

    def _source(self, name: str) -> Mapping[str, Any]:
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
        if name in self._constants:
            return {"name": name, "kind": "value", "source": "set", "value": self._constants[name]}
        source = self._configured[name]
        shown = {"name": name, "kind": "", "source": "configuration"}
        if "file" in source:
            return {**shown, "kind": "file", "path": source["file"]}
        if "command" in source:
            return {**shown, "kind": "command", "command": list(source["command"])}
        return {**shown, "kind": "value", "value": source["value"]}

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


async def _run_command(name: str, command: tuple[str, ...]) -> bytes:
    shown = " ".join(command)
    try:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": _COMMAND_PATH, "LANG": "C.UTF-8"},
            start_new_session=True,
        )
    except OSError as error:
        raise InvalidParameter(
            f"the input {name!r}: {shown} cannot be run: {error.strerror}", field="input"
        ) from error
    output, complaint = bytearray(), bytearray()
    with trio.move_on_after(COMMAND_TIMEOUT_S) as deadline:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_collect, process.stderr, complaint, 4096)
                nursery.start_soon(_collect, process.stdout, output, MAX_OUTPUT_BYTES + 1)
                await process.wait()
        finally:
            await _end(process)
    if deadline.cancelled_caught:
        raise TimedOut(
            f"the input {name!r}: {shown} did not end within {COMMAND_TIMEOUT_S:g} s", field="input"
        )
    if process.returncode:
        last = complaint.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise InvalidParameter(
            f"the input {name!r}: {shown} ended with status {process.returncode}: {last[0][:200]}",
            field="input",
        )
    if len(output) > MAX_OUTPUT_BYTES:
        raise InvalidParameter(
            f"the input {name!r}: {shown} printed more than {MAX_OUTPUT_BYTES} bytes", field="input"
        )
    return bytes(output)


async def _end(process: trio.Process) -> None:
    """The command leads a session of its own: whatever it left behind must go too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with trio.CancelScope(shield=True):  # at once: it was killed
        await process.wait()


async def _collect(stream: trio.abc.ReceiveStream | None, into: bytearray, limit: int) -> None:
    """Read to the end, keep the first `limit` bytes."""
    if stream is not None:
        async with stream:
            async for chunk in stream:
                into += chunk[: max(0, limit - len(into))]
