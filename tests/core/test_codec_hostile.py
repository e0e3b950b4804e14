"""What a decoder refuses: nesting, bombs, tags, garbage, and what another implementation reads."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from core.test_codec import head, values
from federation.processor import least_cpu_s, on_this_machine_s
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import InvalidMessage
from fedd.core.codec import MAX_DEPTH, MAX_ITEMS, MAX_MESSAGE_BYTES, ArrayView, decode, encode


def nested(depth: int) -> Any:
    value: Any = ArrayView("uint8", (1,), b"x")
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


def test_values_nest_as_deep_as_allowed_and_no_deeper() -> None:
    deepest = nested(MAX_DEPTH)
    empty: list[Any] = []
    for _ in range(MAX_DEPTH):
        empty = [empty]
    assert decode(encode(deepest)) == deepest
    for too_deep in (nested(MAX_DEPTH + 1), nested(100_000), empty):
        with pytest.raises(InvalidMessage, match="nests deeper than 16"):
            encode(too_deep)
    with pytest.raises(InvalidMessage, match="nests deeper than 16"):
        decode(b"\x81" * (MAX_DEPTH + 1) + b"\x00")
    with pytest.raises(InvalidMessage, match="nests deeper than 16"):
        decode(b"\xa1\x60" * (MAX_DEPTH + 1) + b"\x00")


FEW, MANY = 1, 40
PLACES: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "dict": lambda items: {str(key): item for key, item in enumerate(items)},
    "list of lists": lambda items: [[item] for item in items],
    "list of dicts": lambda items: [{"k": item} for item in items],
}


def padded(value: Any, level: int) -> Any:
    """The same with more in each list and dict at that level than are looked at one by one."""
    if isinstance(value, dict):
        inner = {key: padded(item, level - 1) for key, item in value.items()}
        return {f"_{number}": None for number in range(MANY)} | inner if level == 0 else inner
    if isinstance(value, list | tuple):
        items = [padded(item, level - 1) for item in value]
        return [None] * MANY + items if level == 0 else items
    return value


def travels(value: Any) -> bool:
    """Whether it is encoded, in which case it comes back as it was."""
    try:
        encoded = encode(value)
    except InvalidMessage:
        return False
    assert decode(encoded, canonical=True) == padded(value, -1)
    return True


@pytest.mark.parametrize("leaf", [0, ArrayView("uint8", (1,), b"x"), [], {}])
@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"k": inner}, lambda inner: (inner,)])
def test_the_bound_of_depth_is_exact_for_few_and_for_many(leaf: Any, wrap: Callable[[Any], Any]) -> None:
    deepest = leaf
    for _ in range(MAX_DEPTH - isinstance(leaf, list | dict)):
        deepest = wrap(deepest)
    for level in range(-1, MAX_DEPTH + 1):
        assert travels(padded(deepest, level))
        with pytest.raises(InvalidMessage, match="nests deeper than 16"):
            encode(padded(wrap(deepest), level))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("before", [FEW, MANY])
def test_what_travels_does_so_among_few_and_among_many(place: str, before: int) -> None:
    put = PLACES[place]
    fit = [-(2**63), 2**64 - 1, b"x", bytearray(b"x"), memoryview(b"x"), ArrayView("uint8", (1,), b"x"), True]
    for item in fit:
        assert travels(put([0] * before + [item]))
    for item, reason in (
        (-(2**63) - 1, "an integer of 64 bits"),
        (2**64, "an integer of 65 bits"),
        (1j, "type complex"),
        ({1: 0}, "keys must be text, not int"),
    ):
        with pytest.raises(InvalidMessage, match=reason):
            encode(put([0] * before + [item]))


odd = st.sampled_from([2**64, -(2**63) - 1, 1j, {1, 2}, {b"k": 0}, (), memoryview(b"xy")])
mixed = st.recursive(
    values | odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(mixed, st.integers(0, MAX_DEPTH + 1), st.integers(0, MAX_DEPTH + 2))
def test_few_and_many_have_the_same_verdict(value: Any, depth: int, level: int) -> None:
    for number in range(depth):
        value = {"k": value} if number % 3 else [value]
    assert travels(value) == travels(padded(value, level))


TAGGED_ARRAY = encode(ArrayView("uint8", (2,), b"xy"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed"),
        (b"\x00\x00", "1 bytes too many"),
        (TAGGED_ARRAY + b"\x00" * 9, "9 bytes too many"),
        (b"\x82\x00", "malformed"),
        (b"\xff", "malformed"),
        (b"\x1c", "malformed"),
        (b"\x62\xff\xfe", "malformed"),
        (b"\x5f\x41a\xff", "indefinite"),
        (b"\x7f\x61a\xff", "indefinite"),
        (b"\x9f\xff", "indefinite"),
        (b"\xbf\xff", "indefinite"),
        (b"\xa2\x61a\x00\x61a\x00", "Duplicate"),
        (b"\xa1\x00\x00", "malformed"),
        (b"\xa1\xf9\x7e\x00\x00", "malformed"),
        (b"\xa1\x80\x00", "malformed"),
        (b"\xa1\x41a\x00", "keys must be text"),
        (b"\xf7", "type undefined_type|type .*ndefined"),
        (b"\xe0", "type CBORSimpleValue"),
        (b"\xf8\x20", "type CBORSimpleValue"),
        (b"\x3b" + b"\xff" * 8, "65 bits does not fit"),
        (b"\xd8\x40\x41a", "type .* cannot travel"),  # a typed array without its shape
        (b"\xd8\x40\x61a", "something else than bytes"),
        (b"\xd8\x40\x80", "something else than bytes"),
        (b"\xd8\x28\x00", "something else than .shape"),
        (b"\xd8\x28\x81\x80", "something else than .shape"),
        (b"\xd8\x28\x82\x81\x01\x81\x01", "something else than .shape"),
        (b"\xd8\x28\x82\x01\xd8\x40\x41a", "something else than .shape"),
        (b"\xd8\x28\x82\x81\x20\xd8\x40\x41a", "none negative"),
        (b"\xd8\x28\x82\x81\x02\xd8\x40\x41a", "has 2 bytes, not 1"),
        (b"\xd8\x28\x82\x81\x01\xd8\x41\x42ab", "tag 65 is not allowed"),  # big-endian
        (b"\xd8\x28\x82\x82\x1b" + b"\xff" * 8 + b"\x00\xd8\x40\x40", "empty array claims"),
    ],
)
def test_unacceptable_messages_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidMessage, match=reason):
        decode(data)


@pytest.mark.parametrize(
    "twin",
    [
        "1800",  # a number in more bytes than needed
        "190000",
        "fb3ff8000000000000",  # 1.5 as a double
        "f97e01",  # another NaN
        "5801aa",
        "9800",
        "a2616201616101",  # keys unsorted
        "d8288281190001d84041aa",
    ],
)
def test_a_non_canonical_twin_is_refused_where_it_matters(twin: str) -> None:
    data = bytes.fromhex(twin)
    value = decode(data)
    assert encode(value) != data
    with pytest.raises(InvalidMessage, match="canonical"):
        decode(data, canonical=True)


def test_canonical_messages_may_come_in_any_buffer() -> None:
    data = encode({"a": [1, b"x"]})
    for buffer in (data, bytearray(data), memoryview(data)):
        assert decode(buffer, canonical=True) == {"a": [1, b"x"]}


def test_every_tag_but_the_arrays_is_refused() -> None:
    ours = {40, 64, 69, 70, 71, 72, 77, 78, 79, 84, 85, 86}
    contents = (b"\x00", b"\x41a", b"\x61a", b"\x80", b"\x82\x00\x01", b"\xa0")
    for tag in [*range(1100), 43000, 55799, *range(69_990, 70_001), 2**32, 2**64 - 1]:
        for content in contents:
            with pytest.raises(InvalidMessage) as caught:
                decode(head(6, tag) + content)
            if tag not in ours:
                assert "allowed" in caught.value.detail, tag


def test_a_tag_that_a_later_cbor2_might_build_is_caught_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedd.core.codec._REFUSING_DECODERS", {1: lambda content, immutable: 1j})
    with pytest.raises(InvalidMessage, match="type complex"):
        decode(b"\xc1\x00")


def test_a_message_has_a_bound() -> None:
    largest = bytes(MAX_MESSAGE_BYTES - 3)
    assert decode(encode(largest)) == largest
    with pytest.raises(InvalidMessage, match="longer than the 65536 allowed"):
        decode(encode(largest + b"x"))
    assert decode(encode(largest + b"x"), max_bytes=MAX_MESSAGE_BYTES + 1) == largest + b"x"


def test_large_messages_hold_a_bounded_number_of_items() -> None:
    fits = [0] * (MAX_ITEMS - 1)
    assert decode(encode(fits), max_bytes=10**6) == fits
    with pytest.raises(InvalidMessage, match="more than 65536 items") as caught:
        encode([*fits, 0])
    assert "arrays" in caught.value.hint
    with pytest.raises(InvalidMessage, match="more than 65536 items"):
        decode(head(4, MAX_ITEMS) + b"\x00" * MAX_ITEMS, max_bytes=10**6)
    many = {"text": ["x" * 300] * 300, "array": ArrayView("float32", (3,), bytes(12))}
    assert decode(encode(many), max_bytes=10**6) == many


@pytest.mark.parametrize("tail", [b"\x5a\xff\xff\xff\xff", b"\x1b\x00", b"\x5f\x41a\xff", b""])
def test_large_messages_are_refused_for_other_reasons_too(tail: bytes) -> None:
    data = b"\x82" + encode(bytes(MAX_MESSAGE_BYTES)) + tail
    with pytest.raises(InvalidMessage):
        decode(data, max_bytes=10**6)


def _fill(item: bytes, size: int = MAX_MESSAGE_BYTES) -> bytes:
    """Return an array of as many `item`s as fit."""
    count = (size - 5) // len(item)
    return head(4, count) + item * count


_NESTED_REGEX = b"(((a{1,999}){1,999}){1,999}){1,999}"
_LAUGHS = b"".join(b"\xd8\x1c\x82" + (b"\xd8\x1d" + head(0, n)) * 2 for n in range(40))
_COLLIDING = b"".join(
    b"\xc2" + head(2, 13) + (n * (2**61 - 1)).to_bytes(13, "big") + b"\0" for n in range(1, 4000)
)
_MIME = b"Content-Type: multipart/mixed; boundary=a\n\n" + b"--a\n\n" * 13_000
_BIG = head(2, 30_000) + b"\xff" * 30_000
BOMBS = {
    "deep lists": b"\x81" * 65_535 + b"\x00",
    "deep maps": b"\xa1\x60" * 32_767 + b"\x00",
    "deep tags": b"\xc6" * 65_535 + b"\x00",
    "deep unknown tags": b"\xd8\x63" * 32_767 + b"\x00",
    "huge list": b"\x9b\x7f" + b"\xff" * 7,
    "list of 2^31": head(4, 2**31),
    "huge bytes": b"\x5b\x3f" + b"\xff" * 7,
    "huge text": b"\x7b\xff" + b"\xff" * 7,
    "huge map": b"\xbb\x7f" + b"\xff" * 7,
    "endless list": b"\x9f" + b"\x00" * 65_000 + b"\xff",
    "endless bytes": b"\x5f" + b"\x41a" * 30_000 + b"\xff",
    "empty maps": _fill(b"\xa0"),
    "empty lists": _fill(b"\x80"),
    "maps of one": _fill(b"\xa1\x60\xa0"),
    "maps of maps": _fill(b"\xa1\x60" * 10 + b"\x60"),
    "floats": _fill(b"\xf9\x3c\x01"),
    "arrays": _fill(b"\xd8\x28\x82\x80\xd8\x40\x41a"),
    "arrays of many dimensions": _fill(b"\xd8\x28\x82\x90" + b"\x01" * 16 + b"\xd8\x40\x41a"),
    "arrays without elements": _fill(b"\xd8\x28\x82\x82\x1a\x00\x01\x00\x00\x00\xd8\x40\x40"),
    "sets": _fill(b"\xd9\x01\x02\x80"),
    "big number": b"\xc2" + head(2, 65_000) + b"\xff" * 65_000,
    "decimal exponent": b"\xc4\x82\x1b\x00\x00\x00\x02\x54\x0b\xe3\xff\x01",
    "float exponent": b"\xc5\x82" + head(0, 10**9) + b"\x01",
    "rational": b"\xd8\x1e\x82\xc2" + _BIG + b"\xc2" + _BIG,
    "regular expression": b"\xd8\x23" + head(3, len(_NESTED_REGEX)) + _NESTED_REGEX,
    "MIME": b"\xd8\x24" + head(3, len(_MIME)) + _MIME,
    "billion laughs": head(4, 41) + b"\xd8\x1c\x82\x00\x00" + _LAUGHS,
    "cycle": b"\xd8\x1c\x81\xd8\x1d\x00",
    "string references": b"\xd9\x01\x00"
    + head(4, 20_001)
    + head(2, 5000)
    + b"x" * 5000
    + b"\xd8\x19\x00" * 20_000,
    "colliding keys": head(5, 3999) + _COLLIDING,
    "NaN keys": head(5, 16_000) + b"\xf9\x7e\x00\x00" * 16_000,
    "equal keys": head(5, 30_000) + b"\x60\x00" * 30_000,
    "dates": b"\xc1\x1b\x7f" + b"\xff" * 7,
    "large and many": _fill(b"\xa0", 10**6),
    "large and few": _fill(b"\xa1\x60" * 15 + b"\x79\x03\xe8" + b"x" * 1000, 10**6),
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_bomb_costs_time_or_memory(name: str) -> None:
    bomb = BOMBS[name]
    limit = max(len(bomb), MAX_MESSAGE_BYTES)
    if sys.gettrace() is None:  # a coverage tracer triples the time
        assert least_cpu_s(lambda: _defuse(bomb, limit), 0.05) <= on_this_machine_s(0.05)
    tracemalloc.start()
    try:
        _defuse(bomb, limit)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 6 * 2**20 + len(bomb)


def _defuse(bomb: bytes, limit: int) -> None:
    try:
        decode(bomb, max_bytes=limit)
    except InvalidMessage:
        return


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
def test_garbage_raises_nothing_but_invalid_message(data: bytes) -> None:
    try:
        value = decode(data)
    except InvalidMessage:
        return
    assert decode(encode(value), canonical=True) is not None or value is None


@settings(max_examples=200, deadline=None)
@given(values, st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_messages_raise_nothing_but_invalid_message(
    value: Any, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(encode(value))
    for position, byte in changes:
        data[position % len(data)] = byte
    try:
        decode(data)
    except InvalidMessage:
        return


def test_another_implementation_reads_ours() -> None:
    message = {"a": [1, -2, 1.5, None, True, "é", b"x"], "b": {"c": ArrayView("int32", (1, 2), bytes(8))}}
    read = cbor2.loads(encode(message))
    array = read["b"]["c"]
    assert read["a"] == message["a"]
    assert (array.tag, list(array.value[0]), array.value[1].tag, array.value[1].value) == (
        40,
        [1, 2],
        78,
        bytes(8),
    )


def test_what_nobody_signs_may_keep_its_order() -> None:
    value = {"b": [1, memoryview(b"xy")], "a": ArrayView("uint8", (2,), b"\x01\x02")}
    loose = encode(value, canonical=False)
    assert loose != encode(value)
    back = decode(loose)
    assert (list(back), back["b"], bytes(back["a"].data)) == (["b", "a"], [1, b"xy"], b"\x01\x02")
    with pytest.raises(InvalidMessage, match="canonical"):
        decode(loose, canonical=True)
