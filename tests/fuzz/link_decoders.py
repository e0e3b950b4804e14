"""Decoders of what strangers send: the wire up to identify, and what is said about circuits."""

from __future__ import annotations

import contextlib
import random

from fuzz.mutate import pieces
from fuzz.targets import KEYS, MEMBER_KEY, OTHER, PROTOCOL, Target, fed

from fedd.api.errors import Denied, InvalidParameter, ProtocolError
from fedd.core import (
    multistream,
    protobuf,
    relay_messages,
    varint,
)
from fedd.core.identity import PublicKey, parse_peer_id, peer_id_from_bytes
from fedd.core.noise import HandshakeXX, KeyPair, NoiseTransport
from fedd.core.noise_handshake import NoiseHandshake
from fedd.core.yamux import Session
from fedd.net.identify import decode_identification


def _varint(data: bytes, rng: random.Random) -> None:
    value, end = varint.decode_uvarint(data, rng.randrange(3))
    assert 0 <= value < 2**63
    assert end <= len(data)


def _protobuf(data: bytes, rng: random.Random) -> None:
    message = protobuf.decode_message(data)
    for number in (1, 2, 4):
        try:
            protobuf.bytes_field(message, number)
            protobuf.int_field(message, number)
            protobuf.repeated_bytes(message, number)
        except ProtocolError:
            pass


def _public_key(data: bytes, rng: random.Random) -> None:
    key = PublicKey.from_protobuf(data)
    assert parse_peer_id(key.peer_id) == key.peer_id
    with contextlib.suppress(ProtocolError):
        key.verify(data, data)


def _peer_id(data: bytes, rng: random.Random) -> None:
    try:
        PublicKey.from_peer_id(peer_id_from_bytes(data))
    except ProtocolError:
        parse_peer_id(data.decode("utf-8", "surrogateescape"))


def _multistream(data: bytes, rng: random.Random) -> None:
    machine: multistream.Dialer | multistream.Listener = multistream.Dialer(["/noise", "/yamux/1.0.0"])
    if rng.random() < 0.5:
        machine = multistream.Listener(["/noise", "/yamux/1.0.0"], listed=["/noise"])
    for piece in pieces(rng, data):
        if machine.finished:
            return
        machine.receive_data(piece)
        assert len(machine.data_to_send()) <= 8192


def _handshake_pair() -> tuple[bytes, bytes, bytes]:
    """The three messages of a handshake between fixed keys, framed."""
    ours = NoiseHandshake(MEMBER_KEY, True, static_seed=b"\1" * 32, ephemeral_seed=b"\2" * 32)
    theirs = NoiseHandshake(OTHER, False, static_seed=b"\3" * 32, ephemeral_seed=b"\4" * 32)
    first = ours.data_to_send()
    theirs.receive_data(first)
    second = theirs.data_to_send()
    ours.receive_data(second)
    return first, second, ours.data_to_send()


_FIRST, _SECOND, _THIRD = _handshake_pair()


def _noise_handshake(data: bytes, rng: random.Random) -> None:
    """Mutated messages to either end; half of the time a payload that is mutated and sealed in good order."""
    if rng.random() < 0.3:
        _noise_payload(data)
        return
    if rng.random() < 0.5:
        machine = NoiseHandshake(MEMBER_KEY, True, static_seed=b"\1" * 32, ephemeral_seed=b"\2" * 32)
    else:
        machine = NoiseHandshake(OTHER, False, static_seed=b"\3" * 32, ephemeral_seed=b"\4" * 32)
    for piece in pieces(rng, data):
        if machine.receive_data(piece):
            return


_STATIC = KeyPair(b"\1" * 32).public
_PAYLOAD = protobuf.encode_message(
    [
        (1, MEMBER_KEY.public_key.to_protobuf()),
        (2, MEMBER_KEY.sign(b"noise-libp2p-static-key:" + _STATIC)),
        (4, protobuf.encode_message([(2, b"/yamux/1.0.0")])),
    ]
)


def _noise_payload(payload: bytes) -> None:
    """`payload` as the third message's, behind a Diffie-Hellman that holds."""
    dialler = HandshakeXX(initiator=True, static=b"\1" * 32, ephemeral=b"\2" * 32)
    listener = NoiseHandshake(OTHER, False, static_seed=b"\3" * 32, ephemeral_seed=b"\4" * 32)
    first = dialler.write_message(b"")
    listener.receive_data(len(first).to_bytes(2, "big") + first)
    dialler.read_message(listener.data_to_send()[2:])
    third = dialler.write_message(payload[:3900])
    listener.receive_data(len(third).to_bytes(2, "big") + third)


def _transport() -> bytes:
    sender = NoiseTransport(b"k" * 32, b"r" * 32)
    return sender.encrypt(b"hello") + sender.encrypt(bytes(100)) + sender.encrypt(b"")


def _noise_transport(data: bytes, rng: random.Random) -> None:
    transport = NoiseTransport(b"s" * 32, b"k" * 32)
    if rng.random() < 0.5:
        fed(transport, data, rng)
        return
    used, written = transport.open_frames(memoryview(data), memoryview(bytearray(len(data) + 16)))
    assert used <= len(data)
    assert written <= used
    if transport.failure is not None:
        raise transport.failure


def _yamux(data: bytes, rng: random.Random) -> None:
    session = Session(rng.random() < 0.5)
    for _ in range(rng.randrange(3)):
        session.post(session.open(), memoryview(b"words"))
    for piece in pieces(rng, data):
        for event in session.receive_data(piece):
            stream, verb = event.stream, rng.randrange(8)
            if stream is None:
                continue
            if verb == 0:
                session.reset(stream)
            elif verb == 1:
                session.abandon(stream)
            elif verb == 2:
                session.finish(stream)
            elif verb > 5:
                session.read(stream, rng.choice((None, 1)), rng.random())
        session.data_to_send()
    unread = sum(stream.buffered_bytes for stream in session.streams.values())
    assert unread == session._buffered
    assert session._inbound >= 0
    assert session._unacknowledged >= 0
    session.close()
    if session.failure is not None:
        raise session.failure


def _frame(kind: int, flags: int, stream: int, length: int, payload: bytes = b"") -> bytes:
    return (
        b"\0"
        + bytes([kind])
        + flags.to_bytes(2, "big")
        + stream.to_bytes(4, "big")
        + length.to_bytes(4, "big")
        + payload
    )


_YAMUX = (
    _frame(1, 1, 1, 0) + _frame(0, 0, 1, 5, b"hello") + _frame(0, 4, 1, 2, b"!!"),
    _frame(0, 1, 2, 3, b"abc") + _frame(1, 0, 2, 4096) + _frame(1, 8, 2, 0),
    _frame(2, 1, 0, 7) + _frame(2, 2, 0, 7) + _frame(3, 0, 0, 0),
    _frame(1, 2, 1, 0) + _frame(1, 2, 3, 9) + _frame(0, 6, 3, 1, b"x") + _frame(0, 0, 99, 4, b"skip"),
)


def _circuit(data: bytes, rng: random.Random) -> None:
    """What a source, a relay and a target say to each other; the length is the shell's to read."""
    decode = rng.choice(
        (relay_messages.decode_target, relay_messages.decode_source, relay_messages.decode_answer)
    )
    if len(data) >= relay_messages.LENGTH.size and rng.random() < 0.5:
        (length,) = relay_messages.LENGTH.unpack_from(data)
        data = data[relay_messages.LENGTH.size :][: relay_messages.check_length(length)]
    decode(data)


_CIRCUIT = tuple(
    part
    for message in (
        relay_messages.encode_target(OTHER.peer_id),
        relay_messages.encode_source(OTHER.peer_id),
        relay_messages.encode_answer(None),
        relay_messages.encode_answer("the target is no member"),
    )
    for part in (message, message[relay_messages.LENGTH.size :])
)


def _identify(data: bytes, rng: random.Random) -> None:
    decode_identification(data, MEMBER_KEY.peer_id)


_IDENTIFY = protobuf.encode_message(
    [
        (1, MEMBER_KEY.public_key.to_protobuf()),
        (2, b"\x04\x7f\x00\x00\x01\x06\x0f\xa1"),
        (3, b"/ipfs/ping/1.0.0"),
        (4, b"\x04\x7f\x00\x00\x01\x06\x0f\xa1"),
        (5, b"ipfs/0.1.0"),
        (6, b"fedd/0.1.0"),
    ]
)


LINK_TARGETS: dict[str, Target] = {
    "varint": Target(_varint, PROTOCOL, tuple(varint.encode_uvarint(n) for n in (0, 127, 128, 2**63 - 1))),
    "protobuf": Target(_protobuf, PROTOCOL, (_IDENTIFY, protobuf.encode_message([(1, 5), (4, b"abc")]))),
    "public-key": Target(_public_key, PROTOCOL, tuple(key.public_key.to_protobuf() for key in KEYS[:2])),
    "peer-id": Target(
        _peer_id,
        (ProtocolError, InvalidParameter),
        (OTHER.peer_id.encode(), b"\x00\x24" + OTHER.public_key.to_protobuf()),
    ),
    "multistream": Target(
        _multistream,
        PROTOCOL,
        (multistream.Dialer(["/noise"]).data_to_send(), b"\x13/multistream/1.0.0\n\x03na\n\x03ls\n"),
    ),
    "noise-handshake": Target(
        _noise_handshake, (ProtocolError, Denied), (_FIRST, _SECOND, _FIRST + _THIRD, _PAYLOAD)
    ),
    "noise-transport": Target(_noise_transport, PROTOCOL, (_transport(),)),
    "yamux": Target(_yamux, PROTOCOL, _YAMUX),
    "identify": Target(_identify, PROTOCOL, (_IDENTIFY,)),
    "circuit": Target(_circuit, PROTOCOL, _CIRCUIT),
}
