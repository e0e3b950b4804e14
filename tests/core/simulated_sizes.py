"""About how many bytes the messages of simulated members take on a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedd.core.presence_messages import (
    Bye,
    Digest,
    Pin,
    Ping,
    Pong,
    Refuse,
    Rows,
    Versions,
    Want,
)

# What carries a message: 12 bytes of yamux, 18 of Noise, 52 of TCP and IPv4, half of a bare acknowledgement.
CARRIAGE_BYTES = 12 + 18 + 52 + 26
# A signed record with a name, one address, eight neighbours and a chain of one certificate, in its envelope.
RECORD_BYTES = 900
VERSION_BYTES, ID_BYTES = 54, 40

# About how many bytes a message costs on an IPv4 network.
SIZES: dict[type[Any], Callable[[Any], int]] = {
    Ping: lambda message: CARRIAGE_BYTES + 12,
    Pong: lambda message: CARRIAGE_BYTES + 12,
    Rows: lambda message: CARRIAGE_BYTES + 10 + RECORD_BYTES * len(message.rows),
    Refuse: lambda message: CARRIAGE_BYTES + 10 + RECORD_BYTES * len(message.rows),
    Digest: lambda message: CARRIAGE_BYTES + 36,
    Versions: lambda message: CARRIAGE_BYTES + 100 + VERSION_BYTES * len(message.stamps),
    Want: lambda message: CARRIAGE_BYTES + 10 + ID_BYTES * len(message.ids),
    Bye: lambda message: CARRIAGE_BYTES + 16,
    Pin: lambda message: CARRIAGE_BYTES + 16,
}
