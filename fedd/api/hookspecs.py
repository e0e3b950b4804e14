"""The hooks that a plugin may implement, all on this page.

A plugin is a module (or object) named by an entry point of the group `fedd`. Hooks are called when
plugins are loaded, to register what there is; never per message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from fedd.api.aggregator import Aggregator
    from fedd.api.algorithm import Algorithm
    from fedd.api.command import Command, Notice
    from fedd.api.learner import Learner

PROJECT_NAME = "fedd"
"""pluggy's project name and the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


@hookspec
def fedd_register_algorithms() -> list[type[Algorithm]]:  # type: ignore[empty-body]
    """Return the algorithm classes of this plugin."""


@hookspec
def fedd_register_commands() -> list[type[Command] | type[Notice]]:  # type: ignore[empty-body]
    """Return the command classes of this plugin, notices among them."""


@hookspec
def fedd_register_aggregators() -> list[type[Aggregator]]:  # type: ignore[empty-body]
    """Return the aggregator classes of this plugin."""


@hookspec
def fedd_register_learners() -> list[type[Learner]]:  # type: ignore[empty-body]
    """Return the learner classes of this plugin."""
