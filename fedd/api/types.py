"""The values that cross fedd's borders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, Union

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]
    FloatArray: TypeAlias = NDArray[np.float64]

PeerId: TypeAlias = str
"""A libp2p peer id in base58btc, for example `12D3KooW...`. Sorted as text."""

Message: TypeAlias = Union[bool, int, float, str, bytes, "Array", list["Message"], dict[str, "Message"], None]
"""What an algorithm may send, receive and return.

Arrays are NumPy arrays of float16/32/64 or signed and unsigned integers; dtype and shape
arrive unchanged, but for bools, which arrive as uint8. Integers are 64 bit.
"""
