"""What is wrong with a configuration that only its plugins can tell."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from fedd.config import Config, Problem
from fedd.host.inputs import Inputs
from fedd.host.plugins import PluginRegistry


def learner_problems(config: Config, inputs: Inputs) -> list[Problem]:
    """Learners of `[inputs.NAME]` that there are not, and options that they have not, each with its line."""
    problems: list[Problem] = []
    for name, error in inputs.problems():
        path = ("inputs", name, error.field) if error.field else ("inputs", name)
        problems.append(config.problem(path, error.detail, error.hint))
    return problems


def check_learners(config: Config, hidden: Sequence[str]) -> list[Problem]:
    """The same without a daemon: the plugins are inspected once, a second long.

    They read nothing in the directories `hidden`.
    """
    registry = PluginRegistry(hidden=hidden)
    trio.run(registry.load)
    return learner_problems(config, Inputs(config.inputs, _NoConstants(), registry))


class _NoConstants:
    """A state directory without constants: a check touches none."""

    def read(self, name: str) -> bytes | None:
        """No constants."""
        return None

    def write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """A check sets nothing."""
