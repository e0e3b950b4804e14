"""The bounds of runs on this node, each with its reason."""

from __future__ import annotations

from fedd.core.dataclass import dataclass


@dataclass(frozen=True)
class RunLimits:
    """`[limits]` of fedd.toml, as far as runs are concerned, and the protocol's own deadlines."""

    runs: int = 16
    """Runs at once, accepted proposals included: each is a process of 40 MiB or more."""

    results: int = 256
    """Results kept in the state directory, the newest."""

    payload_bytes: int = 16 * 1024 * 1024
    """The largest message of an algorithm."""

    edge_timeout_s: float = 30.0
    """How long an alive neighbour may be without a link before both ends cut the edge."""

    stall_timeout_s: float = 60.0
    """The least time that this node's own worker may be silent; else `stall_factor` of its median rounds."""

    startup_timeout_s: float = 20.0
    """How long a worker may take to its first exchange at least: eight start at once on a small board."""

    stall_factor: float = 20.0
    """How many of its median rounds a worker may be silent."""

    propose_timeout_s: float = 5.0
    """How long each member may take to accept or decline."""

    acceptance_s: float = 30.0
    """How long an acceptance is good; a member that has no manifest by then forgets the proposal."""

    command_timeout_s: float = 10.0
    """How long the manifest and a stop may take to one member; neighbours pass both on anyway."""

    linger_s: float = 120.0
    """How long an ended node keeps its last messages for a neighbour that neither confirms nor dies."""

    grace_s: float = 2.0
    """From the stop message to the worker until it is killed."""
