"""The protobuf subset: what it writes it reads, what it does not know it skips, the rest it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedd.api.errors import ProtocolError
from fedd.core.protobuf import (
    MAX_FIELDS,
    bytes_field,
    decode_message,
    encode_message,
    int_field,
    repeated_bytes,
)

fields = st.lists(
    st.tuples(st.integers(1, 2**29 - 1), st.one_of(st.integers(0, 2**63 - 1), st.binary(max_size=40))),
    max_size=12,
)


@given(fields)
def test_messages_survive(written: list[tuple[int, int | bytes]]) -> None:
    expected: dict[int, list[int | bytes]] = {}
    for number, value in written:
        expected.setdefault(number, []).append(value)
    assert decode_message(encode_message(written)) == expected


@given(st.binary(max_size=60))
def test_garbage_raises_nothing_but_protocol_errors(data: bytes) -> None:
    try:
        decode_message(memoryview(data))
    except ProtocolError:
        return


def test_the_encoding_guides_example() -> None:
    # https://protobuf.dev/programming-guides/encoding/: field 1 = 150, field 2 = "testing"
    assert encode_message([(1, 150), (2, b"testing")]).hex() == "089601120774657374696e67"


def test_fixed_width_fields_are_skipped() -> None:
    data = bytes([1 << 3 | 1]) + bytes(8) + bytes([2 << 3 | 5]) + bytes(4) + bytes([3 << 3, 7])
    assert decode_message(data) == {3: [7]}


def test_a_negative_number_of_an_unknown_field_is_skipped() -> None:
    minus_one = b"\xff" * 9 + b"\x01"
    assert decode_message(b"\x48" + minus_one + b"\x10\x05") == {9: [2**64 - 1], 2: [5]}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("08", "ends inside a protobuf number"),
        ("08ff", "ends inside a protobuf number"),
        ("08" + "ff" * 10, "longer than 64 bits"),
        ("00", "number 0"),
        ("1203ffff", "ends inside protobuf field 2"),
        ("09ff", "ends inside protobuf field 1"),
        ("0b", "wire type 3"),
        ("0800" * (MAX_FIELDS + 1), "more than 256 fields"),
    ],
)
def test_broken_messages_are_refused_with_the_reason(data: str, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        decode_message(bytes.fromhex(data))


def test_as_many_fields_as_allowed_are_read() -> None:
    assert len(decode_message(b"\x08\x00" * MAX_FIELDS)[1]) == MAX_FIELDS


def test_the_last_value_of_a_field_counts() -> None:
    message = decode_message(encode_message([(1, 1), (1, 2), (2, b"a"), (2, b"b")]))
    assert int_field(message, 1) == 2
    assert bytes_field(message, 2) == b"b"
    assert repeated_bytes(message, 2) == [b"a", b"b"]


def test_absent_fields_are_none() -> None:
    assert int_field({}, 1) is None
    assert bytes_field({}, 1) is None
    assert repeated_bytes({}, 1) == []


def test_a_field_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(ProtocolError, match="bytes where a number"):
        int_field({1: [b"x"]}, 1)
    with pytest.raises(ProtocolError, match="number where bytes"):
        bytes_field({1: [7]}, 1)
