"""Every error that fedd raises on purpose, each with the code that scripts see.

`code` is stable: it travels in control-API replies and decides fedctl's exit code.
"""

from __future__ import annotations

from typing import ClassVar


class FeddError(Exception):
    """Something went wrong, and fedd knows what.

    `detail` says what happened and to whom, `hint` what to do about it, `field` which
    argument, configuration key or message field is to blame (empty when none is).
    """

    code: ClassVar[str] = "failed"

    def __init__(self, detail: str, *, hint: str = "", field: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.field = field

    def __str__(self) -> str:
        return f"{self.detail} ({self.hint})" if self.hint else self.detail


class InvalidParameter(FeddError):
    """A request, parameter or configuration value is not acceptable."""

    code = "invalid"


class NotFound(FeddError):
    """The named peer, run, algorithm, input or route does not exist here."""

    code = "not_found"


class Denied(FeddError):
    """The caller or peer may not do this."""

    code = "denied"


class Conflict(FeddError):
    """The request contradicts the present state, for example a second `init`."""

    code = "conflict"


class TimedOut(FeddError):
    """A deadline passed before an answer came."""

    code = "timeout"


class Refused(FeddError):
    """Others declined: a proposal without quorum, a token that is not accepted."""

    code = "refused"


class Unhealthy(FeddError):
    """The daemon cannot do this now: shutting down, out of resources."""

    code = "unhealthy"


class ProtocolError(FeddError):
    """A peer sent bytes that the protocol does not allow; its connection or stream is closed."""

    code = "protocol"


class NotConnected(FeddError):
    """There is no link to that peer, or it broke."""

    code = "not_connected"


class InvalidMessage(FeddError):
    """A value cannot be encoded, or encoded bytes are not an acceptable value."""

    code = "invalid_message"


class QuorumLost(FeddError):
    """Fewer members of the run are left than its quorum asks for."""

    code = "quorum_lost"


class Dropped(FeddError):
    """The others declared this node dead and went on without it."""

    code = "dropped"


class Stopped(FeddError):
    """Somebody stopped the run."""

    code = "stopped"


class PluginFailed(FeddError):
    """A plugin failed to import, raised, or did not return in time."""

    code = "plugin_failed"
