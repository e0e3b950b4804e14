"""A message of a run on its way through a daemon: whole, or in the pieces in which it came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Payload: TypeAlias = bytes | memoryview
"""An encoded message. Whoever hands one in must not change it afterwards."""


Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes to write, which do not change until they are written."""


class Pieces:
    """A large message that nobody has put together yet: on its way to a worker nobody needs it whole."""

    __slots__ = ("_size", "buffers")

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        """`buffers` hold bytes, one behind the other, and do not change afterwards."""
        self.buffers = buffers
        self._size = sum(map(len, buffers))

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self.buffers)


Arrived: TypeAlias = Payload | Pieces
"""A message that a neighbour sent."""


def whole(arrived: Arrived) -> Payload:
    """The message in one piece."""
    return bytes(arrived) if isinstance(arrived, Pieces) else arrived
