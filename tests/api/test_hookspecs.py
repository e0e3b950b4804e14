"""A module with a marked function is a plugin; pluggy finds it by our project name."""

from __future__ import annotations

import pluggy
import pytest

from fedd.api import hookimpl, hookspecs


class _Plugin:
    @hookimpl
    def fedd_register_algorithms(self) -> list[type]:
        return [int]

    @hookimpl
    def fedd_register_commands(self) -> list[type]:
        return [str]


def test_a_registered_plugin_is_asked_for_what_it_brings() -> None:
    manager = pluggy.PluginManager(hookspecs.PROJECT_NAME)
    manager.add_hookspecs(hookspecs)
    manager.register(_Plugin())
    assert manager.hook.fedd_register_algorithms() == [[int]]
    assert manager.hook.fedd_register_commands() == [[str]]


def test_a_misspelt_hook_is_refused() -> None:
    class Misspelt:
        @hookimpl
        def fedd_register_algorithm(self) -> list[type]:
            return []

    manager = pluggy.PluginManager(hookspecs.PROJECT_NAME)
    manager.add_hookspecs(hookspecs)
    manager.register(Misspelt())
    with pytest.raises(pluggy.PluginValidationError, match="fedd_register_algorithm"):
        manager.check_pending()
