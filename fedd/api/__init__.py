"""All that a plugin may import from fedd.

Names are loaded when first used: fedctl and the daemon need the errors on every start, and of pluggy nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedd.api.aggregator import Aggregate, Aggregator, Contribution, LocalTraining
    from fedd.api.algorithm import Algorithm, Letter, Merged, RunContext
    from fedd.api.command import Audience, Command, CommandContext, KnownRun, Member, Notice, Reached
    from fedd.api.errors import (
        Conflict,
        Denied,
        Dropped,
        FeddError,
        InvalidMessage,
        InvalidParameter,
        NotConnected,
        NotFound,
        PluginFailed,
        ProtocolError,
        QuorumLost,
        Refused,
        Stopped,
        TimedOut,
        Unhealthy,
    )
    from fedd.api.graph import RunGraph, Spectrum
    from fedd.api.hookspecs import hookimpl, hookspec
    from fedd.api.learner import Learner, RunLearner, TrainResult
    from fedd.api.ledger import Agreement, Ledger
    from fedd.api.types import Message, PeerId

__all__ = [
    "Aggregate",
    "Aggregator",
    "Agreement",
    "Algorithm",
    "Audience",
    "Command",
    "CommandContext",
    "Conflict",
    "Contribution",
    "Denied",
    "Dropped",
    "FeddError",
    "InvalidMessage",
    "InvalidParameter",
    "KnownRun",
    "Learner",
    "Ledger",
    "Letter",
    "LocalTraining",
    "Member",
    "Merged",
    "Message",
    "NotConnected",
    "NotFound",
    "Notice",
    "PeerId",
    "PluginFailed",
    "ProtocolError",
    "QuorumLost",
    "Reached",
    "Refused",
    "RunContext",
    "RunGraph",
    "RunLearner",
    "Spectrum",
    "Stopped",
    "TimedOut",
    "TrainResult",
    "Unhealthy",
    "hookimpl",
    "hookspec",
]

_MODULES = {
    **dict.fromkeys(("Aggregate", "Aggregator", "Contribution", "LocalTraining"), "aggregator"),
    **dict.fromkeys(("Agreement", "Ledger"), "ledger"),
    **dict.fromkeys(("Algorithm", "Letter", "Merged", "RunContext"), "algorithm"),
    **dict.fromkeys(
        ("Audience", "Command", "CommandContext", "KnownRun", "Member", "Notice", "Reached"), "command"
    ),
    **dict.fromkeys(("RunGraph", "Spectrum"), "graph"),
    **dict.fromkeys(("hookimpl", "hookspec"), "hookspecs"),
    **dict.fromkeys(("Learner", "RunLearner", "TrainResult"), "learner"),
    **dict.fromkeys(("Message", "PeerId"), "types"),
}


def __getattr__(name: str) -> object:
    """Load a name's module (PEP 562); all names of `__all__` not listed above are errors."""
    if name not in __all__:
        raise AttributeError(f"module 'fedd.api' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"fedd.api.{_MODULES.get(name, 'errors')}"), name)
