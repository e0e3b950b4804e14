"""Unsigned varints: one spelling a number, clear errors for the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedd.api.errors import ProtocolError
from fedd.core.varint import MAX_UVARINT_BYTES, decode_uvarint, encode_uvarint

# The examples of https://github.com/multiformats/unsigned-varint
PUBLISHED = [
    (1, "01"),
    (127, "7f"),
    (128, "8001"),
    (255, "ff01"),
    (300, "ac02"),
    (16384, "808001"),
]


@pytest.mark.parametrize(("number", "encoded"), [*PUBLISHED, (0, "00"), (2**63 - 1, "ff" * 8 + "7f")])
def test_known_numbers(number: int, encoded: str) -> None:
    assert encode_uvarint(number).hex() == encoded
    assert decode_uvarint(bytes.fromhex(encoded)) == (number, len(encoded) // 2)


@given(st.integers(0, 2**63 - 1), st.binary(max_size=4), st.binary(max_size=4))
def test_any_number_survives_at_any_offset(number: int, before: bytes, after: bytes) -> None:
    data = before + encode_uvarint(number) + after
    assert decode_uvarint(memoryview(data), len(before)) == (number, len(data) - len(after))


@given(st.binary(max_size=12))
def test_what_is_accepted_has_no_other_spelling(data: bytes) -> None:
    try:
        number, end = decode_uvarint(data)
    except ProtocolError:
        return
    assert encode_uvarint(number) == data[:end]
    assert end <= MAX_UVARINT_BYTES


@pytest.mark.parametrize("number", [-1, 2**63])
def test_numbers_outside_63_bits_are_not_encoded(number: int) -> None:
    with pytest.raises(ValueError, match="2\\*\\*63"):
        encode_uvarint(number)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends inside"),
        (b"\x80", "ends inside"),
        (b"\x81\x00", "shortest"),
        (b"\xff" * 9 + b"\x01", "63 bits"),
    ],
)
def test_broken_varints_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        decode_uvarint(data)
