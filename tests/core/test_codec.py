"""The codec: every value survives, has one encoding, and no bomb goes off."""

import math
import struct
from array import array
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import InvalidMessage
from fedd.core.codec import MAX_ITEMS, ArrayView, decode, encode, encode_in_pieces

DTYPES = {
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "float16": "e",
    "float32": "f",
    "float64": "d",
}


def head(major: int, number: int) -> bytes:
    """The first bytes of a CBOR item (RFC 8949, section 3)."""
    if number < 24:
        return bytes([major << 5 | number])
    for size, code in ((24, "B"), (25, "H"), (26, "I")):
        if number < 1 << 8 * struct.calcsize(code):
            return bytes([major << 5 | size]) + struct.pack(f">{code}", number)
    return bytes([major << 5 | 27]) + struct.pack(">Q", number)


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def arrays(draw: st.DrawFn) -> ArrayView:
    dtype, shape = draw(st.sampled_from(sorted(DTYPES))), draw(shapes)
    size = math.prod(shape) * struct.calcsize(DTYPES[dtype])
    return ArrayView(dtype, shape, draw(st.binary(min_size=size, max_size=size)))


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.text(max_size=20),
        st.binary(max_size=20),
        arrays(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(values)
def test_every_value_survives_in_its_one_encoding(value: Any) -> None:
    encoded = encode(value)
    decoded = decode(encoded, canonical=True)
    assert decoded == value
    assert type(decoded) is type(value)
    assert encode(decoded) == encoded


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        # RFC 8949, appendix A
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (1000000, "1a000f4240"),
        (18446744073709551615, "1bffffffffffffffff"),
        (-1, "20"),
        (-1000, "3903e7"),
        (0.0, "f90000"),
        (-0.0, "f98000"),
        (1.5, "f93e00"),
        (100000.0, "fa47c35000"),
        (1.1, "fb3ff199999999999a"),
        (math.inf, "f97c00"),
        (math.nan, "f97e00"),
        (False, "f4"),
        (True, "f5"),
        (None, "f6"),
        (b"\x01\x02\x03\x04", "4401020304"),
        ("ü", "62c3bc"),
        ([1, [2, 3], [4, 5]], "8301820203820405"),
        ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    ],
)
def test_the_standards_examples(value: Any, encoded: str) -> None:
    assert encode(value).hex() == encoded
    assert repr(decode(bytes.fromhex(encoded), canonical=True)) == repr(value)


def test_keys_are_sorted_whatever_their_order() -> None:
    assert encode({"b": 1, "aa": 2, "a": 3}) == encode({"aa": 2, "a": 3, "b": 1})
    assert encode({"b": 1, "aa": 2, "a": 3}).hex() == "a3616103616201626161" + "02"


def test_the_standards_array() -> None:
    # RFC 8746, section 3.1.1: tag 40 around [dimensions, typed array]; here 2 x 3 in little-endian 16 bits
    array = ArrayView("uint16", (2, 3), struct.pack("<6H", 2, 4, 8, 4, 16, 256))
    assert encode(array).hex() == "d82882820203d8454c" + "020004000800040010000001"
    assert array.tolist() == [[2, 4, 8], [4, 16, 256]]


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_arrays_become_lists(dtype: str) -> None:
    code = DTYPES[dtype]
    array = decode(encode(ArrayView(dtype, (2, 1, 3), struct.pack(f"<6{code}", *range(6)))))
    assert array.tolist() == [[[0, 1, 2]], [[3, 4, 5]]]
    assert (array.size, array.nbytes) == (6, 6 * struct.calcsize(code))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((), 7.0), ((1,), [7.0]), ((0,), []), ((2, 0), [[], []]), ((0, 2), []), ((2, 0, 3), [[], []])],
)
def test_arrays_without_dimensions_or_elements(shape: tuple[int, ...], expected: Any) -> None:
    array = ArrayView("float64", shape, struct.pack("<d", 7.0) * math.prod(shape))
    assert array.tolist() == expected
    assert decode(encode(array)) == array


def test_array_data_may_be_any_contiguous_memory() -> None:
    memory = memoryview(struct.pack("<4d", 1, 2, 3, 4)).cast("d")
    array = ArrayView("float64", (2, 2), memory.cast("B").cast("d", (2, 2)))
    assert array.tolist() == [[1, 2], [3, 4]]
    assert decode(encode(array)).tolist() == [[1, 2], [3, 4]]


def test_other_buffers_travel_as_bytes_and_tuples_as_lists() -> None:
    assert decode(encode([bytearray(b"ab"), memoryview(b"cd"), (1, 2)])) == [b"ab", b"cd", [1, 2]]


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "reason"),
    [
        ("bool", (1,), b"\x01", "'bool' cannot travel"),
        (">f8", (1,), bytes(8), "cannot travel"),
        ("float64", (2,), bytes(8), "has 16 bytes, not 8"),
        ("float64", (1,), memoryview(bytes(16)).cast("d"), "has 8 bytes, not 16"),
        ("uint8", (-1,), b"", "none negative"),
        ("uint8", (True,), b"\x00", "none negative"),
        ("uint8", (1.0,), b"\x00", "none negative"),
        ("uint8", (1,) * 17, b"\x00", "up to 16 lengths"),
        ("uint8", (2**40, 0), b"", "empty array claims"),
        ("uint8", (2**63, 2**63), b"\x00", "bytes, not 1"),
    ],
)
def test_arrays_that_contradict_themselves_are_refused(
    dtype: str, shape: Any, data: bytes | memoryview, reason: str
) -> None:
    with pytest.raises(InvalidMessage, match=reason):
        ArrayView(dtype, shape, data)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (2**64, "65 bits does not fit"),
        (-(2**63) - 1, "does not fit"),
        ({1: 2}, "keys must be text, not int"),
        ({b"a": 2}, "keys must be text, not bytes"),
        ([{1, 2}], "type set cannot travel"),
        (1j, "type complex"),
        (object, "type type"),
        ("\ud800", "surrogate"),
        ({"\ud800": 1}, "surrogate"),
    ],
)
def test_values_outside_the_data_model_are_refused(value: Any, reason: str) -> None:
    with pytest.raises(InvalidMessage, match=reason):
        encode(value)


LARGE = 16 * 1024


def typed(size: int, content: bytes, shape: int | None = None) -> bytes:
    """An array of bytes in CBOR, its elements given as `content`."""
    return b"\xd8\x28\x82\x81" + cbor2.dumps(size if shape is None else shape) + b"\xd8\x40" + content


def large_array(fill: int, size: int = 70_000) -> ArrayView:
    return ArrayView("uint8", (size,), bytes([fill]) * size)


@pytest.mark.parametrize("size", [LARGE - 1, LARGE, 5 * LARGE])
def test_large_arrays_travel_among_all_else(size: int) -> None:
    value = {
        "large": [large_array(1, size), b"\xd8\x40" * LARGE, large_array(2, size), 5],
        "": ArrayView("float32", (0,), b""),
        "text": "x" * 70_000,
        "small": large_array(3, 3),
    }
    encoded = encode(value)
    expected = cbor2.CBORTag(40, [[size], cbor2.CBORTag(64, bytes([1]) * size)])
    assert cbor2.dumps(expected) in encoded
    found = decode(encoded, max_bytes=10**7, canonical=True)
    assert found == value
    assert encode(found) == encoded


def test_large_arrays_share_the_memory_of_their_message() -> None:
    room = bytearray(encode([large_array(1), large_array(2)]))
    found = decode(memoryview(room), max_bytes=len(room))
    data = [array.data for array in found]
    assert all(isinstance(view, memoryview) and view.readonly and view.obj is room for view in data)


@pytest.mark.parametrize("size", [3, LARGE - 1, LARGE, 5 * LARGE])
def test_the_pieces_of_a_message_are_the_message_and_hold_no_copy(size: int) -> None:
    numbers = array("d", range(2 * size))
    value = ["x", large_array(1, size), ArrayView("float64", (2, size), memoryview(numbers)), {"end": 5}]
    pieces = encode_in_pieces(value)
    assert b"".join(pieces) == encode(value, canonical=False)
    assert all(memoryview(piece).itemsize == 1 for piece in pieces)
    own = [piece for piece in pieces if isinstance(piece, memoryview) and piece.obj is numbers]
    assert sum(map(len, own)) == (16 * size if 16 * size >= LARGE else 0)


def test_items_are_counted_though_the_elements_are_elsewhere() -> None:
    assert b"".join(encode_in_pieces([large_array(1), [0] * (MAX_ITEMS - 8)]))
    with pytest.raises(InvalidMessage, match="items"):
        encode_in_pieces([large_array(1), [0] * MAX_ITEMS])


@pytest.mark.parametrize(
    "items",
    [
        [typed(70_000, cbor2.dumps(0))],
        [typed(70_000, cbor2.dumps(0)), typed(70_000, cbor2.dumps(bytes(70_000)))],
        [typed(70_000, cbor2.dumps(bytes(70_000))), typed(70_000, cbor2.dumps(0))],
        [typed(70_000, cbor2.dumps(bytes(70_000))), typed(70_000, cbor2.dumps(1))],
        [typed(70_000, cbor2.dumps(True)), typed(70_000, cbor2.dumps(bytes(70_000)))],
        [typed(70_000, cbor2.dumps(bytes(70_000)), 70_001)],
        [typed(70_000, cbor2.dumps(bytes(70_000))[:-1])],
    ],
    ids=[
        "a number",
        "a number before",
        "a number behind",
        "the next number",
        "a truth",
        "shape",
        "cut short",
    ],
)
def test_large_arrays_are_nothing_but_bytes(items: list[bytes]) -> None:
    message = bytes([0x80 + len(items) + 1]) + cbor2.dumps("x" * 70_000) + b"".join(items)
    with pytest.raises(InvalidMessage):
        decode(message, max_bytes=10**7)
