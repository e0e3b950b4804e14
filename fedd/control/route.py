"""What a route of the control API is, as the table of routes says it."""

from __future__ import annotations

from typing import Any, NamedTuple


class Field(NamedTuple):
    """A key of a request body or query.

    `type` is text, integer, seconds, flag, texts, object, quorum or any. Integers and seconds lie in
    [low, high].
    """

    name: str
    type: str
    help: str
    required: bool = False
    default: Any = None
    low: float = 0
    high: float = 2**63 - 1


class Route(NamedTuple):
    """One method and path. `{peer}`, `{name}` and `{run}` in the path stand for one segment."""

    operation: str
    method: str
    path: str
    summary: str
    reply: str
    fields: tuple[Field, ...] = ()
    query: tuple[Field, ...] = ()
    errors: tuple[str, ...] = ()
    streams: bool = False
    """Replies with NDJSON: one document a line, the last `{"kind": "end"}`."""

    changes: bool = False
    """Changes something, so the caller's user id goes into the log."""
