"""What plugins there are and what they offer, as told by a short-lived inspector process.

The daemon itself imports no plugin: a plugin that crashes, leaks or hangs on import costs nobody a link.
The inspector runs once after the daemon is ready, and again on reload; nothing is cached on disk, because a
plugin under development changes without changing its version.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import trio

from fedd.api.errors import InvalidParameter, NotFound, PluginFailed
from fedd.core.command_events import check_said
from fedd.core.dataclass import dataclass
from fedd.core.nearest import nearest
from fedd.core.run_terms import SURVIVORS
from fedd.core.run_terms import Parameter as ParameterValue
from fedd.host.plugin_schema import (
    AggregatorInfo,
    AlgorithmInfo,
    CommandInfo,
    LearnerInfo,
    Parameter,
    check_known,
    convert,
)
from fedd.host.policy import BUNDLED_DISTRIBUTION, Policy

log = logging.getLogger("fedd.host")

INSPECT_TIMEOUT_S = 120.0
"""The inspector gives each plugin 10 s to import; beyond a dozen hanging ones something else is wrong."""

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024

MAX_COMMAND_BYTES = 16 * 1024 * 1024
"""Of a command's parameters and of its answer, whatever a plugin declares."""

MAX_COMMAND_TIMEOUT_S = 30.0
"""Of a command's handler, whatever a plugin declares."""

_FORMAT = 1
_Info = TypeVar("_Info", AlgorithmInfo, CommandInfo, LearnerInfo, AggregatorInfo)


@dataclass(frozen=True)
class PluginInfo:
    """An entry point of the group `fedd`; `error` says why it failed to load, None when it did not."""

    name: str
    distribution: str
    version: str
    error: str | None
    algorithms: tuple[str, ...] = ()
    allowed: bool = True
    commands: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()
    aggregators: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """As `fedctl plugins --json` shows it."""
        shown = {
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "algorithms": list(self.algorithms),
            "commands": list(self.commands),
            "learners": list(self.learners),
            "aggregators": list(self.aggregators),
            "allowed": self.allowed,
        }
        return shown if self.error is None else {**shown, "error": self.error}


async def run_inspector(walls: Sequence[str] = ()) -> bytes:
    """What `python -I -m fedd.worker inspect` prints within `walls` (`Policy.walls`).

    Raises PluginFailed when it does not end well.
    """
    command = [sys.executable, "-I", "-m", "fedd.worker", *walls, "inspect"]
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
    """Plugins and what they offer, by name. Empty until `load` has run once; `ready` waits for that.

    `hidden` are the directories of the daemon's own files, which no plugin may open. `confinement` is what
    the inspector could give up ({"landlock", "seccomp", "open"}), None while that is not known.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        inspector: Callable[[], Awaitable[bytes]] | None = None,
        hidden: Sequence[str] = (),
    ) -> None:
        self.policy = policy or Policy()
        self.confinement: dict[str, Any] | None = None
        self._hidden = tuple(hidden)
        self._inspector = inspector or (lambda: run_inspector(self.walls(())))
        self._plugins: list[PluginInfo] = []
        self._algorithms: dict[str, AlgorithmInfo] = {}
        self._commands: dict[str, CommandInfo] = {}
        self._learners: dict[str, LearnerInfo] = {}
        self._aggregators: dict[str, AggregatorInfo] = {}
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

    def walls(self, plugins: Iterable[str]) -> tuple[str, ...]:
        """What a process that is started for these plugins must give up (`Policy.walls`)."""
        return self.policy.walls(self._hidden, plugins)

    def command_walls(self) -> tuple[str, ...]:
        """The same for the process of all plugins' commands."""
        return self.walls(plugin.name for plugin in self.plugins() if plugin.commands)

    @property
    def is_ready(self) -> bool:
        """Whether the inspector has answered or failed."""
        return self._ready.is_set()

    async def ready(self) -> None:
        """Return when the inspector has answered or failed."""
        if not self._ready.is_set():  # a command asks at each message
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
        found = self._algorithms.get(name)
        if found is None:
            raise self._unknown("algorithm", name, self._algorithms)
        return found

    def commands(self) -> list[CommandInfo]:
        """All commands, sorted by name, those that the policy does not allow included."""
        return [self.command(name) for name in sorted(self._commands)]

    def command(self, name: str) -> CommandInfo:
        """The command of that name. Raises NotFound as `algorithm` does."""
        found = self._commands.get(name)
        if found is None:
            raise self._unknown("command", name, self._commands)
        allowed = self.policy.allows_command(name, found.plugin, found.distribution)
        return found if allowed == found.allowed else replace(found, allowed=allowed)

    def has_command(self, name: str) -> bool:
        """Whether there is a command of that name."""
        return name in self._commands

    def learners(self) -> list[LearnerInfo]:
        """All learners, sorted by name."""
        return [self._learners[name] for name in sorted(self._learners)]

    def learner(self, name: str) -> LearnerInfo:
        """The learner of that name. Raises NotFound as `algorithm` does."""
        found = self._learners.get(name)
        if found is None:
            raise self._unknown("learner", name, self._learners)
        return found

    def check_options(self, learner: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The learner's options that are given, typed. Errors as `check_parameters`."""
        known = {parameter.name: parameter for parameter in self.learner(learner).parameters}
        check_known(learner, known, given, "option")
        return {key: convert(known[key], value) for key, value in given.items()}

    def aggregators(self) -> list[AggregatorInfo]:
        """All aggregators, sorted by name, those that the policy does not allow included."""
        return [self.aggregator(name) for name in sorted(self._aggregators)]

    def aggregator(self, name: str) -> AggregatorInfo:
        """The aggregator of that name. Raises NotFound as `algorithm` does."""
        found = self._aggregators.get(name)
        if found is None:
            raise self._unknown("aggregator", name, self._aggregators)
        return replace(found, allowed=self.policy.allows_aggregator(name, found.plugin, found.distribution))

    def allowed_aggregators(self) -> dict[str, str]:
        """{name: plugin} of the aggregators that the policy allows."""
        return {each.name: each.plugin for each in self.aggregators() if each.allowed}

    def check_parameters(self, name: str, given: Mapping[str, Any]) -> dict[str, ParameterValue]:
        """All of the algorithm's parameters, typed: `given` (texts are converted), else the defaults.

        Raises NotFound for the algorithm, InvalidParameter (field: the parameter) for anything given that
        does not fit. What only the algorithm can judge (`__post_init__`) its worker checks later.
        """
        known = {parameter.name: parameter for parameter in self.algorithm(name).parameters}
        check_known(name, known, given)
        return {
            key: convert(parameter, given[key]) if key in given else parameter.default
            for key, parameter in known.items()
        }

    def _unknown(self, kind: str, name: str, known: Collection[str]) -> NotFound:
        if self._error:
            return NotFound(f"there is no {kind} {name!r:.80}: {self._error}", field=kind)
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(known)) or 'none'}"
        failed = [plugin.name for plugin in self._plugins if plugin.error]
        if failed:
            hint += f"; failed to load: {', '.join(failed)} (see fedctl plugins)"
        return NotFound(f"there is no {kind} {name!r:.80} here", hint=hint, field=kind)

    def _judge(self, plugin: PluginInfo) -> PluginInfo:
        listed = {plugin.name, *plugin.algorithms} & set(self.policy.algorithms)
        listed |= {plugin.name, *plugin.commands} & set(self.policy.commands)
        listed |= {plugin.name, *plugin.aggregators} & set(self.policy.aggregators)
        # A learner is allowed by the input that names it: nobody else can.
        harmless = bool(plugin.learners) and not (plugin.algorithms or plugin.commands or plugin.aggregators)
        allowed = plugin.distribution == BUNDLED_DISTRIBUTION or bool(listed) or harmless
        return replace(plugin, allowed=allowed)

    def _take(self, document: Any) -> None:
        if document["format"] != _FORMAT:
            raise ValueError(f"format {document['format']!r}")
        plugins: list[PluginInfo] = []
        algorithms: dict[str, AlgorithmInfo] = {}
        commands: dict[str, CommandInfo] = {}
        learners: dict[str, LearnerInfo] = {}
        aggregators: dict[str, AggregatorInfo] = {}
        # the bundled ones first: no stranger's plugin takes their names
        found = sorted(
            document["plugins"], key=lambda raw: (raw["distribution"] != BUNDLED_DISTRIBUTION, raw["name"])
        )
        for raw in found:
            origin = (str(raw["name"]), str(raw["distribution"]), str(raw["version"]))
            claims = (
                _claim(
                    "algorithm", [_algorithm(each, *origin) for each in _raw(raw, "algorithms")], algorithms
                ),
                _claim("command", [_command(each, *origin) for each in _raw(raw, "commands")], commands),
                _claim("learner", [_learner(each, *origin) for each in _raw(raw, "learners")], learners),
                _claim(
                    "aggregator",
                    [_aggregator(each, *origin) for each in _raw(raw, "aggregators")],
                    aggregators,
                ),
            )
            error = next((rival for _, rival in claims if rival), raw.get("error"))
            kept = [names for names, _ in claims]
            plugins.append(
                PluginInfo(
                    *origin,
                    None if error is None else str(error),
                    kept[0],
                    commands=kept[1],
                    learners=kept[2],
                    aggregators=kept[3],
                )
            )
        self._note_confinement(document.get("confinement"))
        self._plugins = sorted(plugins, key=lambda plugin: plugin.name)
        self._algorithms = algorithms
        self._commands = commands
        self._learners = learners
        self._aggregators = aggregators

    def _note_confinement(self, said: Any) -> None:
        """Keep it, and say once what the kernel lacks."""
        if said and said["open"] and said != self.confinement:
            log.warning("plugins are not kept from %s: see fedctl status", ", ".join(said["open"]))
        self.confinement = said


def check_command_parameters(command: CommandInfo, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, typed (texts are converted). The handler's own class fills in the defaults.

    Raises InvalidParameter (field: the parameter) for anything given that does not fit, and for what is
    required and missing.
    """
    known = {parameter.name: parameter for parameter in command.parameters}
    check_known(command.name, known, given)
    for parameter in command.parameters:
        if parameter.required and parameter.name not in given:
            raise InvalidParameter(
                f"{command.name} needs {parameter.name}",
                hint=parameter.help or f"write {parameter.name}=...",
                field=parameter.name,
            )
    typed = {key: convert(known[key], value) for key, value in given.items()}
    if said := command.event_text:
        check_said(said, typed.get(said, known[said].default))
    return typed


def _claim(kind: str, offered: list[_Info], taken: dict[str, _Info]) -> tuple[tuple[str, ...], str | None]:
    """Enter what is offered under its name; the names got, and why another was not."""
    names: list[str] = []
    error: str | None = None
    for each in offered:
        rival = taken.setdefault(each.name, each)
        if rival is each:
            names.append(each.name)
        else:
            error = f"its {kind} {each.name!r} is already offered by the plugin {rival.plugin!r}"
    return tuple(names), error


def _raw(plugin: Mapping[str, Any], kinds: str) -> list[Mapping[str, Any]]:
    return list(plugin.get(kinds) or [])


def _learner(raw: Mapping[str, Any], plugin: str, distribution: str, version: str) -> LearnerInfo:
    doc, parameters = str(raw.get("doc") or ""), _parameters(raw)
    abilities = tuple(map(str, raw.get("abilities") or ()))
    return LearnerInfo(str(raw["name"]), plugin, distribution, version, doc, parameters, abilities)


def _aggregator(raw: Mapping[str, Any], plugin: str, distribution: str, version: str) -> AggregatorInfo:
    doc, parameters = str(raw.get("doc") or ""), _parameters(raw)
    return AggregatorInfo(
        str(raw["name"]), plugin, distribution, version, doc, parameters, bool(raw.get("mean"))
    )


def _algorithm(raw: Mapping[str, Any], plugin: str, distribution: str, version: str) -> AlgorithmInfo:
    return AlgorithmInfo(
        str(raw["name"]),
        plugin,
        distribution,
        version,
        str(raw.get("doc") or ""),
        _parameters(raw),
        contract=str(raw.get("contract") or SURVIVORS),
        joinable=bool(raw.get("joinable")),
        topology=str(raw.get("topology") or ""),
        contracts={str(written): str(contract) for written, contract in (raw.get("contracts") or {}).items()},
    )


def _command(raw: Mapping[str, Any], plugin: str, distribution: str, version: str) -> CommandInfo:
    parameters, event_text = _parameters(raw), str(raw.get("event_text") or "")
    texts = [
        each.name
        for each in parameters
        if each.type == "str" and (each.required or isinstance(each.default, str))
    ]
    if event_text and event_text not in texts:
        raise ValueError(f"the event_text {event_text!r:.80} of {raw['name']!r:.80} is no text of it")
    return CommandInfo(
        str(raw["name"]),
        plugin,
        distribution,
        version,
        str(raw.get("doc") or ""),
        parameters,
        command_version=str(raw["version"]),
        audience=str(raw["audience"]),
        max_payload_bytes=min(int(raw["max_payload_bytes"]), MAX_COMMAND_BYTES),
        timeout_s=min(float(raw["timeout_s"]), MAX_COMMAND_TIMEOUT_S),
        event_text=event_text,
    )


def _parameters(raw: Mapping[str, Any]) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(
            str(field["name"]),
            str(field["type"]),
            field["default"],
            str(field.get("help") or ""),
            None if field.get("choices") is None else tuple(map(str, field["choices"])),
            bool(field.get("required")),
            None if field.get("max_chars") is None else int(field["max_chars"]),
        )
        for field in raw.get("parameters") or []
    )
