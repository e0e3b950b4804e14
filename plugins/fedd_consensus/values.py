"""Inputs as arrays, and arrays as results."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fedd.api import InvalidMessage, Message

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedd.api.types import FloatArray


def numbers(value: Message) -> NDArray[np.float64]:
    """The input as a float64 array, a number as an array without dimensions.

    Raises InvalidMessage when it is missing, not numeric, ragged or not finite.
    """
    if value is None:
        raise InvalidMessage("this node has no input for the run", hint="name one with --input")
    try:
        array = np.asarray(value)
    except ValueError:
        raise InvalidMessage("the input is a ragged list", hint="give every row the same length") from None
    if array.dtype.kind not in "biuf":
        raise InvalidMessage(f"the input is no number or array of numbers: {value!r:.80}")
    start = array.astype(np.float64) + 0.0  # -0.0 and 0.0 would be equal in value and differ in bits
    if not all(map(math.isfinite, start.flat)):
        raise InvalidMessage("the input holds a value that is not finite", hint="look for NaN and infinity")
    return start


def plain(array: NDArray[np.float64]) -> Message:
    """A number for an array without dimensions, else the array."""
    return float(array) if array.ndim == 0 else array


def received(message: Message, shape: tuple[int, ...]) -> FloatArray:
    """A neighbour's float64 array. Raises InvalidMessage when shape or type differ or it is not finite."""
    array = np.asarray(message) if isinstance(message, np.ndarray | float) else None
    if array is None or array.dtype != np.float64:
        raise InvalidMessage("it sent something else than its value")
    if array.shape != shape:
        raise InvalidMessage(
            f"the inputs have the shapes {shape} and {array.shape}",
            hint="give all members inputs of one shape",
        )
    if not np.isfinite(array).all():
        raise InvalidMessage("its value is not finite")
    return array


def parts(message: Message, count: int) -> list[Message]:
    """A message that is a list of so many parts. Raises InvalidMessage when it is not."""
    if not (isinstance(message, list) and len(message) == count):
        raise InvalidMessage(
            f"it sent something else than a message of {count} parts",
            hint="do all members run the same version of the plugin?",
        )
    return message
