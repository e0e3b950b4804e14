"""All that a plugin may import from fedd."""

from fedd.api.algorithm import Agreement, Algorithm, Ledger, RunContext
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
from fedd.api.hookspecs import hookimpl, hookspec
from fedd.api.types import Message, PeerId

__all__ = [
    "Agreement",
    "Algorithm",
    "Conflict",
    "Denied",
    "Dropped",
    "FeddError",
    "InvalidMessage",
    "InvalidParameter",
    "Ledger",
    "Message",
    "NotConnected",
    "NotFound",
    "PeerId",
    "PluginFailed",
    "ProtocolError",
    "QuorumLost",
    "Refused",
    "RunContext",
    "Stopped",
    "TimedOut",
    "Unhealthy",
    "hookimpl",
    "hookspec",
]
