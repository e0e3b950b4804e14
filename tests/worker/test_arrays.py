"""Messages cross with dtype and shape unchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedd.api import InvalidMessage
from fedd.core.pieces import Pieces, whole
from fedd.worker.arrays import decode, encode, encode_each, encode_to_send

INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", *INTEGERS])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 0, 3)])
def test_every_dtype_and_shape_arrives_as_it_was(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int), dtype=dtype).reshape(shape)
    back = decode(encode({"a": [array]}), 10_000)["a"][0]
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)


def test_views_and_byte_orders_are_normalised() -> None:
    array = np.arange(12, dtype=">f8").reshape(3, 4)
    for view in (array, array.T, array[::2, 1:], np.asfortranarray(array)):
        back = decode(encode(view), 10_000)
        np.testing.assert_array_equal(back, view)
        assert back.dtype == np.float64


def test_scalars_bools_and_tuples_become_plain() -> None:
    message: Any = (np.float32(0.5), np.int64(7), np.bool_(True), np.array([True, False]))
    back = decode(encode(message), 1000)
    assert back[:3] == [0.5, 7, True]
    assert type(back[1]) is int
    assert back[3].tolist() == [1, 0]


def test_what_arrives_is_read_only() -> None:
    back = decode(encode(np.ones(3)), 1000)
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 2


@pytest.mark.parametrize("bad", [np.array(["x"]), np.array([1j]), np.array([None]), {1, 2}, object(), 2**70])
def test_what_cannot_travel(bad: Any) -> None:
    with pytest.raises(InvalidMessage):
        encode([bad])


def test_the_bound_holds() -> None:
    data = encode(np.ones(100))
    with pytest.raises(InvalidMessage):
        decode(data, len(data) - 1)


def test_one_object_for_several_peers_is_encoded_once() -> None:
    same, like_it = [np.ones(3)], [np.ones(3)]
    found = encode_each({"a": same, "b": like_it, "c": same, "d": None}.__getitem__, "abcd")
    assert found == {**dict.fromkeys("abc", encode(same)), "d": encode(None)}
    assert found["c"] is found["a"]
    assert found["b"] is not found["a"]


def test_objects_that_do_not_last_are_not_taken_for_each_other() -> None:
    found = encode_each(lambda peer: [ord(peer)], "abc")
    assert [decode(found[peer], 100) for peer in "abc"] == [[97], [98], [99]]


def test_large_arrays_are_sent_from_where_they_are() -> None:
    numbers = np.arange(10_000.0)
    sent = encode_to_send(["x", numbers])
    assert isinstance(sent, Pieces)
    assert whole(sent) == encode(["x", numbers])
    assert any(np.shares_memory(np.frombuffer(piece, np.uint8), numbers) for piece in sent.buffers)
    assert encode_to_send(["x", numbers[:9]]) == encode(["x", numbers[:9]])
