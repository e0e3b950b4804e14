"""Values to bytes and back: the only file that knows CBOR.

A value is None, bool, int, float, str, bytes, a list, a dict with str keys, or an `ArrayView`.
Encoding is deterministic (RFC 8949, 4.2.1: shortest forms, sorted keys, definite lengths); an array
is a row-major typed array in little-endian (RFC 8746: tag 40 around tags 64 to 86). Decoding takes
exactly that data model and nothing else that CBOR could say.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from functools import partial
from io import BytesIO
from math import prod
from typing import Any, NoReturn, TypeAlias

import cbor2

from fedd.api.errors import InvalidMessage
from fedd.core.dataclass import dataclass

MAX_MESSAGE_BYTES = 64 * 1024
"""Default bound of a message: 64 KiB of the worst CBOR (empty maps) become 4 MiB in memory."""

MAX_DEPTH = 16
"""Lists and dicts within each other; a protocol message has at most 6, a nested model state about 10."""

MAX_ITEMS = 65_536
"""CBOR items in a message larger than MAX_MESSAGE_BYTES: large data travels as arrays, one item each,
so this bounds what a message costs in memory beyond its own size to about 5 MiB."""

MAX_DIMENSIONS = 16
_MAX_EMPTY_ROWS = 65_536  # an array without elements may still claim many rows, which tolist() would build

_LARGE_BYTES = 16 * 1024
"""From here on an array's elements are copied in whole, past cbor2; below that its own copies cost less."""

_FOUR_BYTES = struct.Struct(">BI")
_FOUR_BYTE_INTEGER = 0x1A
"""The first byte of an unsigned integer whose value is in the next four."""

_ARRAY_TAG = 40
_TYPED_ARRAY_TAGS = {
    "uint8": (64, 1, "B"),
    "uint16": (69, 2, "H"),
    "uint32": (70, 4, "I"),
    "uint64": (71, 8, "Q"),
    "int8": (72, 1, "b"),
    "int16": (77, 2, "h"),
    "int32": (78, 4, "i"),
    "int64": (79, 8, "q"),
    "float16": (84, 2, "e"),
    "float32": (85, 4, "f"),
    "float64": (86, 8, "d"),
}  # dtype -> (RFC 8746 tag, bytes an element, struct code)
_DTYPES = {tag: dtype for dtype, (tag, _, _) in _TYPED_ARRAY_TAGS.items()}

# Tags that cbor2 itself would turn into objects (dates, big numbers, regular expressions, shared
# references ...): some cost seconds of CPU for a kilobyte, so they are refused before being built.
_BUILT_IN_TAGS = (
    *(0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54),
    *(100, 256, 258, 260, 261, 1004, 43000, 55799),
)


@dataclass(frozen=True, slots=True)
class ArrayView:
    """An n-dimensional array as bytes: C order, little-endian.

    `dtype` is a NumPy name (float16 to float64, int8 to int64, uint8 to uint64), `shape` the length
    of each dimension, `data` exactly product(shape) elements. InvalidMessage when they disagree.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    def __post_init__(self) -> None:
        if self.dtype not in _TYPED_ARRAY_TAGS:
            raise InvalidMessage(
                f"an array of {self.dtype!r} cannot travel",
                hint=f"send one of {', '.join(_TYPED_ARRAY_TAGS)}",
            )
        if len(self.shape) > MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in self.shape):
            raise InvalidMessage(
                f"an array's shape is up to {MAX_DIMENSIONS} lengths, none negative, not {self.shape!r:.200}"
            )
        present = self.data.nbytes if isinstance(self.data, memoryview) else len(self.data)
        if present != self.nbytes:
            raise InvalidMessage(
                f"an array of {self.dtype} with shape {self.shape} has {self.nbytes} bytes, not {present}"
            )
        if not present and prod(n or 1 for n in self.shape) > _MAX_EMPTY_ROWS:
            raise InvalidMessage(f"an empty array claims the shape {self.shape}")

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes."""
        return self.size * _TYPED_ARRAY_TAGS[self.dtype][1]

    def tolist(self) -> Any:
        """Return the elements as nested lists of int or float (a bare number when there is no dimension)."""
        code = _TYPED_ARRAY_TAGS[self.dtype][2]
        nested: list[Any] = list(struct.unpack(f"<{self.size}{code}", bytes(self.data)))
        for length, rows in zip(self.shape[:0:-1], _rows_before(self.shape), strict=True):
            nested = [nested[row * length : (row + 1) * length] for row in range(rows)]
        return nested if self.shape else nested[0]


def _rows_before(shape: tuple[int, ...]) -> list[int]:
    """Return, from the last dimension to the second, how many rows the dimensions before it make."""
    return [prod(shape[:axis]) for axis in range(len(shape) - 1, 0, -1)]


def encode(value: Any, *, canonical: bool = True) -> bytes:
    """Return the deterministic encoding of a value; tuples travel as lists.

    Not `canonical`: keys in the order of the dict, in half the time, for what nobody signs or compares.
    InvalidMessage when it contains a type, a depth or an integer outside the data model.
    """
    return b"".join(_encode_checked(value, _check(value), canonical))


def encode_in_pieces(value: Any) -> list[bytes | memoryview]:
    """What `encode` returns when not `canonical`, in pieces: the elements of large arrays are not copied.

    They must not change before the pieces are written. Errors as `encode`.
    """
    return _encode_checked(value, _check(value), False)


def _encode_checked(value: Any, special: bool, canonical: bool) -> list[bytes | memoryview]:
    """`encode_in_pieces` for a value that `_check` has seen, which found it `special` or not."""
    omitted: list[memoryview] = []
    encoders: dict[type, _Encoder] | None = None
    if special:
        encoders = {ArrayView: partial(_encode_array, omitted), memoryview: _encode_memory}
    try:
        encoded: bytes = cbor2.dumps(value, canonical=canonical, encoders=encoders)
    except UnicodeEncodeError:
        raise InvalidMessage("a text holds a lone surrogate, which is not valid Unicode") from None
    if omitted:
        return _with_arrays(encoded, omitted)
    if len(encoded) > MAX_MESSAGE_BYTES:
        _check_item_count(encoded)
    return [encoded]


def decode(
    data: bytes | bytearray | memoryview, *, max_bytes: int = MAX_MESSAGE_BYTES, canonical: bool = False
) -> Any:
    """Return the value that `data` encodes, exactly and wholly; arrays become `ArrayView`.

    Large arrays share the memory of `data`, which must not change then; small ones are copies.
    `canonical` demands the very bytes that `encode` would give, as signed messages need. InvalidMessage
    when the message is longer than `max_bytes` or not an acceptable value.
    """
    if len(data) > max_bytes:
        raise InvalidMessage(f"a message of {len(data)} bytes is longer than the {max_bytes} allowed")
    document: bytes | bytearray | memoryview = data
    decode_tag = _decode_small
    if len(data) > MAX_MESSAGE_BYTES:
        arrays = _LargeArrays()
        document = arrays.cut_from(data)
        decode_tag = partial(_decode_tag, arrays)
    source = BytesIO(document)
    decoder = cbor2.CBORDecoder(
        source,
        tag_hook=decode_tag,
        semantic_decoders=_REFUSING_DECODERS,
        max_depth=MAX_DEPTH + 4,  # an array's own CBOR nests further; _check counts lists and dicts
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )
    try:
        value = decoder.decode()
    except (cbor2.CBORDecodeError, InvalidMessage) as error:
        cause = error.__cause__ if isinstance(error.__cause__, InvalidMessage) else error
        raise InvalidMessage(f"a message is malformed: {cause}") from None
    if source.tell() != len(document):
        raise InvalidMessage(f"a message is followed by {len(document) - source.tell()} bytes too many")
    special = _check(value)
    if canonical and b"".join(_encode_checked(value, special, True)) != data:
        raise InvalidMessage("a message is not in its one canonical form")
    return value


class _TypedArray:
    """A typed array on its way into the tag 40 that gives it a shape."""

    __slots__ = ("data", "dtype")

    def __init__(self, dtype: str, data: bytes | memoryview) -> None:
        self.dtype = dtype
        self.data = data


class _LargeArrays:
    """The elements of a message's large arrays, which pass the decoder by: it would copy them twice."""

    def __init__(self) -> None:
        self._elements: list[memoryview] = []
        self._taken = 0

    def cut_from(self, data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
        """The message with the number of each large array, from 0, in place of its elements.

        Raises InvalidMessage beyond MAX_ITEMS.
        """
        view = memoryview(data).toreadonly()
        pieces: list[bytes | memoryview] = []
        kept_to = 0
        for head, begin, size in _typed_arrays(view):
            if size < _LARGE_BYTES or begin + size > len(view):  # or cut short, which the decoder reports
                continue
            number = _FOUR_BYTES.pack(_FOUR_BYTE_INTEGER, len(self._elements))
            pieces += (view[kept_to:head], number)
            self._elements.append(view[begin : begin + size])
            kept_to = begin + size
        return b"".join((*pieces, view[kept_to:])) if pieces else data

    def take(self, number: object) -> memoryview | None:
        """The elements of this number, None when it is not the next one's.

        A message may hold numbers in such places itself: then there are more than were cut out, and one is
        out of turn.
        """
        if type(number) is not int or number != self._taken or number == len(self._elements):
            return None
        self._taken += 1
        return self._elements[number]


def _decode_tag(arrays: _LargeArrays, tag: cbor2.CBORTag, immutable: bool) -> _TypedArray | ArrayView:
    content = tag.value
    if tag.tag in _DTYPES:
        elements = content if type(content) is bytes else arrays.take(content)
        if elements is None:
            raise InvalidMessage(f"tag {tag.tag} stands before something else than bytes")
        return _TypedArray(_DTYPES[tag.tag], elements)
    if tag.tag != _ARRAY_TAG:
        raise InvalidMessage(f"tag {tag.tag} is not allowed")
    if isinstance(content, list | tuple) and len(content) == 2:
        shape, elements = content
        if isinstance(shape, list | tuple) and isinstance(elements, _TypedArray):
            return ArrayView(elements.dtype, tuple(shape), elements.data)
    raise InvalidMessage(f"tag {_ARRAY_TAG} stands before something else than [shape, typed array]")


_decode_small = partial(_decode_tag, _LargeArrays())
"""For messages whose arrays have not been cut out."""


def _refuse_tag(content: Any, immutable: bool) -> Any:
    raise InvalidMessage("dates, big numbers, references and other tagged values are not allowed")


_REFUSING_DECODERS: dict[int, Callable[[Any, bool], Any]] = dict.fromkeys(_BUILT_IN_TAGS, _refuse_tag)


def _encode_array(omitted: list[memoryview], encoder: cbor2.CBOREncoder, array: ArrayView) -> None:
    """Write an array; of a large one all but its elements, which are added to `omitted`."""
    tag, _, _ = _TYPED_ARRAY_TAGS[array.dtype]
    encoder.encode_length(6, _ARRAY_TAG)
    encoder.encode_length(4, 2)
    encoder.encode(list(array.shape))
    encoder.encode_length(6, tag)
    if array.nbytes < _LARGE_BYTES:
        encoder.encode(bytes(array.data))
    else:  # the encoder would copy them twice more
        encoder.encode_length(2, array.nbytes)
        omitted.append(memoryview(array.data).cast("B"))


def _with_arrays(encoded: bytes, omitted: list[memoryview]) -> list[bytes | memoryview]:
    """The pieces of an encoding that lacks the elements of its large arrays, with them.

    Raises InvalidMessage beyond MAX_ITEMS.
    """
    view = memoryview(encoded)
    pieces: list[bytes | memoryview] = []
    left = iter(omitted)
    kept_to = 0
    for _, begin, size in _typed_arrays(view, elements_omitted=True):
        if size >= _LARGE_BYTES:
            pieces += (view[kept_to:begin], next(left))
            kept_to = begin
    return [*pieces, view[kept_to:]]


def _typed_arrays(data: memoryview, *, elements_omitted: bool = False) -> Iterator[tuple[int, int, int]]:
    """For each typed array: where the head of its elements begins, where they begin, their bytes.

    `elements_omitted`: those of large arrays are not there. Walks over the heads of all items, whatever their
    nesting, and raises InvalidMessage beyond MAX_ITEMS.
    """
    offset, end = 0, len(data)
    typed = False  # the item before was a typed array's tag
    for _ in range(MAX_ITEMS):
        if offset >= end:  # beyond the end when a string is cut short, which the decoder reports
            return
        at, head = offset, data[offset]
        major, size = head >> 5, head & 31
        offset += 1
        if 24 <= size < 28:
            width = 1 << (size - 24)
            size = int.from_bytes(data[offset : offset + width], "big")
            offset += width
        if major == 2 and typed:
            yield at, offset, size
        if major in (2, 3) and not (typed and elements_omitted and size >= _LARGE_BYTES):
            offset += size
        typed = major == 6 and size in _DTYPES
    if offset < end:
        raise InvalidMessage(
            f"a message of {end} bytes has more than {MAX_ITEMS} items", hint="send large lists as arrays"
        )


def _encode_memory(encoder: cbor2.CBOREncoder, memory: memoryview) -> None:
    # cbor2 would take it for a list of numbers
    encoder.encode(bytes(memory))


_Encoder: TypeAlias = Callable[[cbor2.CBOREncoder, Any], None]


_WIDE_ITEMS = 32
"""More are looked at all together, one level after the other, which for few takes three times as long."""
_MIN_INTEGER, _MAX_INTEGER = -(1 << 63), (1 << 64) - 1
_PLAIN = {bool, float, str, bytes, bytearray, type(None)}
_CONTAINERS = {list, tuple, dict}
_ENCODED_HERE = {ArrayView, memoryview}
_LEAVES = {bool, int, float, str, bytes, bytearray, memoryview, ArrayView, type(None)}


def _check(value: Any) -> bool:
    """Raise InvalidMessage unless the value is of the data model; tell whether it needs our encoders."""
    return _check_few((value,), MAX_DEPTH + 1)


def _check_few(items: Collection[Any], levels: int) -> bool:
    """`_check` for items side by side, which with what they hold have at most so many levels."""
    if len(items) > _WIDE_ITEMS:
        return _check_many(list(items), levels)
    if not levels:
        raise InvalidMessage(f"a message nests deeper than {MAX_DEPTH}")
    special = False
    for item in items:
        kind = type(item)
        if kind in _PLAIN:
            continue
        if kind is int:
            if not _MIN_INTEGER <= item <= _MAX_INTEGER:
                _refuse_integer(item)
        elif kind is list or kind is tuple:
            special |= _check_few(item, levels - 1)
        elif kind is dict:
            _check_keys(item)
            special |= _check_few(item.values(), levels - 1)
        elif kind in _ENCODED_HERE:
            special = True
        else:
            _refuse_kind(kind)
    return special


def _check_many(level: list[Any], levels: int) -> bool:
    """`_check_few` for many.

    Goes down level by level, so that most of the work is one `set(map(type, ...))` a level: a message
    of 65,536 items costs about 10 ms.
    """
    special = False
    for _ in range(levels):
        kinds = set(map(type, level))
        special = special or not kinds.isdisjoint(_ENCODED_HERE)
        for kind in kinds - _LEAVES - _CONTAINERS:
            _refuse_kind(kind)
        if int in kinds:
            _check_integers([item for item in level if type(item) is int])
        if not kinds & _CONTAINERS:
            return special
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                if item:  # tens of thousands of empty ones are a known attack
                    _check_keys(item)
                    inner += item.values()
            elif kind is list or kind is tuple:
                inner += item
        level = inner
    raise InvalidMessage(f"a message nests deeper than {MAX_DEPTH}")


def _check_integers(numbers: list[int]) -> None:
    for number in (min(numbers), max(numbers)):
        if not _MIN_INTEGER <= number <= _MAX_INTEGER:
            _refuse_integer(number)


def _refuse_integer(number: int) -> NoReturn:
    raise InvalidMessage(f"an integer of {number.bit_length()} bits does not fit into 64")


def _refuse_kind(kind: type) -> NoReturn:
    raise InvalidMessage(
        f"a value of type {kind.__name__} cannot travel",
        hint="send None, bool, int, float, str, bytes, lists, dicts with text keys, or arrays",
    )


def _check_keys(fields: dict[Any, Any]) -> None:
    for kind in set(map(type, fields)) - {str}:
        raise InvalidMessage(f"a dict's keys must be text, not {kind.__name__}")


def _check_item_count(data: bytes) -> None:
    """Raise InvalidMessage when there are more than MAX_ITEMS."""
    for _ in _typed_arrays(memoryview(data)):
        pass
