"""What a target of the fuzzer is, and the federation whose messages the targets begin from."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fuzz.mutate import pieces

from fedd.api.errors import Denied, ProtocolError
from fedd.core.certificates import federation_id
from fedd.core.identity import PrivateKey

KEYS = [PrivateKey.from_seed(bytes([number]) * 32) for number in range(1, 5)]
ROOT, ADMIN_KEY, MEMBER_KEY, OTHER = KEYS
FEDERATION = federation_id(ROOT.public_key)

PROTOCOL = (ProtocolError,)
SIGNED = (ProtocolError, Denied)

Run = Callable[[bytes, random.Random], object]


@dataclass(frozen=True)
class Target:
    """A decoder with valid inputs to begin from and the errors it may raise."""

    run: Run
    errors: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]


def fed(machine: Any, data: bytes, rng: random.Random) -> None:
    """Give a machine the bytes in pieces; after an error it must stay an error or stay silent."""
    for piece in pieces(rng, data):
        machine.receive_data(piece)
