"""A model's arrays as one flat vector, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fedd.api import InvalidMessage, InvalidParameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

Vector: TypeAlias = "NDArray[np.floating[Any]]"
"""One dimension, float32 or float64."""


class Layout:
    """Shapes and types of a model's arrays, in order.

    `dtype` is what the flat vector is computed in: float32 when every array is float32 or float16, else
    float64. Raises InvalidParameter for arrays that are not of floating point: they have no gradient.
    """

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        for index, array in enumerate(arrays):
            if array.dtype.kind != "f":
                raise InvalidParameter(
                    f"array {index} of the learner's model is {array.dtype}, and only floats are optimised",
                    field="input",
                )
        self._kinds = [(array.shape, array.dtype, array.size) for array in arrays]
        narrow = bool(arrays) and all(array.dtype.itemsize <= 4 for array in arrays)
        self.dtype: np.dtype[Any] = np.dtype(np.float32 if narrow else np.float64)
        self.size = sum(array.size for array in arrays)

    def pack(self, arrays: Sequence[NDArray[Any]]) -> Vector:
        """The arrays one behind the other, (size,). A copy."""
        if len(arrays) != len(self._kinds) or any(
            array.shape != shape for array, (shape, _, _) in zip(arrays, self._kinds, strict=True)
        ):
            shapes = [kind[0] for kind in self._kinds]
            raise InvalidMessage(
                f"the learner's model has the shapes {shapes}, these are {[array.shape for array in arrays]}"
            )
        flat = np.empty(self.size, dtype=self.dtype)
        at = 0
        for array in arrays:
            flat[at : at + array.size] = array.reshape(-1)
            at += array.size
        return flat

    def unpack(self, vector: Vector) -> list[NDArray[Any]]:
        """The arrays that `pack` made into this vector, in their own types. Copies."""
        arrays = []
        at = 0
        for shape, dtype, size in self._kinds:
            arrays.append(vector[at : at + size].reshape(shape).astype(dtype))
            at += size
        return arrays
