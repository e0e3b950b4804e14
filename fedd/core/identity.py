"""Keys, peer ids and sealed envelopes.

A device's identity is an Ed25519 key made on it; its peer id is a multihash of the public key
(libp2p peer-ids specification). Peers of other libp2p programs may hold secp256k1 or ECDSA keys;
RSA is not supported. An envelope binds a payload to its signer and to one purpose (its domain),
so that bytes signed for one purpose mean nothing for another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from functools import lru_cache
from typing import Any

from fedd.api.errors import FeddError, InvalidParameter, ProtocolError
from fedd.api.types import PeerId
from fedd.core import codec, primitives
from fedd.core.protobuf import bytes_field, decode_message, encode_message, int_field
from fedd.core.varint import encode_uvarint

ED25519, SECP256K1, ECDSA = 1, 2, 3
"""Key types as the peer-ids specification numbers them."""

_KEY_TYPE_NAMES = {0: "RSA", ED25519: "Ed25519", SECP256K1: "secp256k1", ECDSA: "ECDSA"}

# PKCS#8 of an Ed25519 key (RFC 8410) is this header and the 32-byte seed. Written out here, because
# the general loader would cost the daemon 2 MiB of imports for one file that it reads once.
_PKCS8_HEADER = bytes.fromhex("302e020100300506032b657004220420")
_PEM_BEGIN, _PEM_END = b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----"

_MULTIHASH_IDENTITY, _MULTIHASH_SHA256 = 0x00, 0x12
_INLINE_KEY_BYTES = 42  # a longer public key is hashed (peer-ids specification)
_CID_V1, _CID_LIBP2P_KEY = 0x01, 0x72
_MAX_PEER_ID_CHARS = 128  # the longest form, base32 of a 42-byte key, has 75
_MAX_PUBLIC_KEY_BYTES = 512  # the largest, P-521 in PKIX form, has 158

# PublicKey in protobuf: its type, Ed25519, and 32 bytes of data
_ED25519_HEADER, _ED25519_BYTES = bytes.fromhex("08011220"), 36

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_TEN_DIGITS = 58**10
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE58_VALUES = {character: value for value, character in enumerate(_BASE58)}
_BASE36_VALUES = {character: value for value, character in enumerate(_BASE36)}

_ENVELOPE_PREFIX = b"fedd-sealed-1:"
_MAX_DOMAIN_CHARS = 64


class PublicKey:
    """A peer's public key: verifies signatures and gives the peer id. Compares by value."""

    __slots__ = ("_data", "_key", "_key_type", "_peer_id")

    def __init__(self, key_type: int, data: bytes) -> None:
        """Take the key in the form of the peer-ids specification; ProtocolError when it is no such key."""
        self._key_type = key_type
        self._data = data
        self._key: Any = _load_public_key(key_type, data)
        self._peer_id = ""

    @classmethod
    def from_protobuf(cls, data: bytes) -> PublicKey:
        """Read libp2p's PublicKey message; ProtocolError when it is malformed or of an unsupported type."""
        if len(data) > _MAX_PUBLIC_KEY_BYTES:
            raise ProtocolError(f"a public key of {len(data)} bytes is longer than {_MAX_PUBLIC_KEY_BYTES}")
        if len(data) == _ED25519_BYTES and data.startswith(_ED25519_HEADER):  # as nearly all are
            return cls(ED25519, data[len(_ED25519_HEADER) :])
        message = decode_message(data)
        key_type, raw = int_field(message, 1), bytes_field(message, 2)
        if key_type is None or raw is None:
            raise ProtocolError("a public key lacks its type or its data")
        return cls(key_type, raw)

    @classmethod
    def from_peer_id(cls, peer_id: PeerId) -> PublicKey:
        """Return the key that the peer id contains; ProtocolError when it holds only a hash of it."""
        multihash = peer_id_to_bytes(peer_id)
        if multihash[0] != _MULTIHASH_IDENTITY:
            raise ProtocolError(f"the peer id {peer_id} holds a hash of its key, not the key")
        key = cls.from_protobuf(multihash[2:])
        if key.peer_id != peer_id:
            raise ProtocolError(f"the peer id {peer_id} does not hold its key in the one allowed form")
        return key

    @property
    def key_type(self) -> int:
        """ED25519, SECP256K1 or ECDSA."""
        return self._key_type

    @property
    def raw(self) -> bytes:
        """The key alone: 32 bytes for Ed25519, 33 for secp256k1, PKIX DER for ECDSA."""
        return self._data

    def to_protobuf(self) -> bytes:
        """Return libp2p's PublicKey message: type, then data, both always written."""
        return encode_message(((1, self._key_type), (2, self._data)))

    @property
    def peer_id(self) -> PeerId:
        """The peer id that belongs to this key."""
        if not self._peer_id:
            encoded = self.to_protobuf()
            if len(encoded) <= _INLINE_KEY_BYTES:
                multihash = bytes((_MULTIHASH_IDENTITY, len(encoded))) + encoded
            else:
                multihash = bytes((_MULTIHASH_SHA256, 32)) + hashlib.sha256(encoded).digest()
            self._peer_id = _claimed(multihash)
        return self._peer_id

    def verify(self, signature: bytes, data: bytes) -> None:
        """Return when `signature` is this key's over `data`; ProtocolError otherwise."""
        try:
            if self._key_type == ED25519:
                self._key.verify(signature, data)
            else:
                from cryptography.hazmat.primitives.asymmetric.ec import ECDSA as Ecdsa
                from cryptography.hazmat.primitives.hashes import SHA256

                self._key.verify(signature, data, Ecdsa(SHA256()))
        except primitives.InvalidSignature:
            raise ProtocolError(f"a signature is not that of {self.peer_id}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and (self._key_type, self._data) == (other._key_type, other._data)

    def __hash__(self) -> int:
        return hash((self._key_type, self._data))

    def __repr__(self) -> str:
        return f"PublicKey({self.peer_id})"


class PrivateKey:
    """An Ed25519 key pair; its representation shows the peer id and never the secret."""

    __slots__ = ("_key", "_public_key", "_seed", "noise_static")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise InvalidParameter(f"an Ed25519 seed has 32 bytes, not {len(seed)}", field="seed")
        self._seed = bytes(seed)
        self._key = primitives.ED25519.load_private(self._seed)
        self._public_key = PublicKey(ED25519, self._key.public_key().public_bytes_raw())
        self.noise_static: object | None = None
        """The key that proves this identity in Noise; `fedd.core.noise_handshake` makes it at first use."""

    @classmethod
    def from_seed(cls, seed: bytes) -> PrivateKey:
        """Make the key of a 32-byte secret seed (RFC 8032); InvalidParameter for another length."""
        return cls(seed)

    @classmethod
    def from_pem(cls, data: bytes) -> PrivateKey:
        """Read an unencrypted PKCS#8 Ed25519 key in PEM (RFC 8410); InvalidParameter when it is none."""
        text = data.strip()
        if not (text.startswith(_PEM_BEGIN) and text.endswith(_PEM_END)):
            found = "an encrypted key" if b"ENCRYPTED" in text[:64] else "something else"
            raise InvalidParameter(
                f"a PEM file with BEGIN PRIVATE KEY belongs here, but it holds {found}", hint=_KEY_HINT
            )
        try:
            body = b"".join(text[len(_PEM_BEGIN) : -len(_PEM_END)].split())
            der = binascii.a2b_base64(body, strict_mode=True)
        except ValueError:
            raise InvalidParameter("the key file's base64 is damaged", hint=_KEY_HINT) from None
        if len(der) != len(_PKCS8_HEADER) + 32 or not der.startswith(_PKCS8_HEADER):
            raise InvalidParameter("the key file holds no plain Ed25519 key", hint=_KEY_HINT)
        return cls(der[len(_PKCS8_HEADER) :])

    def to_pem(self) -> bytes:
        """Return the secret as PKCS#8 in PEM, readable by `openssl pkey`."""
        body = binascii.b2a_base64(_PKCS8_HEADER + self._seed, newline=False)
        return b"\n".join((_PEM_BEGIN, body, _PEM_END, b""))

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes."""
        return self._seed

    @property
    def public_key(self) -> PublicKey:
        """The public half."""
        return self._public_key

    @property
    def peer_id(self) -> PeerId:
        """The peer id of the public half."""
        return self._public_key.peer_id

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature over `data`."""
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"PrivateKey({self.peer_id})"


_KEY_HINT = "make one with: openssl genpkey -algorithm ed25519"


def _load_public_key(key_type: int, data: bytes) -> Any:
    """Return cryptography's object for the key; ProtocolError when `data` is not a key of that type."""
    name = _KEY_TYPE_NAMES.get(key_type, f"type {key_type}")
    try:
        if key_type == ED25519:
            return primitives.ED25519.load_public(data)
        if key_type == SECP256K1 and len(data) == 33:
            from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1 as Curve
            from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

            return EllipticCurvePublicKey.from_encoded_point(Curve(), data)
        if key_type == ECDSA:
            return _load_ecdsa_key(data)
    except ValueError as error:
        raise ProtocolError(f"a public key is not a valid {name} key: {error}") from None
    raise ProtocolError(f"a public key of {name} with {len(data)} bytes is not supported")


def _load_ecdsa_key(data: bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey as EcPublicKey

    try:
        key = serialization.load_der_public_key(data)
    except UnsupportedAlgorithm:
        raise ValueError("unknown algorithm") from None
    if not (isinstance(key, EcPublicKey) and isinstance(key.curve, SECP256R1 | SECP384R1 | SECP521R1)):
        raise ValueError("not on a NIST curve")
    canonical = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if canonical != data:  # another spelling of the key would be another peer id of the same peer
        raise ValueError("not in DER's one allowed form")
    return key


def peer_id_to_bytes(peer_id: PeerId) -> bytes:
    """Return the multihash of a base58btc peer id; InvalidParameter when it is none."""
    if 0 < len(peer_id) <= _MAX_PEER_ID_CHARS:
        try:
            multihash = _base58_decode(peer_id)
        except KeyError:
            pass
        else:
            if _is_multihash(multihash):
                return multihash
    raise InvalidParameter(f"{peer_id[:_MAX_PEER_ID_CHARS]!r} is not a peer id", hint=_PEER_ID_HINT)


def peer_id_from_bytes(multihash: bytes | memoryview) -> PeerId:
    """Return the base58btc form of a peer's multihash; ProtocolError when it is none."""
    data = bytes(multihash)
    if not _is_multihash(data):
        raise ProtocolError("bytes that should be a peer id are neither a key nor its sha256")
    return _base58_encode(data)


def parse_peer_id(text: str) -> PeerId:
    """Read a peer id as base58btc or as CIDv1 (base32, base36 or base58btc); InvalidParameter otherwise.

    The result is the base58btc form (peer-ids specification, "String representation").
    """
    if text.startswith(("1", "Qm")):
        peer_id_to_bytes(text)
        return text
    try:
        cid = _multibase_decode(text) if len(text) <= _MAX_PEER_ID_CHARS else b""
    except (ValueError, KeyError):
        cid = b""
    if cid[:2] == bytes((_CID_V1, _CID_LIBP2P_KEY)) and _is_multihash(cid[2:]):
        return _base58_encode(cid[2:])
    raise InvalidParameter(f"{text[:_MAX_PEER_ID_CHARS]!r} is not a peer id", hint=_PEER_ID_HINT)


_PEER_ID_HINT = "peer ids look like 12D3KooW... ; `fedctl status` shows that of its device"


def _is_multihash(data: bytes) -> bool:
    if len(data) < 3 or data[1] != len(data) - 2:
        return False
    return len(data) == 34 if data[0] == _MULTIHASH_SHA256 else data[0] == 0 and data[1] <= _INLINE_KEY_BYTES


def _multibase_decode(text: str) -> bytes:
    base, body = text[:1], text[1:]
    if base == "b":
        if body != body.lower():
            raise ValueError("base32 with the prefix b is lower case")
        return base64.b32decode(body.upper() + "=" * (-len(body) % 8))
    if base == "z":
        return _base58_decode(body)
    if base == "k":
        return _radix_decode(body, _BASE36_VALUES, 36)
    raise ValueError("unknown multibase prefix")


def _base58_encode(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    characters = []
    while number:
        number, ten_digits = divmod(number, _BASE58_TEN_DIGITS)  # small numbers are divided faster
        for _ in range(10):
            ten_digits, digit = divmod(ten_digits, 58)
            characters.append(_BASE58[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(characters)).lstrip("1")


def _base58_decode(text: str) -> bytes:
    return _radix_decode(text, _BASE58_VALUES, 58)


def _radix_decode(text: str, values: dict[str, int], radix: int) -> bytes:
    """Decode a number with leading zero bytes written as leading zero digits; KeyError on a wrong digit."""
    number = 0
    for character in text:
        number = number * radix + values[character]
    zeros = 0
    while zeros < len(text) and values[text[zeros]] == 0:
        zeros += 1
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def seal(key: PrivateKey, domain: str, payload: bytes) -> bytes:
    """Sign `payload` for one purpose, for example the domain "fedd/record/1".

    The envelope is canonical CBOR: [signer's multihash, payload, signature]. The signature covers
    the domain and the payload, each with its length, behind a prefix of our own.
    """
    signature = key.sign(_signed_bytes(domain, payload))
    return codec.encode([peer_id_to_bytes(key.peer_id), payload, signature])


def open_sealed(
    data: bytes | memoryview,
    domain: str,
    signer: PeerId | None = None,
    *,
    max_bytes: int = codec.MAX_MESSAGE_BYTES,
) -> tuple[PeerId, bytes]:
    """Verify an envelope of that domain; return (signer, payload).

    ProtocolError when it is malformed, not canonical, not signed by the key it names, or not by
    `signer` when one is given. Signers whose peer id holds only a hash of their key are refused.
    """
    try:
        fields = codec.decode(data, max_bytes=max_bytes, canonical=True)
    except FeddError as error:
        raise ProtocolError(f"a signed envelope is malformed: {error.detail}") from None
    if type(fields) is not list or list(map(type, fields)) != [bytes, bytes, bytes]:
        raise ProtocolError("a signed envelope is not [signer, payload, signature]")
    multihash, payload, signature = fields
    claimed = _claimed(multihash)
    if signer is not None and claimed != signer:
        raise ProtocolError(f"an envelope is signed by {claimed}, not by {signer}")
    _signers_key(claimed).verify(signature, _signed_bytes(domain, payload))
    return claimed, payload


# The same few members sign nearly everything; base58 and loading a key cost as much as verifying. Pure
# functions, so a cache is no state.
_claimed = lru_cache(maxsize=1024)(peer_id_from_bytes)
_signers_key = lru_cache(maxsize=1024)(PublicKey.from_peer_id)


def _signed_bytes(domain: str, payload: bytes) -> bytes:
    return b"".join((_domain_prefix(domain), encode_uvarint(len(payload)), payload))


@lru_cache(maxsize=64)
def _domain_prefix(domain: str) -> bytes:
    if not (domain.isascii() and 0 < len(domain) <= _MAX_DOMAIN_CHARS):
        raise ValueError(f"a domain is 1 to {_MAX_DOMAIN_CHARS} ASCII characters, not {domain!r}")
    name = domain.encode("ascii")
    return b"".join((_ENVELOPE_PREFIX, encode_uvarint(len(name)), name))
