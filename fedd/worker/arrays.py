"""NumPy arrays to and from the arrays of the wire.

NumPy is loaded by who has an array: a process without one spares 13 MiB and half of its start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from fedd.api.errors import InvalidMessage
from fedd.api.types import Message, PeerId
from fedd.core import codec
from fedd.core.codec import ArrayView
from fedd.core.pieces import Arrived, Pieces

if TYPE_CHECKING:
    import numpy as np

_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
"""Most of what messages hold: the same on the wire, and not worth a call."""


def encode(message: Message) -> bytes:
    """The bytes of a message.

    Raises InvalidMessage for a type or dtype that cannot travel.
    """
    return codec.encode(to_wire(message))


def encode_to_send(message: Message) -> Arrived:
    """The bytes of a message; the elements of large arrays are not copied and must not change meanwhile.

    Errors as `encode`.
    """
    pieces = codec.encode_in_pieces(to_wire(message))
    return Pieces(pieces) if len(pieces) > 1 else pieces[0]


def encode_each(message: Callable[[PeerId], Message], peers: Iterable[PeerId]) -> dict[PeerId, Arrived]:
    """`encode_to_send` of the message for each peer.

    Those for whom `message` returns one and the same object get the same bytes, encoded once. Errors as
    `encode`.
    """
    made: dict[int, tuple[Message, Arrived]] = {}  # with the object, so that its id stays its own
    found: dict[PeerId, Arrived] = {}
    for peer in peers:
        given = message(peer)
        if id(given) not in made:
            made[id(given)] = (given, encode_to_send(given))
        found[peer] = made[id(given)][1]
    return found


def decode(data: bytes | memoryview, max_bytes: int) -> Any:
    """The message in `data`. Arrays share its memory and are read-only: copy before changing one.

    Raises InvalidMessage when the bytes are no acceptable message or more than `max_bytes`.
    """
    return from_wire(codec.decode(data, max_bytes=max_bytes))


def from_wire(value: Any) -> Any:
    """The value with every ArrayView replaced by a NumPy array."""
    if isinstance(value, list):
        return [item if type(item) in _PLAIN else from_wire(item) for item in value]
    if isinstance(value, dict):
        return {key: item if type(item) in _PLAIN else from_wire(item) for key, item in value.items()}
    if isinstance(value, ArrayView):
        import numpy as np

        dtype = np.dtype(value.dtype).newbyteorder("<")
        return np.frombuffer(value.data, dtype=dtype).reshape(value.shape)
    return value


def to_wire(value: Any) -> Any:
    """The value with every NumPy array replaced by an ArrayView and every NumPy scalar by a number.

    The views share the arrays' memory where they can: encode them before an array changes.
    """
    return _to_wire(value) if "numpy" in sys.modules else value


def _to_wire(value: Any) -> Any:
    import numpy as np

    if isinstance(value, dict):
        return {key: item if type(item) in _PLAIN else _to_wire(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [item if type(item) in _PLAIN else _to_wire(item) for item in value]
    if isinstance(value, np.ndarray):
        return _view(value)
    if isinstance(value, np.generic):
        return value.item()
    return value


def _view(array: np.ndarray[Any, Any]) -> ArrayView:
    import numpy as np

    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise InvalidMessage(
            f"an array of {array.dtype} cannot travel", hint="send float16 to float64 or integer arrays"
        )
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return ArrayView(array.dtype.name, array.shape, little.reshape(-1).view(np.uint8).data)
