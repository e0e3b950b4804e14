"""Plugins in this process: entry points of the group `fedd`, each asked by pluggy what it brings."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pluggy

from fedd.api import hookspecs
from fedd.api.errors import NotFound, PluginFailed
from fedd.core.nearest import nearest

GROUP = hookspecs.PROJECT_NAME
BUNDLED_DISTRIBUTION = "fedd"
"""Whose wheel brings the bundled plugins."""
MAX_ALGORITHMS = 256
MAX_COMMANDS = 256
MAX_AGGREGATORS = 256
MAX_LEARNERS = 256
"""Of one plugin: a list for people to choose from."""


def entry_points() -> list[importlib.metadata.EntryPoint]:
    """All entry points of the group, sorted by name; those of one name in the order of the search path."""
    return sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name)


def load_algorithms(point: importlib.metadata.EntryPoint) -> list[type[Any]]:
    """Import a plugin and ask it for its algorithm classes.

    Whatever the import or the hook raises comes out as it is, SystemExit included; PluginFailed when the
    plugin implements a hook wrongly or returns something else than a list of classes.
    """
    return _registered(point, "algorithms", MAX_ALGORITHMS)


def load_commands(point: importlib.metadata.EntryPoint) -> list[type[Any]]:
    """Import a plugin and ask it for its command classes. Errors as `load_algorithms`."""
    return _registered(point, "commands", MAX_COMMANDS)


def load_aggregators(point: importlib.metadata.EntryPoint) -> list[type[Any]]:
    """Import a plugin and ask it for its aggregator classes. Errors as `load_algorithms`."""
    return _registered(point, "aggregators", MAX_AGGREGATORS)


def load_learners(point: importlib.metadata.EntryPoint) -> list[type[Any]]:
    """Import a plugin and ask it for its learner classes. Errors as `load_algorithms`."""
    return _registered(point, "learners", MAX_LEARNERS)


def _registered(point: importlib.metadata.EntryPoint, what: str, most: int) -> list[type[Any]]:
    plugin = point.load()
    manager = pluggy.PluginManager(hookspecs.PROJECT_NAME)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name=point.name)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginFailed(f"{point.value}: {error}") from None
    hook = f"fedd_register_{what}"
    found: list[type[Any]] = []
    for classes in getattr(manager.hook, hook)():
        if not isinstance(classes, list | tuple) or not all(isinstance(each, type) for each in classes):
            raise PluginFailed(f"{point.value}: {hook} must return a list of classes")
        found += classes
    if len(found) > most:
        raise PluginFailed(f"{point.value} registers {len(found)} {what}, more than {most}")
    return found


def find_algorithm(plugin: str, algorithm: str) -> type[Any]:
    """The class of an algorithm, importing its own plugin only.

    Raises NotFound when the plugin is not installed or has no such algorithm (any more).
    """
    return _find(plugin, "algorithm", algorithm, load_algorithms)


def find_command(plugin: str, command: str) -> type[Any]:
    """The class of a command, as `find_algorithm`."""
    return _find(plugin, "command", command, load_commands)


def find_learner(name: str, plugin: str | None = None) -> type[Any]:
    """The class of a learner: of that plugin, or of whichever has one of that name.

    Raises NotFound when there is none.
    """
    if plugin is None:
        return _find_anywhere("learner", name, load_learners)
    return _find(plugin, "learner", name, load_learners)


def find_aggregator(name: str, allowed: Mapping[str, str] | None = None) -> type[Any]:
    """The class of an aggregator: one of `allowed` ({name: plugin}), of any plugin where that is None.

    Raises NotFound when there is none.
    """
    if allowed is None:
        return _find_anywhere("aggregator", name, load_aggregators)
    if name not in allowed:
        near = nearest(name, allowed)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(sorted(allowed)) or 'none'}"
        raise NotFound(
            f"there is no aggregator {name!r:.80} here that the policy allows",
            hint=f"{hint}; fedctl aggregators lists them",
            field="aggregator",
        )
    return _find(allowed[name], "aggregator", name, load_aggregators)


def _find_anywhere(
    what: str, name: str, load: Callable[[importlib.metadata.EntryPoint], list[type[Any]]]
) -> type[Any]:
    """The bundled plugins are asked first: no stranger's takes their names, nor is imported for them."""
    known: list[str] = []
    failed: list[str] = []
    for point in sorted(entry_points(), key=lambda point: (not _is_bundled(point), point.name)):
        try:
            classes = load(point)
        except (Exception, SystemExit):  # its own affair: fedctl plugins says what is wrong with it
            failed.append(point.name)
            continue
        for candidate in classes:
            if getattr(candidate, "name", None) == name:
                return candidate
        known += [str(getattr(candidate, "name", "")) for candidate in classes]
    near = nearest(name, known)
    hint = f"did you mean {near}?" if near else f"there are {', '.join(sorted(known)) or 'none'}"
    if failed:
        hint += f"; failed to load: {', '.join(failed)}"
    raise NotFound(f"there is no {what} {name!r:.80} here", hint=hint, field=what)


def _is_bundled(point: importlib.metadata.EntryPoint) -> bool:
    return point.dist is not None and point.dist.name == BUNDLED_DISTRIBUTION


def _find(
    plugin: str, what: str, name: str, load: Callable[[importlib.metadata.EntryPoint], list[type[Any]]]
) -> type[Any]:
    for point in _named(plugin):
        for candidate in load(point):
            if getattr(candidate, "name", None) == name:
                return candidate
        raise NotFound(f"the plugin {plugin} has no {what} {name}", hint="was it updated? reload the daemon")
    raise NotFound(f"the plugin {plugin} is not installed", hint="was it removed? reload the daemon")


def _named(plugin: str) -> Iterator[importlib.metadata.EntryPoint]:
    yield from importlib.metadata.entry_points(group=GROUP, name=plugin)
