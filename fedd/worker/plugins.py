"""Plugins in this process: entry points of the group `fedd`, registered with pluggy, asked for algorithms."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from typing import Any

import pluggy

from fedd.api import hookspecs
from fedd.api.errors import NotFound, PluginFailed

GROUP = hookspecs.PROJECT_NAME
MAX_ALGORITHMS = 256
"""Of one plugin: a list for people to choose from."""


def entry_points() -> list[importlib.metadata.EntryPoint]:
    """All entry points of the group, sorted by name; those of one name in the order of the search path."""
    return sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name)


def load_algorithms(point: importlib.metadata.EntryPoint) -> list[type[Any]]:
    """Import a plugin and ask it for its algorithm classes.

    Whatever the import or the hook raises comes out as it is, SystemExit included; PluginFailed when the
    plugin implements a hook wrongly or returns something else than a list of classes.
    """
    plugin = point.load()
    manager = pluggy.PluginManager(hookspecs.PROJECT_NAME)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name=point.name)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginFailed(f"{point.value}: {error}") from None
    found: list[type[Any]] = []
    for algorithms in manager.hook.fedd_register_algorithms():
        if not isinstance(algorithms, list | tuple) or not all(isinstance(a, type) for a in algorithms):
            raise PluginFailed(f"{point.value}: fedd_register_algorithms must return a list of classes")
        found += algorithms
    if len(found) > MAX_ALGORITHMS:
        raise PluginFailed(f"{point.value} registers {len(found)} algorithms, more than {MAX_ALGORITHMS}")
    return found


def find_algorithm(plugin: str, algorithm: str) -> type[Any]:
    """The class of an algorithm, importing its own plugin only.

    Raises NotFound when the plugin is not installed or has no such algorithm (any more).
    """
    for point in _named(plugin):
        for candidate in load_algorithms(point):
            if getattr(candidate, "name", None) == algorithm:
                return candidate
        raise NotFound(
            f"the plugin {plugin} has no algorithm {algorithm}", hint="was it updated? reload the daemon"
        )
    raise NotFound(f"the plugin {plugin} is not installed", hint="was it removed? reload the daemon")


def _named(plugin: str) -> Iterator[importlib.metadata.EntryPoint]:
    yield from importlib.metadata.entry_points(group=GROUP, name=plugin)
