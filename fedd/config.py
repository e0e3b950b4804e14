"""The configuration: `fedd.toml` and the command line, checked whole before anything starts.

Every problem is reported, not only the first, each with file, key and line. The rooms define their own
settings; the daemon's composition root carries the values over.
"""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from fedd.api.errors import InvalidParameter
from fedd.config_keys import INPUT_NAME, INPUT_SOURCES, KEYS, Key
from fedd.config_lines import key_lines
from fedd.core.nearest import nearest

# A configuration is written by hand; a larger file is something else, given by mistake.
MAX_CONFIG_BYTES = 1024 * 1024


class Problem(NamedTuple):
    """One thing wrong in a configuration, and where. `line` is 0 when the command line is to blame."""

    file: str
    key: str
    line: int
    detail: str
    hint: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        tail = f" - {self.hint}" if self.hint else ""
        return f"{where}: {self.key}: {self.detail}{tail}" if self.key else f"{where}: {self.detail}{tail}"


class BadConfig(InvalidParameter):
    """The configuration cannot be used; `problems` lists everything that is wrong with it."""

    code: ClassVar[str] = "invalid"

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{first}{more}", field=first.key)
        self.problems = tuple(problems)


class Config:
    """What the daemon was told, every value checked and present.

    `limits` is {key: number}; `inputs` {name: {"value": ..}, {"file": absolute path} or {"command": (..)}},
    with a learner one of these or none beside {"learner": name, "options": {key: value}};
    `plugins` {name: table}; `policy_inputs` {input name: algorithm names}; `policy_writable` holds absolute
    paths; `path` None without a file; `lines` is where its keys stand.
    """

    def __init__(
        self,
        path: str | None,
        values: Mapping[str, Mapping[str, Any]],
        lines: Mapping[tuple[str, ...], int] | None = None,
    ) -> None:
        node, policy = values["node"], values["policy"]
        self.path = path
        self._lines = dict(lines or {})
        self.name: str = node["name"] or default_name()
        self.listen: tuple[str, ...] = node["listen"]
        self.announce: tuple[str, ...] = node["announce"]
        self.connect: tuple[str, ...] = node["connect"]
        self.mdns: bool = node["mdns"]
        self.federation_name: str = values["federation"]["name"]
        self.allow: tuple[str, ...] = values["federation"]["allow"]
        self.presence_profile: str = values["presence"]["profile"]
        self.limits: dict[str, float] = dict(values["limits"])
        self.policy_algorithms: tuple[str, ...] = policy["algorithms"]
        self.policy_inputs: dict[str, tuple[str, ...]] = policy["inputs"]
        self.policy_initiators: tuple[str, ...] = policy["initiators"]
        self.policy_commands: tuple[str, ...] = policy["commands"]
        self.policy_aggregators: tuple[str, ...] = policy["aggregators"]
        self.policy_network: tuple[str, ...] = policy["network"]
        self.policy_writable: tuple[str, ...] = policy["writable"]
        self.inputs: dict[str, dict[str, Any]] = dict(values["inputs"])
        self.plugins: dict[str, dict[str, Any]] = dict(values["plugins"])
        self._values = values

    def problem(self, path: tuple[str, ...], detail: str, hint: str) -> Problem:
        """Something wrong with the key at `path` that only the rooms above can know."""
        return _problem(self.path or "defaults", self._lines, path, detail, hint)

    def changes(self, new: Config) -> tuple[list[str], list[str]]:
        """Keys whose values differ in `new`: those a reload applies, and those that need a restart."""
        live: list[str] = []
        restart: list[str] = []
        for key in KEYS:
            if "." not in key.section and key.kind != "planned":
                old_value = self._values[key.section][key.name]
                if old_value != new._values[key.section][key.name]:
                    (live if key.live else restart).append(f"{key.section}.{key.name}")
        for section, target in (("inputs", live), ("plugins", restart)):
            old_table, new_table = self._values[section], new._values[section]
            names = sorted(old_table.keys() | new_table.keys())
            target += [f"{section}.{name}" for name in names if old_table.get(name) != new_table.get(name)]
        return live, restart


def load(path: str | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read `path` (None: defaults alone) and lay the command line's `overrides` over its `[node]` section.

    `overrides` may hold `name`, `listen` and `connect`; None and empty lists change nothing, `connect` is
    added to the file's. Raises BadConfig with every problem found.
    """
    problems: list[Problem] = []
    document: dict[str, Any] = {}
    lines: dict[tuple[str, ...], int] = {}
    if path is not None:
        text = _read(path)
        document = _parse(path, text)
        lines = key_lines(text)
    reader = _Reader(path or "defaults", lines, problems)
    values = reader.read(document, os.path.dirname(os.path.abspath(path)) if path else os.getcwd())
    _override(values["node"], overrides or {}, problems)
    if problems:
        raise BadConfig(sorted(problems, key=lambda problem: (problem.line, problem.key)))
    inputs = {keys: line for keys, line in lines.items() if keys[0] == "inputs"}
    return Config(path, values, inputs)


def default_name() -> str:
    """The host's name without its domain."""
    return socket.gethostname().split(".")[0][:63] or "node"


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            detail = f"is larger than {MAX_CONFIG_BYTES} bytes"
            raise BadConfig([Problem(path, "", 0, detail, "is it the right file?")])
        return data.decode("utf-8")
    except OSError as error:
        detail = f"cannot be read: {error.strerror}"
        raise BadConfig([Problem(path, "", 0, detail, "check --config and the file's mode")]) from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadConfig([Problem(path, "", line, "is not UTF-8 text", "save it as UTF-8")]) from error


def _parse(path: str, text: str) -> dict[str, Any]:
    import tomllib  # here, because a daemon without a file never needs it

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = re.search(r"\(at line (\d+), column \d+\)", str(error))
        detail = re.sub(r"\s*\(at .*\)$", "", str(error))
        line = int(found[1]) if found else len(text.splitlines()) or 1
        problem = Problem(path, "", line, f"not TOML: {detail}", "see https://toml.io/en/v1.0.0")
        raise BadConfig([problem]) from error


def _override(node: dict[str, Any], overrides: Mapping[str, Any], problems: list[Problem]) -> None:
    by_name = {key.name: key for key in KEYS if key.section == "node"}
    for name, value in overrides.items():
        if value is None or value == [] or value == ():
            continue
        try:
            checked = _check(by_name[name], value)
        except ValueError as error:
            problems.append(Problem("command line", f"--{name}", 0, str(error), _hint_for(by_name[name])))
            continue
        node[name] = (*node[name], *checked) if name == "connect" else checked


class _Reader:
    """Walks a parsed document along `KEYS` and collects values and problems."""

    def __init__(self, file: str, lines: Mapping[tuple[str, ...], int], problems: list[Problem]) -> None:
        self._file = file
        self._lines = lines
        self._problems = problems

    def read(self, document: Mapping[str, Any], directory: str) -> dict[str, dict[str, Any]]:
        sections = {key.section for key in KEYS}
        known = sorted({section.split(".")[0] for section in sections})
        values: dict[str, dict[str, Any]] = {
            section: {key.name: key.default for key in KEYS if key.section == section}
            for section in sections
            if "." not in section
        }
        values["inputs"], values["plugins"] = {}, {}
        for name, table in document.items():
            if name not in known:
                detail, hint = _unknown("table" if isinstance(table, dict) else "key", name, known)
                owners = [key.section for key in KEYS if key.name == name]
                self._report((name,), detail, f"write it below [{owners[0]}]" if owners else hint)
            elif not isinstance(table, dict):
                self._report((name,), "is a table", f"write [{name}] and its keys below it")
            elif name == "inputs":
                values["inputs"] = self._read_inputs(table, directory)
            elif name == "plugins":
                values["plugins"] = self._read_plugins(table)
            else:
                self._read_section((name,), name, table, values.get(name, {}))
        values["policy"]["writable"] = tuple(_path(directory, each) for each in values["policy"]["writable"])
        return values

    def _read_section(
        self, path: tuple[str, ...], section: str, table: Mapping[str, Any], into: dict[str, Any]
    ) -> None:
        keys = {key.name: key for key in KEYS if key.section == section}
        for name, value in table.items():
            if name not in keys:
                self._report((*path, name), *_unknown("key", name, sorted(keys)))
                continue
            try:
                into[name] = _check(keys[name], value)
            except ValueError as error:
                self._report((*path, name), str(error), _hint_for(keys[name]))

    def _read_inputs(self, table: Mapping[str, Any], directory: str) -> dict[str, dict[str, Any]]:
        inputs: dict[str, dict[str, Any]] = {}
        for name, given in table.items():
            path = ("inputs", name)
            if not INPUT_NAME.fullmatch(name):
                self._report(path, "is no name for an input", "use letters, digits, _ . and -, at most 64")
                continue
            if not isinstance(given, dict):
                self._report(path, "is a table", f"write [inputs.{name}] and value = {given!r} below it")
                continue
            found: dict[str, Any] = {}
            before = len(self._problems)
            if "learner" in given:
                given, found["options"] = self._read_options(path, given)
            self._read_section(path, "inputs.NAME", given, found)
            if len(self._problems) > before:
                continue
            sources = [source for source in INPUT_SOURCES if source in found]
            if len(sources) > 1 or not (sources or "learner" in found):
                what = " and ".join(sources) if sources else "none"
                self._report(
                    path, f"needs exactly one source, has {what}", "give one of value, file, command"
                )
                continue
            if "file" in found:
                found["file"] = _path(directory, found["file"])
            inputs[name] = found
        return inputs

    def _read_options(
        self, path: tuple[str, ...], given: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the keys that all inputs have, the learner's options); of these only the types are checked."""
        known = {key.name for key in KEYS if key.section == "inputs.NAME"}
        options = {name: value for name, value in given.items() if name not in known}
        for name, value in options.items():
            if not isinstance(value, bool | int | float | str):
                self._report(
                    (*path, name), f"is {value!r:.40}", "an option is a number, a text, true or false"
                )
            elif isinstance(value, float) and not math.isfinite(value):
                self._report((*path, name), f"is {value}", "an option is a finite number")
        return {name: value for name, value in given.items() if name in known}, options

    def _read_plugins(self, table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        plugins: dict[str, dict[str, Any]] = {}
        for name, given in table.items():
            if isinstance(given, dict):
                plugins[name] = given
            else:
                self._report(("plugins", name), "is a table", f"write [plugins.{name}] and its keys below it")
        return plugins

    def _report(self, path: tuple[str, ...], detail: str, hint: str) -> None:
        self._problems.append(_problem(self._file, self._lines, path, detail, hint))


def _problem(
    file: str, lines: Mapping[tuple[str, ...], int], path: tuple[str, ...], detail: str, hint: str
) -> Problem:
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 0)
    return Problem(file, ".".join(path), line, detail, hint)


def _unknown(what: str, name: str, known: Sequence[str]) -> tuple[str, str]:
    near = nearest(name, known)
    hint = f"did you mean {near}?" if near else f"known are {', '.join(known) or 'none yet'}"
    return f"unknown {what}", hint


def _check(key: Key, value: Any) -> Any:
    """The value in its final type. Raises ValueError with what is wrong."""
    match key.kind:
        case "text":
            return _text(value)
        case "choice":
            if value not in key.choices:
                raise ValueError(f"is {value!r}")
            return value
        case "count" | "seconds":
            return _bounded(key, _number(value, whole=key.kind == "count"))
        case "flag":
            return _flag(value)
        case "texts":
            return tuple(_text(item) for item in _list(value))
        case "addresses" | "peer_addresses":
            return tuple(_address(item, key) for item in _list(value))
        case "peer_ids":
            return tuple(_peer_id(item) for item in _list(value))
        case "table":
            if not isinstance(value, dict):
                raise ValueError("is a table")
            return {name: tuple(_text(item) for item in _list(items)) for name, items in value.items()}
        case "planned":
            if value == key.default:
                return value
            raise ValueError("is not available in this version of fedd")
        case _:
            return value


def _path(directory: str, path: str) -> str:
    """A path of a file in `directory`, absolute."""
    return os.path.join(directory, os.path.expanduser(path))


def _hint_for(key: Key) -> str:
    if key.kind == "choice":
        return f"choose one of {', '.join(key.choices)}"
    if key.kind in ("count", "seconds"):
        return f"between {key.low:g} and {key.high:g}; the default is {key.default:g}"
    if key.kind == "planned":
        return "remove it"
    if key.kind == "peer_addresses":
        return "for example /ip4/192.0.2.7/tcp/4747/p2p/12D3KooW..."
    if key.kind == "peer_ids":
        return "peer ids look like 12D3KooW... ; `fedctl status` shows that of its device"
    if key.kind == "addresses":
        return "for example /ip4/0.0.0.0/tcp/4747"
    return key.help


def _number(value: Any, *, whole: bool) -> float:
    good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not good or not math.isfinite(value):
        raise ValueError(f"is {value!r}, not a {'whole number' if whole else 'number of seconds'}")
    return value if whole else float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"is {value!r}, neither true nor false")
    return value


def _bounded(key: Key, value: float) -> float:
    if not key.low <= value <= key.high:
        raise ValueError(f"is {value:g}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"is {value!r}, not a text")
    if any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise ValueError("holds control characters")
    return value


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"is {value!r}, not a list")
    return value


def _peer_id(value: Any) -> str:
    from fedd.core.identity import parse_peer_id  # here, because the table of keys is read without it too

    try:
        return parse_peer_id(_text(value))
    except InvalidParameter as error:
        raise ValueError(error.detail) from error


def _address(value: Any, key: Key) -> str:
    from fedd.net.transport import parse_multiaddr  # here, because the table of keys is read without trio too

    try:
        address = parse_multiaddr(_text(value))
    except InvalidParameter as error:
        raise ValueError(error.detail) from error
    if key.name == "listen" and address.is_name:
        raise ValueError(f"{value!r} holds a name, and a listener needs a numeric address")
    if key.kind == "peer_addresses" and address.peer_id is None:
        raise ValueError(f"{value!r} does not end in /p2p/ and the peer's id")
    return str(address)
