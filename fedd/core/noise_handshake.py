"""libp2p's `/noise` handshake: Noise XX, in whose payloads each end proves its identity.

The payloads follow the noise-libp2p specification: an identity key and its signature over the static
X25519 key, and the stream muxers that the end speaks. Every message travels behind its length (two bytes,
big-endian).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct

from fedd.api.errors import Denied, FeddError, ProtocolError
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.identity import PrivateKey, PublicKey
from fedd.core.noise import HandshakeXX, KeyPair, NoiseTransport
from fedd.core.protobuf import bytes_field, decode_message, encode_message, repeated_bytes

PROTOCOL_ID = "/noise"

MAX_HANDSHAKE_MESSAGE_BYTES = 4096
"""A handshake message has about 250 bytes, 900 with the largest keys; strangers get no more memory."""

KNOWN_STATIC_KEYS = 256
"""Of so many peers it is remembered that their static key is theirs: about 0.5 KiB each."""

_SIGNATURE_PREFIX = b"noise-libp2p-static-key:"

_pack_length = Struct(">H").pack


@dataclass(frozen=True, slots=True)
class HandshakeDone:
    """The other end has proven its identity.

    `muxers` is its list of stream muxers (empty when it sent none), `transport` seals and opens what
    follows, and `trailing` are bytes that already came after the handshake: the first of the frames.
    """

    peer_id: PeerId
    public_key: PublicKey
    muxers: tuple[str, ...]
    transport: NoiseTransport
    trailing: bytes


class _StaticKey:
    """The key pair that stands for an identity in handshakes, and the identity's word for it.

    It is made, and signed, once a process and not for each connection. Nobody but the peer, who learns the
    identity with it, sees it. That what was sent stays secret later is the ephemeral keys' doing.
    """

    __slots__ = ("_payload", "pair")

    def __init__(self, key: PrivateKey, seed: bytes | None = None) -> None:
        self.pair = KeyPair(seed)
        signature = key.sign(_SIGNATURE_PREFIX + self.pair.public)
        self._payload = encode_message(((1, key.public_key.to_protobuf()), (2, signature)))

    def payload(self, muxers: Sequence[str]) -> bytes:
        """Return the NoiseHandshakePayload: identity key 1, signature 2, extensions 4 (muxers 2 inside)."""
        if not muxers:
            return self._payload
        return self._payload + _extensions(tuple(muxers))


@lru_cache(maxsize=4)
def _extensions(muxers: tuple[str, ...]) -> bytes:
    """Say which muxers this end speaks: there is one list of them a program."""
    return encode_message(((4, encode_message((2, muxer.encode()) for muxer in muxers)),))


@lru_cache(maxsize=16)
def _muxers_in(extensions: bytes) -> tuple[str, ...]:
    """Give the muxers that a peer names; nearly all peers say the same. ProtocolError when it is malformed.

    What a peer may say, and make this remember, has MAX_HANDSHAKE_MESSAGE_BYTES.
    """
    try:
        return tuple(muxer.decode() for muxer in repeated_bytes(decode_message(extensions), 2))
    except UnicodeDecodeError:
        raise ProtocolError("a Noise handshake payload names a muxer that is not UTF-8") from None


def _static_key(key: PrivateKey) -> _StaticKey:
    static = key.noise_static
    if not isinstance(static, _StaticKey):
        static = key.noise_static = _StaticKey(key)
    return static


@lru_cache(maxsize=KNOWN_STATIC_KEYS)
def known_identity(identity_key: bytes, signature: bytes, static: bytes) -> PublicKey:
    """Give the identity, if the signature is its word for this static key; ProtocolError when not.

    To verify takes 0.1 ms. A peer's process has one static key, and whoever dialled each other at once, or
    found a direct way beside a relayed one, meets again within seconds. That the peer holds the static key
    it proves anew in each handshake. A pure function, so the cache is no state; failures are not kept.
    """
    peer = PublicKey.from_protobuf(identity_key)
    peer.verify(signature, _SIGNATURE_PREFIX + static)
    return peer


class NoiseHandshake:
    """libp2p's Noise handshake as a value: bytes in, at last one `HandshakeDone` out.

    Both ends are told by `initiator` who dialled. With `expected_peer`, another identity is refused
    (Denied), as is this device's own. `static_seed` and `ephemeral_seed` (32 private bytes) are for
    tests; without them the ephemeral key is fresh and the static one this process's own for `key`.
    After an error the machine is finished for good.
    """

    def __init__(
        self,
        key: PrivateKey,
        initiator: bool,
        expected_peer: PeerId | None = None,
        *,
        muxers: Sequence[str] = ("/yamux/1.0.0",),
        static_seed: bytes | None = None,
        ephemeral_seed: bytes | None = None,
    ) -> None:
        self._static = _static_key(key) if static_seed is None else _StaticKey(key, static_seed)
        self._handshake = HandshakeXX(initiator=initiator, static=self._static.pair, ephemeral=ephemeral_seed)
        self._key = key
        self._expected_peer = expected_peer
        self._received = bytearray()
        self._outgoing = bytearray()
        self._error: FeddError | None = None
        self._peer: PublicKey | None = None
        self._offered_muxers = tuple(muxers)
        self._muxers: tuple[str, ...] = ()
        self._write_if_due()

    def data_to_send(self) -> bytes:
        """Return the bytes to write now and forget them."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[HandshakeDone]:
        """Take bytes from the other end; return `HandshakeDone` once, when it is done.

        ProtocolError when a message is malformed or not authentic, Denied when the identity is not
        the expected one. Write `data_to_send` also when the handshake is done: it is the last message.
        """
        if self._error is not None:
            raise self._error
        if self._handshake.finished:
            raise RuntimeError("the handshake is over: what follows belongs to its transport")
        self._received += data
        try:
            return self._advance()
        except FeddError as error:
            self._error = error
            raise

    def receive_eof(self) -> None:
        """Tell that the other end sends no more: ProtocolError when the handshake is not done."""
        if not self._handshake.finished:
            raise ProtocolError("the other end closed the connection in the middle of the Noise handshake")

    def _advance(self) -> list[HandshakeDone]:
        while not self._handshake.finished and len(self._received) >= 2:
            length = int.from_bytes(self._received[:2], "big")
            if length > MAX_HANDSHAKE_MESSAGE_BYTES:
                raise ProtocolError(f"a Noise handshake message claims {length} bytes, which is too many")
            if len(self._received) < 2 + length:
                return []
            message = bytes(self._received[2 : 2 + length])
            del self._received[: 2 + length]
            self._receive_payload(self._handshake.read_message(message))
            self._write_if_due()
        if self._peer is None or not self._handshake.finished:
            return []
        send_key, receive_key = self._handshake.split()
        transport = NoiseTransport(send_key, receive_key)
        trailing = bytes(self._received)
        return [HandshakeDone(self._peer.peer_id, self._peer, self._muxers, transport, trailing)]

    def _write_if_due(self) -> None:
        if self._handshake.writes_next:
            # The first message of XX is not encrypted: its payload is empty.
            payload = self._static.payload(self._offered_muxers) if self._handshake.remote_ephemeral else b""
            message = self._handshake.write_message(payload)
            self._outgoing += _pack_length(len(message)) + message

    def _receive_payload(self, payload: bytes) -> None:
        """Verify who the other end is, once its static key is known (noise-libp2p, handshake payload)."""
        if not self._handshake.remote_static:
            return  # the first message: whatever it says is not authenticated
        message = decode_message(payload)
        identity_key, signature = bytes_field(message, 1), bytes_field(message, 2)
        if identity_key is None or signature is None:
            raise ProtocolError("a Noise handshake payload lacks the identity key or its signature")
        peer = known_identity(identity_key, signature, self._handshake.remote_static)
        if peer == self._key.public_key:
            raise Denied(
                "the other end holds this device's own identity key", hint="it is this daemon itself"
            )
        if self._expected_peer is not None and peer.peer_id != self._expected_peer:
            raise Denied(
                f"{peer.peer_id} answered where {self._expected_peer} was dialled",
                hint="another daemon has that address now, or somebody is in between",
            )
        self._peer = peer
        self._muxers = _muxers_in(bytes_field(message, 4) or b"")
