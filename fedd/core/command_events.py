"""What a command may leave in the event log, written by its handler, or by the daemon for a notice."""

from __future__ import annotations

from typing import Final

from fedd.api.errors import InvalidParameter

MAX_EVENTS: Final = 16
"""Of one call: a handler that writes more would push everybody else's out of the log."""
MAX_EVENT_CHARS: Final = 512
"""Of an event's text and of each text among its fields: lines for people."""
MAX_EVENT_FIELDS: Final = 16
RESERVED_FIELDS: Final = frozenset(
    {"seq", "kind", "unix_s", "command", "plugin", "peer_id", "name", "text", "error"}
)
"""What the event log writes itself into a command's event."""


def check_length(name: str, text: str, max_chars: int) -> None:
    """Raise InvalidParameter, blaming `name`, for a text of more characters than its declaration allows."""
    if len(text) > max_chars:
        raise InvalidParameter(f"{name} has {len(text)} characters, write up to {max_chars}", field=name)


def check_said(name: str, text: str) -> None:
    """Raise InvalidParameter, blaming `name`, for a notice's text of nothing but blanks: it says nothing."""
    if not text.strip():
        raise InvalidParameter(f"{name} has no characters but blanks, write something", field=name)
