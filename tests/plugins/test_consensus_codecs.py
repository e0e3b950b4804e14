"""Codecs: small on the wire, contractive, and exact in the end by error feedback."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedd.api import InvalidMessage, InvalidParameter, Message
from fedd_consensus.codecs import Incoming, Outgoing, find_codec

ALL = ["none", "float32", "float16", "bfloat16", "int8", "top-k:0.25"]
FORGOTTEN = {
    "none": 0.0,
    "float32": 2.0**-48,
    "float16": 2.0**-20,
    "bfloat16": 2.0**-16,
    "int8": 1024 / 254**2,
    "top-k:0.25": 0.75,
}
"""The most that may be missing of the sum of squares: 1 - delta."""

vectors = hnp.arrays(
    np.float64, st.integers(0, 40), elements=st.floats(-1e6, 1e6).map(lambda x: 0.0 if abs(x) < 1e-20 else x)
)


@settings(max_examples=60, deadline=None)
@given(values=vectors, name=st.sampled_from(ALL))
def test_a_codec_is_contractive_as_it_says(values: np.ndarray, name: str) -> None:
    codec = find_codec(name)
    assert codec.name == name
    decoded = codec.decode(codec.encode(values), values.size)
    assert decoded.dtype == np.float64
    assert np.sum((values - decoded) ** 2) <= FORGOTTEN[name] * np.sum(values**2) * (1 + 1e-9)


@pytest.mark.parametrize(("name", "most"), [("int8", 4 + 5000 // 256), ("float16", 20), ("top-k:0.25", 0)])
def test_blocks_have_scales_of_their_own(name: str, most: int) -> None:
    codec = find_codec(name)
    values = np.concatenate([np.full(1024, 1e6), np.full(700, 1e-6)])
    decoded = codec.decode(codec.encode(values), values.size)
    if name.startswith("top"):
        assert np.count_nonzero(decoded) == 431
        assert (decoded[:431] == 1e6).all()
    else:
        np.testing.assert_allclose(decoded, values, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "bytes_each"), [("float32", 4), ("float16", 2), ("bfloat16", 2), ("int8", 1)]
)
def test_sizes_on_the_wire(name: str, bytes_each: int) -> None:
    message = find_codec(name).encode(np.linspace(-1, 1, 4096))
    parts = message if isinstance(message, list) else [message]
    assert 4096 * bytes_each <= sum(part.nbytes for part in parts) <= 4096 * bytes_each + 16


def test_bfloat16_rounds_to_even() -> None:
    codec = find_codec("bfloat16")
    values = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, -3.0, 0.0, 1e-30])
    decoded = codec.decode(codec.encode(values), 5)
    assert decoded[:4].tolist() == [1.0, 1 + 2.0**-6, -3.0, 0.0]
    assert decoded[4] == pytest.approx(1e-30, rel=2**-8)


@pytest.mark.parametrize("name", ALL)
def test_error_feedback_reaches_the_last_digits_of_a_standing_value(name: str) -> None:
    """float32 alone would stay 1e-8 off, int8 4e-3: the next difference makes good what was forgotten."""
    rng = np.random.default_rng(2)
    target = rng.normal(size=(3, 50))
    sender, receiver = Outgoing(find_codec(name), (3, 50)), Incoming(find_codec(name), (3, 50))
    for _ in range(12):
        assert np.array_equal(receiver.apply(sender.encode(target)), sender.copy)
    assert np.abs(receiver.copy - target).max() <= 1e-13


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e31])
def test_what_cannot_be_sent_is_said(bad: float) -> None:
    with pytest.raises(InvalidMessage, match="difference"):
        Outgoing(find_codec("int8"), (2,)).encode([0.0, bad])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", None),
        ("none", np.zeros(3)),
        ("none", np.zeros(4, np.float32)),
        ("none", np.array([0, 0, 0, np.nan])),
        ("int8", np.zeros(4, np.int8)),
        ("int8", [np.zeros(2, np.float32), np.zeros(4, np.int8)]),
        ("int8", [np.array([np.inf], np.float32), np.zeros(4, np.int8)]),
        ("int8", [np.zeros(1, np.float32), np.zeros(5, np.int8)]),
        ("float16", [np.zeros(1, np.float32), np.zeros(4, np.int8)]),
        ("float16", [np.zeros(1, np.float32)]),
        ("bfloat16", np.full(4, 0x7F80, np.uint16)),
        ("bfloat16", np.zeros(4, np.uint32)),
        ("top-k:0.5", [np.array([0, 4], np.uint32), np.zeros(2)]),
        ("top-k:0.5", [np.array([1, 1], np.uint32), np.zeros(2)]),
        ("top-k:0.5", [np.array([0, 1], np.uint32), np.zeros(3)]),
    ],
)
def test_a_message_that_the_codec_never_sends_is_refused(name: str, message: Message) -> None:
    receiver = Incoming(find_codec(name), (4,))
    with pytest.raises(InvalidMessage):
        receiver.apply(message)
    assert not receiver.copy.any()


@pytest.mark.parametrize(
    "name", ["", "int4", "top-k", "top-k:", "top-k:0", "top-k:1.5", "top-k:nan", "top-k:x"]
)
def test_an_unknown_codec_is_refused(name: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        find_codec(name)
    assert caught.value.field == "codec"
    assert caught.value.hint


def test_nothing_is_an_array_too() -> None:
    for name in ALL:
        codec = find_codec(name)
        assert codec.decode(codec.encode(np.zeros(0)), 0).shape == (0,)
