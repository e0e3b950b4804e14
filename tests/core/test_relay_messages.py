import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import ProtocolError
from fedd.core import codec
from fedd.core.identity import PrivateKey
from fedd.core.relay_messages import (
    LENGTH,
    MAX_MESSAGE_BYTES,
    MAX_REASON_CHARS,
    check_length,
    decode_answer,
    decode_source,
    decode_target,
    encode_answer,
    encode_source,
    encode_target,
)

PEER = PrivateKey.from_seed(b"p" * 32).peer_id


def body(message: bytes) -> bytes:
    (length,) = LENGTH.unpack(message[: LENGTH.size])
    assert check_length(length) == len(message) - LENGTH.size
    return message[LENGTH.size :]


def test_what_is_said_is_understood() -> None:
    assert decode_target(body(encode_target(PEER))) == PEER
    assert decode_source(body(encode_source(PEER))) == PEER
    assert decode_answer(body(encode_answer(None))) is None
    assert decode_answer(body(encode_answer("no seat"))) == "no seat"


def test_the_wire_format() -> None:
    key = bytes.fromhex("0024080112") + b"\x20" + PrivateKey.from_seed(b"p" * 32).public_key.to_protobuf()[4:]
    assert encode_target(PEER) == b"\x00\x2c\xa1\x62to\x58\x26" + key
    assert encode_source(PEER) == b"\x00\x2e\xa1\x64from\x58\x26" + key
    assert encode_answer(None) == b"\x00\x05\xa1\x62ok\xf5"
    assert encode_answer("no") == b"\x00\x0c\xa1\x67refused\x62no"


def test_a_request_is_no_offer() -> None:
    with pytest.raises(ProtocolError):
        decode_source(body(encode_target(PEER)))
    with pytest.raises(ProtocolError):
        decode_target(body(encode_source(PEER)))


def test_a_long_refusal_is_cut_and_control_characters_go() -> None:
    assert len(encode_answer("x" * 10_000)) < MAX_MESSAGE_BYTES
    assert decode_answer(codec.encode({"refused": "y" * 500})) == "y" * MAX_REASON_CHARS
    assert decode_answer(codec.encode({"refused": "\x1b[31mred\n"})) == "[31mred"
    assert len(encode_answer("\U0001f600" * 10_000)) <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        [],
        {},
        {"ok": False},
        {"ok": 1},
        {"ok": True, "refused": "x"},
        {"refused": b"x"},
        {"refused": None},
    ],
)
def test_other_answers_are_refused(value: object) -> None:
    with pytest.raises(ProtocolError):
        decode_answer(codec.encode(value))


@pytest.mark.parametrize("value", [None, [], {}, {"to": "text"}, {"to": b"no peer"}, {"to": b"", "x": 1}])
def test_other_requests_are_refused(value: object) -> None:
    with pytest.raises(ProtocolError):
        decode_target(codec.encode(value))


@pytest.mark.parametrize("length", [0, -1, MAX_MESSAGE_BYTES + 1, 65535])
def test_lengths_out_of_bounds(length: int) -> None:
    with pytest.raises(ProtocolError):
        check_length(length)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    for decode in (decode_target, decode_source, decode_answer):
        with contextlib.suppress(ProtocolError):
            decode(data)
