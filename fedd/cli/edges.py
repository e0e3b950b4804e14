"""Topologies whose edges are in a file."""

from __future__ import annotations

from fedd.api.errors import InvalidParameter

EDGES = "edges:"
MAX_EDGES_CHARS = 60_000
"""What a daemon takes for a topology, about a thousand rows."""


def with_edges(topology: str) -> str:
    """The topology, `edges:FILE` with the file's text in place of its name. Raises InvalidParameter."""
    if not topology.startswith(EDGES):
        return topology
    path = topology.removeprefix(EDGES)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_EDGES_CHARS + 1)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidParameter(
            f"the edges in {path or 'no file'} cannot be read: {why}", field="topology"
        ) from None
    if len(text) > MAX_EDGES_CHARS:
        raise InvalidParameter(f"{path} has more than {MAX_EDGES_CHARS} characters", field="topology")
    return EDGES + text
