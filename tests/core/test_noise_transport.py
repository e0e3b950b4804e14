"""The ciphers behind the Noise handshake: frames sealed and opened, and what breaks a link."""

from __future__ import annotations

import pytest

from fedd.api.errors import ProtocolError
from fedd.core.noise import FRAME_OVERHEAD_BYTES, FULL_FRAME_BYTES, MAX_PLAINTEXT_BYTES, NoiseTransport


def transports() -> tuple[NoiseTransport, NoiseTransport]:
    return NoiseTransport(b"1" * 32, b"2" * 32), NoiseTransport(b"2" * 32, b"1" * 32)


@pytest.mark.parametrize("size", [0, 1, 1000, MAX_PLAINTEXT_BYTES])
def test_every_way_to_seal_fits_every_way_to_open(size: int) -> None:
    plaintext = bytes(range(256)) * (size // 256 + 1)
    plaintext = plaintext[:size]
    near, far = transports()
    wire = bytearray(2 * (size + FRAME_OVERHEAD_BYTES) + 3)
    offset = near.seal_into(memoryview(wire), 3, memoryview(plaintext))
    assert offset == 3 + size + FRAME_OVERHEAD_BYTES
    assert near.seal_into(wire, offset, bytearray(plaintext)) == len(wire)
    destination = bytearray(size + 5)
    assert far.open_into(memoryview(wire)[5:offset], memoryview(destination)) == size
    assert destination == plaintext + bytes(5)
    assert far.decrypt(memoryview(wire)[offset + 2 :]) == plaintext
    destination = bytearray(size)
    assert far.open_into(near.encrypt(plaintext)[2:], destination) == size
    assert destination == plaintext


def test_frames_arrive_whole_however_they_are_cut() -> None:
    near, far = transports()
    wire = near.encrypt(b"one") + near.encrypt(b"") + near.encrypt(b"two")
    heard = [plaintext for byte in wire for plaintext in far.receive_data(bytes([byte]))]
    assert heard == [b"one", b"two"]


def test_sealing_what_does_not_fit_is_an_error_that_costs_no_nonce() -> None:
    near, far = transports()
    with pytest.raises(ValueError, match="does not fit"):
        near.encrypt(bytes(MAX_PLAINTEXT_BYTES + 1))
    with pytest.raises(ValueError, match="does not fit"):
        near.seal_into(bytearray(10 + FRAME_OVERHEAD_BYTES), 1, bytes(10))
    assert far.receive_data(near.encrypt(b"ok")) == [b"ok"]


@pytest.mark.parametrize("size", [0, 1, FULL_FRAME_BYTES, FULL_FRAME_BYTES + 1, 3 * FULL_FRAME_BYTES + 500])
def test_many_frames_are_sealed_in_one_pass(size: int) -> None:
    plaintext = memoryview(bytes(range(251)) * (size // 251 + 1))[:size]
    count = -(-size // FULL_FRAME_BYTES)
    together, singly = transports()[0], transports()[0]
    wire, expected = (memoryview(bytearray(7 + size + count * FRAME_OVERHEAD_BYTES)) for _ in range(2))
    end = offset = 7
    for start in range(0, size, FULL_FRAME_BYTES):
        offset = singly.seal_into(expected, offset, plaintext[start : start + FULL_FRAME_BYTES])
    assert together.seal_frames(wire, end, plaintext) == offset == len(wire)
    assert wire == expected
    assert together.encrypt(b"next") == singly.encrypt(b"next")


def test_frames_that_do_not_fit_cost_no_nonce() -> None:
    near, far = transports()
    size = FULL_FRAME_BYTES + 1
    with pytest.raises(ValueError, match="do not fit"):
        near.seal_frames(memoryview(bytearray(size + 2 * FRAME_OVERHEAD_BYTES)), 1, bytes(size))
    assert far.receive_data(near.encrypt(b"ok")) == [b"ok"]
    near._send_nonce = 2**64 - 2  # good for one frame more
    room = memoryview(bytearray(size + 2 * FRAME_OVERHEAD_BYTES))
    with pytest.raises(ProtocolError, match="used up its nonces"):
        near.seal_frames(room, 0, bytes(size))
    assert near.seal_frames(room, 0, b"last") == 4 + FRAME_OVERHEAD_BYTES
    with pytest.raises(ProtocolError, match="used up its nonces"):
        near.seal_frames(room, 0, b"one too many")


def test_opening_into_too_little_room_is_an_error_that_loses_nothing() -> None:
    near, far = transports()
    frame = near.encrypt(b"hello")
    with pytest.raises(ValueError, match="does not fit into 4"):
        far.open_into(frame[2:], bytearray(4))
    assert far.decrypt(frame[2:]) == b"hello"


@pytest.mark.parametrize("way", ["decrypt", "open_into"])
def test_frames_that_were_changed_reordered_or_replayed_break_the_link(way: str) -> None:
    def opened(transport: NoiseTransport, frame: bytes) -> bytes:
        if way == "decrypt":
            return transport.decrypt(frame[2:])
        destination = bytearray(100)
        return bytes(destination[: transport.open_into(frame[2:], destination)])

    near, far = transports()
    first, second = near.encrypt(b"first"), near.encrypt(b"second")
    cases = [second, first[:-1] + bytes([first[-1] ^ 1]), first[:10], b"\x00\x00"]
    for bad in cases:
        _, far = transports()
        with pytest.raises(ProtocolError, match="not authentic"):
            opened(far, bad)
        with pytest.raises(ProtocolError, match="no more"):
            opened(far, first)
    _, far = transports()
    assert opened(far, first) == b"first"
    with pytest.raises(ProtocolError, match="not authentic"):
        opened(far, first)
    near, _ = transports()
    with pytest.raises(ProtocolError, match="not authentic"):
        opened(near, near.encrypt(b"reflected"))


def test_whole_frames_are_opened_together() -> None:
    near, far = transports()
    messages = [b"one", b"", bytes(range(200)), b"four"]
    wire = memoryview(b"".join(near.encrypt(message) for message in messages))
    destination = bytearray(len(wire))
    whole = len(wire) - FRAME_OVERHEAD_BYTES - len(messages[-1])
    for cut in (whole, whole + 1, len(wire) - 1):
        _, far = transports()
        used, written = far.open_frames(wire[:cut], memoryview(destination))
        assert (used, bytes(destination[:written])) == (whole, b"".join(messages[:-1]))
        used, written = far.open_frames(wire[used:], memoryview(destination))
        assert (used, bytes(destination[:written])) == (len(wire) - whole, messages[-1])
        assert far.open_frames(wire[:0], memoryview(destination)) == (0, 0)
        assert far.failure is None


@pytest.mark.parametrize("bad", ["changed", "replayed", "short", "behind the last nonce"])
def test_what_precedes_a_bad_frame_is_still_given(bad: str) -> None:
    near, far = transports()
    good, second = near.encrypt(b"good"), near.encrypt(b"second")
    frame = {
        "changed": second[:-1] + bytes([second[-1] ^ 1]),
        "replayed": good,
        "short": b"\0\x0f" + bytes(15),
    }
    if bad == "behind the last nonce":
        near, far = transports()
        near._send_nonce = far._receive_nonce = 2**64 - 2
        good, frame[bad] = near.encrypt(b"good"), second
    destination = memoryview(bytearray(200))
    assert far.open_frames(memoryview(good + frame[bad] + second), destination) == (len(good), 4)
    assert destination[:4] == b"good"
    assert isinstance(far.failure, ProtocolError)
    assert far.open_frames(memoryview(second), destination) == (0, 0)


def test_nonces_are_never_used_twice() -> None:
    near, far = transports()
    near._send_nonce = far._receive_nonce = 2**64 - 2
    frame = near.encrypt(b"last")
    assert far.decrypt(frame[2:]) == b"last"
    with pytest.raises(ProtocolError, match="used up its nonces"):
        near.encrypt(b"one too many")
    with pytest.raises(ProtocolError, match="nonces"):
        far.decrypt(frame[2:])
