"""What commands leave in this node's event log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fedd.api.types import PeerId
from fedd.core.command_events import MAX_EVENT_FIELDS, RESERVED_FIELDS
from fedd.host.plugin_schema import CommandInfo

if TYPE_CHECKING:
    from fedd.net.events import EventLog

log = logging.getLogger("fedd.host")


class CommandLog:
    """Writes what handlers and notices say, and what became of broadcasts that were not handled.

    `name_of` gives a member's name, or what else to call it.
    """

    def __init__(self, events: EventLog, name_of: Callable[[PeerId], str]) -> None:
        self._events = events
        self._name_of = name_of
        self._last_failure = ""

    def write(self, info: CommandInfo, sender: PeerId, text: str, fields: Mapping[str, Any]) -> None:
        """An event of a command. What is no plain value or has a name of the log's own is left out."""
        plain = {
            key: value
            for key, value in fields.items()
            if isinstance(value, bool | int | float | str) and key not in RESERVED_FIELDS
        }
        self._events.publish(
            "command",
            command=info.name,
            plugin=info.plugin,
            peer_id=sender,
            name=self._name_of(sender),
            text=text,
            **dict(list(plain.items())[:MAX_EVENT_FIELDS]),
        )

    def write_notice(self, info: CommandInfo, sender: PeerId, typed: Mapping[str, Any]) -> None:
        """Do what a notice asks for: its parameters, checked, become an event."""
        fields = {each.name: typed.get(each.name, each.default) for each in info.parameters}
        self.write(info, sender, fields.pop(info.event_text), fields)

    def not_handled(self, command: str, origin: PeerId, error: str) -> None:
        """A broadcast that was not handled becomes an event; the same one again and again a single one."""
        failure = f"{origin} {command} {error}"
        if failure != self._last_failure:
            self._last_failure = failure
            name = self._name_of(origin)
            log.info("a broadcast of %s was not handled: %s", name, error)
            self._events.publish(
                "command", command=command[:80] or None, peer_id=origin, name=name, error=error
            )

    def trouble(self, plugin: str, error: str) -> None:
        """A plugin cost the plugin host its life."""
        self._events.publish("plugin", name=plugin, error=error)
