"""Arrays made smaller for the wire, on differences and with error feedback.

A codec forgets something. Sent as it is, an iterate would stay wrong by what was forgotten; sent as the
difference to what the receivers hold already, what is forgotten now is part of the next difference, and
both shrink together. `Outgoing` and `Incoming` are the two ends: the sender keeps the copy that every
receiver has, the receivers add what comes. All copies of one sender are equal to the last bit.

Source: A. Koloskova, S. U. Stich, M. Jaggi, "Decentralized stochastic optimization and gossip algorithms
with compressed communication", ICML 2019 (CHOCO; equation 6 is what `Outgoing` does).

A codec is contractive when |x - decode(encode(x))|^2 <= (1 - delta) |x|^2 for some delta > 0; each codec
says its delta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fedd.api import InvalidMessage, InvalidParameter, Message

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fedd.api.types import FloatArray

NAMES = ("none", "float32", "float16", "bfloat16", "int8", "top-k:F")
"""What `find_codec` knows, as a user writes them."""

_BLOCK = 1024
"""Elements that share a scale: 4 bytes more a KiB, and int8 forgets at most 1024 / 254^2 of the square."""

_MAX_DIFFERENCE = 1e30
"""Beyond it a difference is refused: scales travel as float32."""


class Codec(Protocol):
    """A pair of pure functions on float64 arrays."""

    @property
    def name(self) -> str:
        """As in `NAMES`."""
        ...

    def encode(self, values: FloatArray) -> Message:
        """The wire form of a one-dimensional array."""
        ...

    def decode(self, message: Message, size: int) -> FloatArray:
        """`size` float64 values. Raises InvalidMessage when `message` is no such wire form."""
        ...


@dataclass(frozen=True)
class Plain:
    """Every element in a floating-point type: float64 (none, delta = 1) or float32 (delta = 1 - 2^-48)."""

    name: str
    dtype: str

    def encode(self, values: FloatArray) -> Message:
        """One array."""
        return values.astype(self.dtype)

    def decode(self, message: Message, size: int) -> FloatArray:
        """See `Codec`."""
        return _array(message, self.dtype, size).astype(np.float64)


@dataclass(frozen=True)
class Float16:
    """IEEE half precision relative to each block's largest magnitude: two bytes, delta = 1 - 2^-22.

    Without the scale, differences below 6e-8 would vanish and an iterate would never come nearer.
    """

    name: str = "float16"

    def encode(self, values: FloatArray) -> Message:
        """[float32 scales, float16 elements]."""
        blocks, scales = _scaled(values)
        return [scales, blocks.astype(np.float16).ravel()[: values.size]]

    def decode(self, message: Message, size: int) -> FloatArray:
        """See `Codec`."""
        scales, elements = _scaled_parts(message, "float16", size)
        return _unscaled(elements.astype(np.float64), scales)


@dataclass(frozen=True)
class BFloat16:
    """The upper half of float32, rounded to even: two bytes, the exponents of float32, delta = 1 - 2^-16."""

    name: str = "bfloat16"

    def encode(self, values: FloatArray) -> Message:
        """One array of uint16, the bit patterns."""
        bits = values.astype(np.float32).view(np.uint32)
        rounded = bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)
        return (rounded >> 16).astype(np.uint16)

    def decode(self, message: Message, size: int) -> FloatArray:
        """See `Codec`."""
        bits = _array(message, "uint16", size, finite=False).astype(np.uint32) << 16
        with np.errstate(invalid="ignore"):  # a signalling NaN, which is refused below
            values = bits.view(np.float32).astype(np.float64)
        if not np.isfinite(values).all():
            raise InvalidMessage("an encoded array holds a value that is not finite")
        return values


@dataclass(frozen=True)
class Int8:
    """Whole multiples from -127 to 127 of each block's largest magnitude: one byte.

    delta >= 1 - 1024 / 254^2. Rounded to the nearest, not at random: error feedback needs no unbiased
    codec, and the same values give the same bits.
    """

    name: str = "int8"

    def encode(self, values: FloatArray) -> Message:
        """[float32 scales, int8 elements]."""
        blocks, scales = _scaled(values)
        return [scales, np.rint(blocks * 127).astype(np.int8).ravel()[: values.size]]

    def decode(self, message: Message, size: int) -> FloatArray:
        """See `Codec`."""
        scales, elements = _scaled_parts(message, "int8", size)
        return _unscaled(elements.astype(np.float64) / 127, scales)


@dataclass(frozen=True)
class TopK:
    """The fraction `share` of the elements with the largest magnitudes, as float64: delta >= share.

    Of equal magnitudes the first count. Source: S. U. Stich, J.-B. Cordonnier, M. Jaggi, "Sparsified SGD
    with memory", NeurIPS 2018.
    """

    share: float

    @property
    def name(self) -> str:
        """As in `NAMES`."""
        return f"top-k:{self.share:g}"

    def encode(self, values: FloatArray) -> Message:
        """[uint32 indices, float64 elements]."""
        count = self._count(values.size)
        order = np.argsort(-np.abs(values), kind="stable")[:count]
        indices = np.sort(order)
        return [indices.astype(np.uint32), values[indices]]

    def decode(self, message: Message, size: int) -> FloatArray:
        """See `Codec`."""
        count = self._count(size)
        places, elements = _pair(message)
        indices = _array(places, "uint32", count)
        if count and (int(indices.max()) >= size or (np.diff(indices.astype(np.int64)) <= 0).any()):
            raise InvalidMessage("the indices of a sparse array do not rise, or lie beyond its end")
        values = np.zeros(size)
        values[indices] = _array(elements, "float64", count)
        return values

    def _count(self, size: int) -> int:
        return math.ceil(self.share * size)


def find_codec(name: str) -> Codec:
    """The codec that a user named. Raises InvalidParameter for an unknown one, or a share not in (0, 1]."""
    found = _CODECS.get(name)
    if found is not None:
        return found
    family, colon, argument = name.partition(":")
    if family == "top-k" and colon:
        try:
            share = float(argument)
        except ValueError:
            share = math.nan
        if 0 < share <= 1:
            return TopK(share)
        raise InvalidParameter(
            f"{name!r:.60} does not say which share of the elements, above 0 and up to 1",
            hint="as in top-k:0.1",
            field="codec",
        )
    raise InvalidParameter(
        f"there is no codec {name!r:.60}", hint=f"known: {', '.join(NAMES)}", field="codec"
    )


class Outgoing:
    """The sender's end: `copy` is what every receiver holds of this node's array, zero at first."""

    def __init__(self, codec: Codec, shape: tuple[int, ...]) -> None:
        self._codec = codec
        self.copy: FloatArray = np.zeros(shape)

    def encode(self, values: ArrayLike) -> Message:
        """The message after which every copy is nearer to `values`.

        Raises InvalidMessage for values that are not finite or are out of range.
        """
        difference = (np.asarray(values, dtype=np.float64) - self.copy).ravel()
        if not (np.abs(difference) <= _MAX_DIFFERENCE).all():
            raise InvalidMessage(f"a difference is not finite, or larger than {_MAX_DIFFERENCE:g}")
        message = self._codec.encode(difference)
        self.copy = self.copy + self._codec.decode(message, difference.size).reshape(self.copy.shape)
        return message


class Incoming:
    """A receiver's end for one sender: `copy` follows the sender's."""

    def __init__(self, codec: Codec, shape: tuple[int, ...]) -> None:
        self._codec = codec
        self.copy: FloatArray = np.zeros(shape)

    def apply(self, message: Message) -> FloatArray:
        """Add what came and return the copy. Raises InvalidMessage when it is not what the codec sends."""
        self.copy = self.copy + self._codec.decode(message, self.copy.size).reshape(self.copy.shape)
        return self.copy


def _scaled(values: FloatArray) -> tuple[FloatArray, NDArray[np.float32]]:
    """Blocks (one a row, the last filled up with zeros) divided by their scales, all from -1 to 1."""
    count = -(-values.size // _BLOCK)
    blocks = np.zeros((count, _BLOCK))
    blocks.ravel()[: values.size] = values
    largest = np.abs(blocks).max(axis=1, initial=0.0)
    scales = np.nextafter(largest.astype(np.float32), np.float32(np.inf), dtype=np.float32)
    scales[largest == 0] = 0
    divisors = np.where(scales > 0, scales, 1).astype(np.float64)
    return blocks / divisors[:, None], scales


def _unscaled(elements: FloatArray, scales: NDArray[np.float32]) -> FloatArray:
    return elements * np.repeat(scales.astype(np.float64), _BLOCK)[: elements.size]


def _scaled_parts(message: Message, dtype: str, size: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    scales, elements = _pair(message)
    return _array(scales, "float32", -(-size // _BLOCK)), _array(elements, dtype, size)


def _pair(message: Message) -> tuple[Message, Message]:
    if not (isinstance(message, list) and len(message) == 2):
        raise InvalidMessage("an encoded array has two parts, this message has not")
    return message[0], message[1]


def _array(message: Message, dtype: str, size: int, *, finite: bool = True) -> NDArray[Any]:
    if not (isinstance(message, np.ndarray) and message.dtype == dtype and message.shape == (size,)):
        found = (
            f"{message.dtype}{message.shape}" if isinstance(message, np.ndarray) else type(message).__name__
        )
        raise InvalidMessage(
            f"an encoded array should be {dtype}({size},), not {found:.60}",
            hint="do all members have inputs of one shape and the same codec?",
        )
    if finite and not np.isfinite(message).all():
        raise InvalidMessage("an encoded array holds a value that is not finite")
    return message


_CODECS: dict[str, Codec] = {
    "none": Plain("none", "float64"),
    "float32": Plain("float32", "float32"),
    "float16": Float16(),
    "bfloat16": BFloat16(),
    "int8": Int8(),
}
