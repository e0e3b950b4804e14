"""A list of arrays as one long row of numbers, cut into parts that are sent one by one."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedd.api import InvalidMessage
from fedd_aggregators.arithmetic import all_finite

if TYPE_CHECKING:
    from fedd.api import Message
    from fedd.api.types import Array

_SPEC = re.compile(r"(f2|f4|f8|i1|i2|i4|i8|u1|u2|u4|u8):(\d{1,12}(?:x\d{1,12}){0,31})?")

_MAX_ELEMENTS = 1 << 48
"""Product of the dimensions that are not 0. NumPy has no array of nothing either whose other dimensions are
beyond what a process can address."""

NOT_FINITE = "values that are not finite"

Segment = tuple[int, int, int]
"""(which array, first element, last element + 1) of an array seen as one row."""


@dataclass(frozen=True)
class Layout:
    """Types and shapes of arrays, and how they are cut. `specs` are (NumPy type code, shape)."""

    specs: tuple[tuple[str, tuple[int, ...]], ...]

    @staticmethod
    def of(arrays: Sequence[Array]) -> Layout:
        """Of these arrays."""
        return Layout(tuple((array.dtype.str[1:], array.shape) for array in arrays))

    @staticmethod
    def read(text: str, max_bytes: int) -> Layout:
        """What `text` gave. Raises InvalidMessage for another text, and for arrays beyond `max_bytes`."""
        specs = []
        for word in text.split(";") if text else ():
            match = _SPEC.fullmatch(word)
            if match is None:
                raise InvalidMessage(f"{word:.40} is no array's type and shape")
            shape = tuple(int(size) for size in match[2].split("x")) if match[2] else ()
            if math.prod(size or 1 for size in shape) > _MAX_ELEMENTS:
                raise InvalidMessage(f"there is no array of the shape {match[2]:.60}")
            specs.append((match[1], shape))
        layout = Layout(tuple(specs))
        if layout.nbytes > max_bytes:
            raise InvalidMessage(f"arrays of {layout.nbytes} bytes are more than {max_bytes}")
        return layout

    @property
    def text(self) -> str:
        """As it travels: `f4:64x10;f4:10`."""
        return ";".join(f"{code}:{'x'.join(map(str, shape))}" for code, shape in self.specs)

    @property
    def sizes(self) -> list[int]:
        """Elements of each array."""
        return [math.prod(shape) for _, shape in self.specs]

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        return sum(size * int(code[1]) for size, (code, _) in zip(self.sizes, self.specs, strict=True))

    def plus(self, other: Layout) -> Layout:
        """These arrays and the others behind them."""
        return Layout(self.specs + other.specs)

    def parts(self, count: int) -> list[list[Segment]]:
        """`count` parts of about as many elements each, some empty when there are fewer elements."""
        sizes = self.sizes
        total = sum(sizes)
        found: list[list[Segment]] = []
        index, begin = 0, 0  # of the array where the next part begins, and of the element in it
        for number in range(count):
            left = total * (number + 1) // count - total * number // count
            segments: list[Segment] = []
            while left:
                taken = min(left, sizes[index] - begin)
                if taken:
                    segments.append((index, begin, begin + taken))
                left -= taken
                begin += taken
                if begin == sizes[index]:
                    index, begin = index + 1, 0
            found.append(segments)
        return found

    def empty(self) -> Rows:
        """Room for such arrays, with anything in it."""
        return Rows(
            self, [np.empty(size, code) for size, (code, _) in zip(self.sizes, self.specs, strict=True)]
        )

    def rows(self, arrays: Sequence[Array]) -> Rows:
        """These arrays, which must be of this layout, as rows that share their memory where they can."""
        return Rows(self, [np.ascontiguousarray(array).reshape(-1) for array in arrays])


@dataclass(frozen=True)
class Rows:
    """Arrays of a layout, each as one row."""

    layout: Layout
    rows: list[Any]

    def part(self, segments: Sequence[Segment]) -> list[Any]:
        """The pieces of one part."""
        return [self.rows[index][begin:end] for index, begin, end in segments]

    def put(self, segments: Sequence[Segment], pieces: Sequence[Array]) -> None:
        """Write one part, as `checked` gave it. Raises InvalidMessage when a value in it is not finite."""
        for (index, begin, end), piece in zip(segments, pieces, strict=True):
            room = self.rows[index][begin:end]
            room[:] = piece
            if not all_finite(room):  # here, where they are at hand, and aligned as they may not have come
                raise InvalidMessage(NOT_FINITE)

    def arrays(self) -> list[Array]:
        """In their shapes, sharing the rows' memory."""
        return [row.reshape(shape) for row, (_, shape) in zip(self.rows, self.layout.specs, strict=True)]


def checked(layout: Layout, segments: Sequence[Segment], given: Message) -> list[Array]:
    """The pieces of a part that somebody sent. Raises InvalidMessage: they are of another shape or type.

    Whether their values are finite is for somebody else to look.
    """
    if not isinstance(given, list) or len(given) != len(segments):
        raise InvalidMessage("a part of another shape")
    pieces: list[Array] = []
    for (index, begin, end), piece in zip(segments, given, strict=True):
        if not isinstance(piece, np.ndarray) or piece.shape != (end - begin,):
            raise InvalidMessage("a part of another shape")
        if piece.dtype.str[1:] != layout.specs[index][0]:
            raise InvalidMessage(f"a part of another type: {piece.dtype}")
        pieces.append(piece)
    return pieces


def digest(*groups: Sequence[Array]) -> str:
    """SHA-256 over types, shapes and bits of lists of arrays, in hexadecimal."""
    found = hashlib.sha256()
    for arrays in groups:
        found.update(f"{Layout.of(arrays).text}\n".encode())
        for array in arrays:
            found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()
