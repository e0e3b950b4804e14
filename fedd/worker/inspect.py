"""Tell the daemon which plugins there are, what they can do, and which failed to import and why.

Every plugin is imported in a forked child of its own, with a deadline and a bound on what it may say:
one that exits, crashes, prints or never returns is listed with that as its error, the others are not
affected. What plugins print goes to stderr.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any

from fedd.api.errors import FeddError
from fedd.worker.abilities import abilities
from fedd.worker.confinement import Confinement, keep_signals
from fedd.worker.failures import plugin_failure
from fedd.worker.parameters import (
    Parameter,
    aggregator_schema,
    command_schema,
    command_terms,
    learner_schema,
    schema,
)
from fedd.worker.plugins import (
    entry_points,
    load_aggregators,
    load_algorithms,
    load_commands,
    load_learners,
)
from fedd.worker.terms import terms

FORMAT = 1
IMPORT_DEADLINE_S = 10.0
"""A plugin that imports a deep-learning framework needs 2 to 6 s on a small board."""
MAX_PLUGIN_BYTES = 256 * 1024
"""What one plugin may say: a hundred algorithms with a page of documentation."""
MAX_PLUGINS = 64
"""More on one device would be a mistake; bounds the whole document to 16 MiB, in practice to a few KiB."""
KINDS = ("algorithm", "command", "learner", "aggregator")
_MAX_DOC = 2000


def inspect_plugins(
    confined: Confinement | None = None, deadline_s: float = IMPORT_DEADLINE_S
) -> dict[str, Any]:
    """The document: {"format": 1, "confinement", "plugins": [{name, value, distribution, version, error}]}.

    Each plugin also with its `algorithms`, `commands`, `learners` and `aggregators`. `confinement` is what
    this process has given up, None for nothing: {"landlock": version or 0, "seccomp": flag, "open": [what
    plugins are not kept from]}.
    """
    # Most plugins import NumPy: once here takes less than again and again in their children.
    importlib.import_module("numpy")
    plugins: list[dict[str, Any]] = []
    taken: dict[str, str] = {}
    owners: dict[tuple[str, str], str] = {}
    for point in entry_points()[:MAX_PLUGINS]:
        described = _head(point)
        if point.name in taken:
            described["error"] = f"the name {point.name} is taken by {taken[point.name]}"
        else:
            taken[point.name] = described["distribution"]
            described.update(_in_child(point, deadline_s, confined))
        _refuse_doubles(described, owners)
        plugins.append(described)
    return {"format": FORMAT, "confinement": _confinement(confined), "plugins": plugins}


def _confinement(confined: Confinement | None) -> dict[str, Any] | None:
    if confined is None:
        return None
    return {"landlock": confined.landlock, "seccomp": confined.seccomp, "open": list(confined.open)}


def _head(point: importlib.metadata.EntryPoint) -> dict[str, Any]:
    distribution = point.dist
    return {
        "name": point.name,
        "value": point.value,
        "distribution": distribution.name if distribution else "",
        "version": distribution.version if distribution else "",
        **_nothing(None),
    }


def _nothing(error: str | None) -> dict[str, Any]:
    """A description without anything on offer."""
    return {"error": error, **{f"{kind}s": [] for kind in KINDS}}


def _refuse_doubles(described: dict[str, Any], owners: dict[tuple[str, str], str]) -> None:
    """A name belongs to the first plugin that registers it, for each kind apart."""
    for kind in KINDS:
        for offered in described[f"{kind}s"]:
            owner = owners.setdefault((kind, offered["name"]), described["name"])
            if owner != described["name"]:
                described.update(_nothing(f"the {kind} {offered['name']} is registered by {owner} already"))
                return


def _in_child(
    point: importlib.metadata.EntryPoint, deadline_s: float, confined: Confinement | None = None
) -> dict[str, Any]:
    """Describe a plugin in a child process, as `describe` does."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_child(point, writer, deadline_s, confined)
    os.close(writer)
    try:
        said, why = _read(reader, deadline_s)
    finally:
        os.close(reader)
    if why:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not why and said:
        try:
            answer = json.loads(said)
        except ValueError:
            why = "its description is not readable"
        else:
            return {key: answer[key] for key in _nothing(None)}
    return _nothing(why or _ended(status))


def _be_child(
    point: importlib.metadata.EntryPoint, writer: int, deadline_s: float, confined: Confinement | None
) -> None:
    """Describe and end, whatever happens, without unwinding into the parent's code."""
    try:
        if confined is not None:
            keep_signals(confined)
        cpu_s = int(deadline_s) + 1  # backstops should the parent be killed meanwhile
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
        signal.alarm(cpu_s)  # for one that only sleeps
        said = json.dumps(describe(point)).encode()
        if len(said) > MAX_PLUGIN_BYTES:
            error = f"its description has {len(said)} bytes, more than {MAX_PLUGIN_BYTES}"
            said = json.dumps(_nothing(error)).encode()
        with open(writer, "wb") as pipe:
            pipe.write(said)
        sys.stderr.flush()
    finally:
        os._exit(0)


def describe(point: importlib.metadata.EntryPoint) -> dict[str, Any]:
    """Import a plugin here: {"error": text or None, "algorithms": [...], "commands": [...], ...}."""
    try:
        offered = {
            "algorithms": [_described_algorithm(each) for each in load_algorithms(point)],
            "commands": [_described_command(each) for each in load_commands(point)],
            "learners": [_described_learner(each) for each in load_learners(point)],
            "aggregators": [_described_aggregator(each) for each in load_aggregators(point)],
        }
    except FeddError as error:
        return _nothing(str(error))
    except BaseException as error:  # SystemExit and KeyboardInterrupt of a plugin are its own affair
        return _nothing(str(plugin_failure(error)))
    for kind in KINDS:
        names = [each["name"] for each in offered[f"{kind}s"]]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            return _nothing(f"the {kind} {double} is registered twice")
    return {"error": None, **offered}


def _described(cls: type[Any], parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    doc = cls.__doc__ or ""
    if doc.startswith(f"{cls.__name__}("):  # dataclass() writes a signature where there is no docstring
        doc = ""
    lines = doc.strip().splitlines()
    return {
        "name": cls.name,
        "doc": lines[0][:_MAX_DOC] if lines else "",
        "parameters": [_described_parameter(parameter) for parameter in parameters],
    }


def _described_algorithm(algorithm: type[Any]) -> dict[str, Any]:
    return {**_described(algorithm, schema(algorithm)), **terms(algorithm)._asdict()}


def _described_command(command: type[Any]) -> dict[str, Any]:
    described = _described(command, command_schema(command))
    return {**described, **dataclasses.asdict(command_terms(command))}


def _described_learner(learner: type[Any]) -> dict[str, Any]:
    return {**_described(learner, learner_schema(learner)), "abilities": sorted(abilities(learner))}


def _described_aggregator(aggregator: type[Any]) -> dict[str, Any]:
    return {**_described(aggregator, aggregator_schema(aggregator)), "mean": aggregator.mean}


def _described_parameter(parameter: Parameter) -> dict[str, Any]:
    described = {
        "name": parameter.name,
        "type": parameter.type,
        "default": _shown(parameter.default),
        "help": parameter.help[:_MAX_DOC],
        "choices": None if parameter.choices is None else list(parameter.choices),
    }
    if parameter.max_chars is not None:
        described["max_chars"] = parameter.max_chars
    return {**described, "required": True} if parameter.required else described


def _shown(default: Any) -> Any:
    """A default as JSON can hold it; an array's is not shown."""
    try:
        json.dumps(default)
    except (TypeError, ValueError):
        return None
    return default


def _read(reader: int, deadline_s: float) -> tuple[bytes, str]:
    """What the child said until it closed the pipe, or why nobody listens any more."""
    said = bytearray()
    end = time.monotonic() + deadline_s
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return b"", f"it did not finish to import within {deadline_s:g} s"
        part = os.read(reader, 65536)
        if not part:
            return bytes(said), ""
        said += part
        if len(said) > MAX_PLUGIN_BYTES + 1024:
            return b"", f"it says more than {MAX_PLUGIN_BYTES} bytes"


def _ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"it ended the process with {signal.Signals(os.WTERMSIG(status)).name} when imported"
    return f"it ended the process with exit code {os.waitstatus_to_exitcode(status)} when imported"
