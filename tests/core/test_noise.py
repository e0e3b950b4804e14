"""The Noise handshake: published vectors, any link, and everything that must be refused."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_link import converse

from fedd.api.errors import Denied, FeddError, ProtocolError
from fedd.core import noise_handshake
from fedd.core.identity import PrivateKey, PublicKey
from fedd.core.noise import HandshakeXX, NoiseTransport, SymmetricState
from fedd.core.noise_handshake import MAX_HANDSHAKE_MESSAGE_BYTES, HandshakeDone, NoiseHandshake
from fedd.core.protobuf import bytes_field, decode_message, encode_message, repeated_bytes

VECTORS = json.loads(Path(__file__).with_name("noise_vectors.json").read_text())["vectors"]
ALICE, BOB, EVE = (PrivateKey.from_seed(bytes([n]) * 32) for n in (1, 2, 3))
PREFIX = b"noise-libp2p-static-key:"


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["source"].split()[0])
def test_published_vectors(vector: dict[str, Any]) -> None:
    def end(role: str) -> HandshakeXX:
        return HandshakeXX(
            initiator=role == "init",
            static=bytes.fromhex(vector[f"{role}_static"]),
            ephemeral=bytes.fromhex(vector[f"{role}_ephemeral"]),
            prologue=bytes.fromhex(vector[f"{role}_prologue"]),
        )

    sender, receiver = end("init"), end("resp")
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    for payload, ciphertext in messages[:3]:
        assert sender.writes_next
        assert not receiver.writes_next
        assert sender.write_message(payload) == ciphertext
        assert receiver.read_message(ciphertext) == payload
        sender, receiver = receiver, sender
    assert sender.finished
    assert not sender.writes_next
    assert sender.handshake_hash == receiver.handshake_hash
    assert sender.handshake_hash.hex() == vector.get("handshake_hash", sender.handshake_hash.hex())
    sending, receiving = NoiseTransport(*sender.split()), NoiseTransport(*receiver.split())
    for payload, ciphertext in messages[3:]:  # the responder speaks first: messages alternate on
        assert sending.encrypt(payload) == len(ciphertext).to_bytes(2, "big") + ciphertext
        assert receiving.decrypt(ciphertext) == payload
        sending, receiving = receiving, sending


def test_a_protocol_name_that_is_not_32_bytes_is_padded_or_hashed() -> None:
    # Noise, section 5.2: at most 32 bytes are padded with zeros, more are hashed.
    assert SymmetricState(b"short").h == SymmetricState(b"short".ljust(32, b"\0")).h
    assert SymmetricState(b"x" * 33).h != SymmetricState(b"x" * 32).h
    assert len(SymmetricState(b"x" * 33).h) == 32


def pair(**responder: Any) -> tuple[NoiseHandshake, NoiseHandshake]:
    """Two ends with fixed keys: every handshake between them has the same bytes."""
    return (
        NoiseHandshake(ALICE, True, BOB.peer_id, static_seed=b"a" * 32, ephemeral_seed=b"A" * 32),
        NoiseHandshake(BOB, False, **responder, static_seed=b"b" * 32, ephemeral_seed=b"B" * 32),
    )


def shake(initiator: NoiseHandshake, responder: NoiseHandshake) -> tuple[list[bytes], list[HandshakeDone]]:
    """Let two ends finish; return the recording and what they found."""
    first = initiator.data_to_send()
    responder.receive_data(first)
    second = responder.data_to_send()
    found = initiator.receive_data(second)
    third = initiator.data_to_send()
    found += responder.receive_data(third)
    return [first, second, third], found


def test_both_ends_learn_who_the_other_is() -> None:
    initiator, responder = pair(muxers=("/yamux/1.0.0", "/mplex/6.7.0"))
    recording, (of_bob, of_alice) = shake(initiator, responder)
    assert (of_bob.peer_id, of_alice.peer_id) == (BOB.peer_id, ALICE.peer_id)
    assert of_bob.public_key == BOB.public_key
    assert of_bob.muxers == ("/yamux/1.0.0", "/mplex/6.7.0")
    assert of_alice.muxers == ("/yamux/1.0.0",)
    assert of_alice.trailing == b""
    assert len(recording[0]) == 2 + 32  # the first message has no payload
    initiator.receive_eof()
    assert of_alice.transport.receive_data(of_bob.transport.encrypt(b"hello")) == [b"hello"]
    assert of_bob.transport.receive_data(of_alice.transport.encrypt(b"hi")) == [b"hi"]


def test_a_process_has_one_static_key_for_an_identity() -> None:
    class Seen(NoiseHandshake):
        def remote_static(self) -> bytes:
            return self._handshake.remote_static

    def seen(key: PrivateKey) -> bytes:
        initiator = Seen(ALICE, True)
        shake(initiator, NoiseHandshake(key, False))
        return initiator.remote_static()

    assert seen(BOB) == seen(BOB)
    assert seen(PrivateKey.from_seed(BOB.seed)) != seen(BOB)  # as after a new start
    assert seen(EVE) != seen(BOB)


def test_that_a_static_key_is_a_peers_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[PublicKey] = []
    verify = PublicKey.verify

    def counted(self: PublicKey, signature: bytes, data: bytes) -> None:
        verified.append(self)
        verify(self, signature, data)

    monkeypatch.setattr(PublicKey, "verify", counted)
    alice, bob = (PrivateKey.from_seed(bytes([n]) * 32) for n in (4, 5))
    for _ in range(3):
        _, (of_bob, of_alice) = shake(NoiseHandshake(alice, True), NoiseHandshake(bob, False))
        assert (of_bob.peer_id, of_alice.peer_id) == (bob.peer_id, alice.peer_id)
    assert verified == [bob.public_key, alice.public_key]
    again = PrivateKey.from_seed(bob.seed)  # as after a new start: another static key
    shake(NoiseHandshake(alice, True), NoiseHandshake(again, False))
    assert verified[2:] == [bob.public_key]


def test_what_was_no_proof_is_none_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    eve = PrivateKey.from_seed(EVE.seed)
    monkeypatch.setattr(PrivateKey, "public_key", property(lambda self: BOB._public_key))
    signed_by_eve = noise_handshake._StaticKey(eve)  # she says that she is Bob
    monkeypatch.undo()
    eve.noise_static = signed_by_eve
    for _ in range(2):
        with pytest.raises(ProtocolError, match="not that of"):
            shake(NoiseHandshake(ALICE, True), NoiseHandshake(eve, False))


def test_keys_are_fresh_in_every_handshake() -> None:
    recordings = [shake(NoiseHandshake(ALICE, True), NoiseHandshake(BOB, False))[0] for _ in range(2)]
    for first, second in zip(*recordings, strict=True):
        assert first != second


def test_bytes_behind_the_last_message_are_handed_over() -> None:
    initiator, responder = pair()
    responder.receive_data(initiator.data_to_send())
    (of_bob,) = initiator.receive_data(responder.data_to_send())
    frame = of_bob.transport.encrypt(b"early")
    (of_alice,) = responder.receive_data(initiator.data_to_send() + frame)
    assert of_alice.trailing == frame
    assert of_alice.transport.receive_data(of_alice.trailing) == [b"early"]
    with pytest.raises(RuntimeError, match="belongs to its transport"):
        responder.receive_data(b"")


class Talker:
    """Shakes hands, then says its messages through the transport, and notes what it hears."""

    def __init__(self, handshake: NoiseHandshake, messages: list[bytes]) -> None:
        self.handshake, self.messages = handshake, messages
        self.found: HandshakeDone | None = None
        self.heard = b""
        self.outgoing = bytearray()

    def data_to_send(self) -> bytes:
        said = self.handshake.data_to_send() + bytes(self.outgoing)
        self.outgoing.clear()
        return said

    def receive_data(self, data: bytes) -> list[HandshakeDone]:
        done: list[HandshakeDone] = []
        if self.found is None:
            done = self.handshake.receive_data(data)
            if not done:
                return []
            (self.found,) = done
            data = self.found.trailing
            for message in self.messages:
                self.outgoing += self.found.transport.encrypt(message)
        for plaintext in self.found.transport.receive_data(data):
            self.heard += plaintext
        return done


messages = st.lists(st.binary(max_size=200), max_size=5)


@settings(max_examples=50, deadline=None)
@given(messages, messages, st.randoms(use_true_random=False))
def test_any_link_carries_handshake_and_messages(
    said: list[bytes], answered: list[bytes], random: Random
) -> None:
    left = Talker(NoiseHandshake(ALICE, True, BOB.peer_id), said)
    right = Talker(NoiseHandshake(BOB, False), answered)
    converse(left, right, random)
    assert left.found is not None
    assert right.found is not None
    assert (left.found.peer_id, right.found.peer_id) == (BOB.peer_id, ALICE.peer_id)
    assert (left.heard, right.heard) == (b"".join(answered), b"".join(said))


def outcome(machine: NoiseHandshake, data: bytes) -> FeddError | list[HandshakeDone]:
    """Return what the machine makes of the last bytes that it will ever get."""
    try:
        found = machine.receive_data(data)
        machine.receive_eof()
    except FeddError as error:
        return error
    return found


def test_a_recorded_handshake_with_any_bit_flipped_is_refused() -> None:
    (first, second, third), _ = shake(*pair())
    for position in range(len(first) * 8):  # not authenticated yet, but bound to all that follows
        initiator, responder = pair()
        changed = bytearray(first)
        changed[position // 8] ^= 1 << position % 8
        try:
            responder.receive_data(changed)
        except ProtocolError:
            continue
        assert isinstance(outcome(initiator, responder.data_to_send()), ProtocolError), position
    for position in range(len(second) * 8):
        changed = bytearray(second)
        changed[position // 8] ^= 1 << position % 8
        assert isinstance(outcome(pair()[0], bytes(changed)), ProtocolError), position
    for position in range(len(third) * 8):
        _, responder = pair()
        responder.receive_data(first)
        changed = bytearray(third)
        changed[position // 8] ^= 1 << position % 8
        assert isinstance(outcome(responder, bytes(changed)), ProtocolError), position


def test_a_recorded_handshake_cut_at_any_byte_says_so() -> None:
    (first, second, third), _ = shake(*pair())
    for end in range(len(second)):
        error = outcome(pair()[0], second[:end])
        assert isinstance(error, ProtocolError)
        assert "in the middle of the Noise handshake" in str(error)
    for end in range(len(first) + len(third)):
        error = outcome(pair()[1], (first + third)[:end])
        assert isinstance(error, ProtocolError)
        assert "in the middle of the Noise handshake" in str(error)


def test_a_replayed_handshake_is_refused() -> None:
    (first, _, third), _ = shake(*pair())
    fresh = NoiseHandshake(BOB, False)
    assert isinstance(outcome(fresh, first + third), ProtocolError)


def test_after_an_error_the_machine_stays_broken() -> None:
    _, responder = pair()
    for data in (b"\xff\xff", pair()[0].data_to_send()):
        with pytest.raises(ProtocolError, match="claims 65535 bytes"):
            responder.receive_data(data)


def test_the_largest_handshake_message_is_bounded() -> None:
    _, responder = pair()
    assert responder.receive_data((MAX_HANDSHAKE_MESSAGE_BYTES).to_bytes(2, "big")) == []
    _, responder = pair()
    with pytest.raises(ProtocolError, match="too many"):
        responder.receive_data((MAX_HANDSHAKE_MESSAGE_BYTES + 1).to_bytes(2, "big"))


def test_another_identity_than_the_dialled_one_is_denied() -> None:
    initiator = NoiseHandshake(ALICE, True, expected_peer=EVE.peer_id)
    with pytest.raises(Denied, match=f"{BOB.peer_id} answered where {EVE.peer_id} was dialled"):
        shake(initiator, NoiseHandshake(BOB, False))
    assert initiator.data_to_send() == b"", "the last message would tell a wrong peer who dials"


def test_a_listener_may_expect_somebody_too() -> None:
    with pytest.raises(Denied, match="was dialled"):
        shake(NoiseHandshake(ALICE, True), NoiseHandshake(BOB, False, expected_peer=EVE.peer_id))


def test_this_devices_own_identity_is_denied() -> None:
    with pytest.raises(Denied, match="own identity key"):
        shake(NoiseHandshake(ALICE, True), NoiseHandshake(ALICE, False))


def test_reflected_messages_are_refused() -> None:
    initiator = NoiseHandshake(ALICE, True)
    assert isinstance(outcome(initiator, initiator.data_to_send()), ProtocolError)


def against(payload: bytes) -> FeddError | list[HandshakeDone]:
    """Answer an initiator with a well-made handshake that carries `payload`."""
    initiator = NoiseHandshake(ALICE, True)
    forger = HandshakeXX(initiator=False, static=b"f" * 32)
    forger.read_message(initiator.data_to_send()[2:])
    message = forger.write_message(payload)
    return outcome(initiator, len(message).to_bytes(2, "big") + message)


def static_public_key() -> bytes:
    reader, writer = (
        HandshakeXX(initiator=True, static=b"r" * 32),
        HandshakeXX(initiator=False, static=b"f" * 32),
    )
    writer.read_message(reader.write_message(b""))
    reader.read_message(writer.write_message(b""))
    return reader.remote_static


STATIC = static_public_key()
IDENTITY = (1, BOB.public_key.to_protobuf())
SIGNATURE = (2, BOB.sign(PREFIX + STATIC))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([], "lacks the identity key"),
        ([IDENTITY], "or its signature"),
        ([SIGNATURE], "lacks the identity key"),
        ([IDENTITY, (2, BOB.sign(STATIC))], "not that of"),
        ([IDENTITY, (2, BOB.sign(PREFIX + bytes(32)))], "not that of"),
        ([IDENTITY, (2, EVE.sign(PREFIX + STATIC))], "not that of"),
        ([(1, b"\x08\x01\x12\x00"), SIGNATURE], "not a valid Ed25519"),
        ([(1, 5), SIGNATURE], "number where bytes"),
        ([IDENTITY, SIGNATURE, (4, b"\x0b")], "wire type"),
        ([IDENTITY, SIGNATURE, (4, encode_message([(2, b"\xff")]))], "UTF-8"),
    ],
)
def test_payloads_that_prove_no_identity_are_refused(
    fields: list[tuple[int, int | bytes]], reason: str
) -> None:
    error = against(encode_message(fields))
    assert isinstance(error, ProtocolError)
    assert reason in str(error)


def test_payloads_of_others_are_understood() -> None:
    extensions = encode_message([(1, b"certificate hash"), (2, b"/yamux/1.0.0"), (9, 1)])
    found = against(encode_message([(3, b"old data"), IDENTITY, SIGNATURE, (4, extensions), (100, b"?")]))
    assert isinstance(found, list)
    assert found[0].peer_id == BOB.peer_id
    assert found[0].muxers == ("/yamux/1.0.0",)
    assert isinstance(bare := against(encode_message([IDENTITY, SIGNATURE])), list)
    assert bare[0].muxers == ()


@pytest.mark.parametrize("muxers", [(), ("/yamux/1.0.0", "/mplex/6.7.0")])
def test_our_payload_is_what_the_specification_asks_for(muxers: tuple[str, ...]) -> None:
    responder = NoiseHandshake(BOB, False, muxers=muxers)
    reader = HandshakeXX(initiator=True, static=b"r" * 32)
    first = reader.write_message(b"a payload that nobody can trust yet")
    responder.receive_data(len(first).to_bytes(2, "big") + first)
    payload = decode_message(reader.read_message(responder.data_to_send()[2:]))
    assert bytes_field(payload, 1) == BOB.public_key.to_protobuf()
    BOB.public_key.verify(bytes_field(payload, 2) or b"", PREFIX + reader.remote_static)
    extensions = decode_message(bytes_field(payload, 4) or b"")
    assert repeated_bytes(extensions, 2) == [muxer.encode() for muxer in muxers]
    assert set(payload) == ({1, 2, 4} if muxers else {1, 2})


def test_a_key_that_makes_every_secret_the_same_is_refused() -> None:
    _, responder = pair()
    with pytest.raises(ProtocolError, match="degenerate"):
        responder.receive_data(b"\x00\x20" + bytes(32))


@pytest.mark.parametrize("length", [0, 31])
def test_messages_too_short_for_their_keys_are_refused(length: int) -> None:
    _, responder = pair()
    with pytest.raises(ProtocolError, match="too short"):
        responder.receive_data(length.to_bytes(2, "big") + bytes(length))


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=150), st.booleans())
def test_garbage_raises_nothing_but_protocol_errors(data: bytes, initiator: bool) -> None:
    machine = NoiseHandshake(ALICE, initiator)
    for framed in (data, len(data).to_bytes(2, "big") + data):
        try:
            assert machine.receive_data(framed) == []
        except ProtocolError:
            return
