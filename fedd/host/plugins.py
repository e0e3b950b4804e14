"""What plugins there are and what they offer, as told by a short-lived inspector process.

The daemon itself imports no plugin: a plugin that crashes, leaks or hangs on import costs nobody a link.
The inspector runs once after the daemon is ready, and again on reload; nothing is cached on disk, because a
plugin under development changes without changing its version.
"""

from __future__ import annotations

import difflib
import json
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import trio

from fedd.api.errors import InvalidParameter, NotFound, PluginFailed
from fedd.core.manifest import Parameter as ParameterValue
from fedd.host.policy import BUNDLED_DISTRIBUTION, Policy

log = logging.getLogger("fedd.host")

INSPECT_TIMEOUT_S = 120.0
"""The inspector gives each plugin 10 s to import; beyond a dozen hanging ones something else is wrong."""

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024

_FORMAT = 1
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
    """One field of an algorithm's dataclass; `type` is bool, int, float or str."""

    name: str
    type: str
    default: ParameterValue
    help: str
    choices: tuple[str, ...] | None


@dataclass(frozen=True)
class AlgorithmInfo:
    """An algorithm that can be run here. `plugin` is its entry point's name."""

    name: str
    plugin: str
    distribution: str
    version: str
    doc: str
    parameters: tuple[Parameter, ...]

    def describe(self) -> dict[str, Any]:
        """As `fedctl algorithms --json` shows it."""
        parameters = [
            {**parameter._asdict(), "choices": list(parameter.choices)}
            if parameter.choices
            else {key: value for key, value in parameter._asdict().items() if key != "choices"}
            for parameter in self.parameters
        ]
        return {
            "name": self.name,
            "plugin": self.plugin,
            "distribution": self.distribution,
            "version": self.version,
            "doc": self.doc,
            "parameters": parameters,
        }


@dataclass(frozen=True)
class PluginInfo:
    """An entry point of the group `fedd`; `error` says why it failed to load, None when it did not."""

    name: str
    distribution: str
    version: str
    error: str | None
    algorithms: tuple[str, ...] = ()
    allowed: bool = True

    def describe(self) -> dict[str, Any]:
        """As `fedctl plugins --json` shows it."""
        shown = {
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "algorithms": list(self.algorithms),
            "allowed": self.allowed,
        }
        return shown if self.error is None else {**shown, "error": self.error}


async def run_inspector() -> bytes:
    """What `python -I -m fedd.worker inspect` prints. Raises PluginFailed when it does not end well."""
    command = [sys.executable, "-I", "-m", "fedd.worker", "inspect"]
    try:
        with trio.fail_after(INSPECT_TIMEOUT_S):
            done = await trio.run_process(
                command,
                capture_stdout=True,
                capture_stderr=True,
                stdin=subprocess.DEVNULL,
                check=False,
                env={},
            )
    except trio.TooSlowError as error:
        raise PluginFailed(f"the plugin inspector did not end within {INSPECT_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise PluginFailed(f"the plugin inspector cannot be started: {error.strerror}") from error
    if done.stderr:
        log.info("the plugin inspector said: %s", done.stderr[-1000:].decode("utf-8", "backslashreplace"))
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise PluginFailed(f"the plugin inspector ended with status {done.returncode}: {last[0][:300]}")
    if len(done.stdout) > MAX_DOCUMENT_BYTES:
        raise PluginFailed(f"the plugin inspector said more than {MAX_DOCUMENT_BYTES} bytes")
    return bytes(done.stdout)


class PluginRegistry:
    """Plugins and algorithms by name. Empty until `load` has run once; `ready` waits for that."""

    def __init__(
        self, policy: Policy | None = None, inspector: Callable[[], Awaitable[bytes]] = run_inspector
    ) -> None:
        self.policy = policy or Policy()
        self._inspector = inspector
        self._plugins: list[PluginInfo] = []
        self._algorithms: dict[str, AlgorithmInfo] = {}
        self._error: str | None = None
        self._ready = trio.Event()

    async def load(self) -> None:
        """Ask the inspector what exists. Raises no FeddError: what failed is in `plugins()` and the log."""
        try:
            self._take(json.loads(await self._inspector()))
            self._error = None
        except PluginFailed as error:
            self._error = error.detail
        except (ValueError, KeyError, TypeError) as error:
            self._error = f"the plugin inspector's answer is malformed: {error!r:.200}"
        if self._error:
            log.error("%s", self._error)
        self._ready.set()

    async def ready(self) -> None:
        """Return when the inspector has answered or failed."""
        await self._ready.wait()

    def plugins(self) -> list[PluginInfo]:
        """All plugins, sorted by name, those that failed included."""
        found = (
            [] if self._error is None else [PluginInfo("inspector", BUNDLED_DISTRIBUTION, "", self._error)]
        )
        return found + [self._judge(plugin) for plugin in self._plugins]

    def algorithms(self) -> list[AlgorithmInfo]:
        """All algorithms, sorted by name."""
        return [self._algorithms[name] for name in sorted(self._algorithms)]

    def algorithm(self, name: str) -> AlgorithmInfo:
        """The algorithm of that name. Raises NotFound naming the nearest, or why its plugin is missing."""
        if name in self._algorithms:
            return self._algorithms[name]
        if self._error:
            raise NotFound(f"there is no algorithm {name!r}: {self._error}", field="algorithm")
        near = difflib.get_close_matches(name, self._algorithms, n=1)
        hint = (
            f"did you mean {near[0]!r}?"
            if near
            else f"there are {', '.join(sorted(self._algorithms)) or 'none'}"
        )
        failed = [plugin.name for plugin in self._plugins if plugin.error]
        if failed:
            hint += f"; failed to load: {', '.join(failed)} (see fedctl plugins)"
        raise NotFound(f"there is no algorithm {name!r} here", hint=hint, field="algorithm")

    def check_parameters(self, name: str, given: Mapping[str, Any]) -> dict[str, ParameterValue]:
        """All of the algorithm's parameters, typed: `given` (texts are converted), else the defaults.

        Raises NotFound for the algorithm, InvalidParameter (field: the parameter) for anything given that
        does not fit. What only the algorithm can judge (`__post_init__`) its worker checks later.
        """
        algorithm = self.algorithm(name)
        known = {parameter.name: parameter for parameter in algorithm.parameters}
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
                raise InvalidParameter(f"{name} has no parameter {key!r}", hint=hint, field=key)
        return {
            key: convert(parameter, given[key]) if key in given else parameter.default
            for key, parameter in known.items()
        }

    def _judge(self, plugin: PluginInfo) -> PluginInfo:
        listed = {plugin.name, *plugin.algorithms} & set(self.policy.algorithms)
        allowed = plugin.distribution == BUNDLED_DISTRIBUTION or bool(listed)
        return PluginInfo(
            plugin.name, plugin.distribution, plugin.version, plugin.error, plugin.algorithms, allowed
        )

    def _take(self, document: Any) -> None:
        if document["format"] != _FORMAT:
            raise ValueError(f"format {document['format']!r}")
        plugins: list[PluginInfo] = []
        algorithms: dict[str, AlgorithmInfo] = {}
        # the bundled ones first: no stranger's plugin takes their algorithms' names
        found = sorted(
            document["plugins"], key=lambda raw: (raw["distribution"] != BUNDLED_DISTRIBUTION, raw["name"])
        )
        for raw in found:
            origin = (str(raw["name"]), str(raw["distribution"]), str(raw["version"]))
            error = raw.get("error")
            names: list[str] = []
            for offered in raw.get("algorithms") or []:
                algorithm = _algorithm(offered, *origin)
                rival = algorithms.setdefault(algorithm.name, algorithm)
                names.append(algorithm.name)
                if rival is not algorithm:
                    names.pop()
                    error = (
                        f"its algorithm {algorithm.name!r} is already offered by the plugin {rival.plugin!r}"
                    )
            plugins.append(PluginInfo(*origin, None if error is None else str(error), tuple(names)))
        self._plugins = sorted(plugins, key=lambda plugin: plugin.name)
        self._algorithms = algorithms


def convert(parameter: Parameter, value: Any) -> ParameterValue:
    """`value` (a text, or a JSON value) as the parameter's type. Raises InvalidParameter."""
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
    return typed


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


def _algorithm(raw: Mapping[str, Any], plugin: str, distribution: str, version: str) -> AlgorithmInfo:
    parameters = tuple(
        Parameter(
            str(field["name"]),
            str(field["type"]),
            field["default"],
            str(field.get("help") or ""),
            None if field.get("choices") is None else tuple(map(str, field["choices"])),
        )
        for field in raw.get("parameters") or []
    )
    return AlgorithmInfo(
        str(raw["name"]), plugin, distribution, version, str(raw.get("doc") or ""), parameters
    )
