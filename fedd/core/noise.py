"""Noise_XX_25519_ChaChaPoly_SHA256: the messages of the handshake, and the transport ciphers.

Section numbers are those of the Noise Protocol Framework, revision 34. What libp2p's `/noise` makes of it,
identities and all, is in `fedd.core.noise_handshake`. Every Noise message travels behind its length (two
bytes, big-endian).
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Final

from fedd.api.errors import ProtocolError
from fedd.core.primitives import X25519, InvalidTag, new_cipher

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

TAG_BYTES: Final = 16
MAX_MESSAGE_BYTES: Final = 65_535
MAX_PLAINTEXT_BYTES: Final = MAX_MESSAGE_BYTES - TAG_BYTES
"""Most plaintext in one frame: 65,519 bytes."""

FULL_FRAME_BYTES: Final = 255 * 256
"""Into frames of 65,280 bytes more than that is cut. OpenSSL's Poly1305 for AVX-512 takes eight blocks of 16
bytes at once only if their number can be divided by eight: each byte of the largest frame costs 15 % more."""

FRAME_OVERHEAD_BYTES: Final = 2 + TAG_BYTES
"""What a frame adds to its plaintext: the length in front, the tag behind."""

_PROTOCOL_NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
_PATTERN_XX = (("e",), ("e", "ee", "s", "es"), ("s", "se"))
_KEY_BYTES = 32
_LAST_NONCE = (1 << 64) - 1  # reserved by section 5.1, never used to encrypt

_INNER_PAD, _OUTER_PAD = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))

_pack_nonce = Struct("<4xQ").pack
_pack_length = Struct(">H").pack
_pack_length_into = Struct(">H").pack_into


class SymmetricState:
    """The chaining key, the transcript hash and the cipher of a handshake (section 5.2)."""

    def __init__(self, protocol_name: bytes = _PROTOCOL_NAME, prologue: bytes = b"") -> None:
        padded = protocol_name.ljust(32, b"\0")
        self.h = padded if len(padded) == 32 else sha256(protocol_name).digest()
        self._ck = self.h
        self._cipher: ChaCha20Poly1305 | None = None
        self._nonce = 0
        self.mix_hash(prologue)  # an empty prologue is hashed all the same

    def mix_hash(self, data: bytes) -> None:
        """Bind `data` to everything that follows."""
        self.h = sha256(self.h + data).digest()

    def mix_key(self, secret: bytes) -> None:
        """Derive the next chaining key and cipher key from a Diffie-Hellman result."""
        self._ck, key = self._derive(secret)
        self._cipher = new_cipher(key)
        self._nonce = 0

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Encrypt under the present key, bound to the transcript; plain before the first key exists."""
        if self._cipher is None:
            ciphertext = plaintext
        else:
            ciphertext = self._cipher.encrypt(_pack_nonce(self._nonce), plaintext, self.h)
            self._nonce += 1
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """Reverse `encrypt_and_hash`; ProtocolError when the message is not authentic."""
        if self._cipher is None:
            plaintext = ciphertext
        else:
            try:
                plaintext = self._cipher.decrypt(_pack_nonce(self._nonce), ciphertext, self.h)
            except InvalidTag:
                raise ProtocolError("a Noise handshake message is not authentic") from None
            self._nonce += 1
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Return the transport keys: the initiator's sending key, then the responder's."""
        return self._derive(b"")

    def _derive(self, secret: bytes) -> tuple[bytes, bytes]:
        """HKDF with two outputs (section 4.3).

        HMAC (RFC 2104) is written out: the last two share a key, and `hmac.digest` takes half as long again.
        """
        inner, outer = _hmac_keys(self._ck)
        temporary = sha256(outer + sha256(inner + secret).digest()).digest()
        inner, outer = _hmac_keys(temporary)
        first = sha256(outer + sha256(inner + b"\x01").digest()).digest()
        return first, sha256(outer + sha256(inner + first + b"\x02").digest()).digest()


def _hmac_keys(key: bytes) -> tuple[bytes, bytes]:
    """Give what the inner and the outer hash of HMAC-SHA-256 begin with, for a key of 32 bytes."""
    return key.translate(_INNER_PAD) + b"\x36" * 32, key.translate(_OUTER_PAD) + b"\x5c" * 32


class HandshakeXX:
    """The XX pattern (section 7.5): three messages, after which each end knows the other's static key.

    `static` and `ephemeral` are 32 private bytes each, `static` may be a pair made of them; where one is
    missing a fresh key is made.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        static: bytes | KeyPair | None = None,
        ephemeral: bytes | None = None,
        prologue: bytes = b"",
    ) -> None:
        self._symmetric = SymmetricState(prologue=prologue)
        self._initiator = initiator
        self._static = static if isinstance(static, KeyPair) else KeyPair(static)
        self._ephemeral = KeyPair(ephemeral)
        self.remote_ephemeral = b""
        """The other end's ephemeral public key, empty until its first message was read."""
        self.remote_static = b""
        """The other end's static public key, known once the message that carries it was read."""
        self._loaded: dict[str, X25519PublicKey] = {}  # both, by their letter: two secrets need the first
        self._turn = 0

    @property
    def finished(self) -> bool:
        """Whether all three messages went by."""
        return self._turn == len(_PATTERN_XX)

    @property
    def writes_next(self) -> bool:
        """Whether the next message is this end's to write."""
        return not self.finished and (self._turn % 2 == 0) is self._initiator

    @property
    def handshake_hash(self) -> bytes:
        """The transcript hash: equal on both ends, different in every handshake."""
        return self._symmetric.h

    def write_message(self, payload: bytes) -> bytes:
        """Return the next message with `payload` in it."""
        message = bytearray()
        for step in _PATTERN_XX[self._turn]:
            if step == "e":
                public = self._ephemeral.public
                self._symmetric.mix_hash(public)
                message += public
            elif step == "s":
                message += self._symmetric.encrypt_and_hash(self._static.public)
            else:
                self._mix_shared_secret(step)
        message += self._symmetric.encrypt_and_hash(payload)
        self._turn += 1
        return bytes(message)

    def read_message(self, message: bytes) -> bytes:
        """Take the other end's next message; return its payload. ProtocolError when it is not authentic."""
        offset = 0
        for step in _PATTERN_XX[self._turn]:
            if step == "e":
                self.remote_ephemeral = _take(message, offset, _KEY_BYTES)
                self._symmetric.mix_hash(self.remote_ephemeral)
                offset += _KEY_BYTES
            elif step == "s":
                sealed = _take(message, offset, _KEY_BYTES + TAG_BYTES)
                self.remote_static = self._symmetric.decrypt_and_hash(sealed)
                offset += _KEY_BYTES + TAG_BYTES
            else:
                self._mix_shared_secret(step)
        payload = self._symmetric.decrypt_and_hash(message[offset:])
        self._turn += 1
        return payload

    def split(self) -> tuple[bytes, bytes]:
        """Return (key to send with, key to receive with)."""
        first, second = self._symmetric.split()
        return (first, second) if self._initiator else (second, first)

    def _mix_shared_secret(self, step: str) -> None:
        """Mix in "ee", "es" or "se": the first letter is the initiator's key, the second the responder's."""
        mine, theirs = (0, 1) if self._initiator else (1, 0)
        pair = self._ephemeral if step[mine] == "e" else self._static
        whose = step[theirs]
        public = self._loaded.get(whose)
        if public is None:
            data = self.remote_ephemeral if whose == "e" else self.remote_static
            public = self._loaded[whose] = X25519.load_public(data)
        try:
            secret = pair.private.exchange(public)
        except ValueError:  # a point of small order: the secret would be the same for everyone
            raise ProtocolError("a Noise handshake message holds a degenerate key") from None
        self._symmetric.mix_key(secret)


class KeyPair:
    """An X25519 key of 32 secret bytes, or a fresh one, and the bytes of its public half."""

    __slots__ = ("private", "public")

    def __init__(self, seed: bytes | None = None) -> None:
        self.private = X25519.generate() if seed is None else X25519.load_private(seed)
        self.public = self.private.public_key().public_bytes_raw()


def _used_up() -> ProtocolError:
    return ProtocolError("this link has used up its nonces", hint="open a new one")


def _take(message: bytes, offset: int, length: int) -> bytes:
    part = message[offset : offset + length]
    if len(part) < length:
        raise ProtocolError("a Noise handshake message is too short")
    return part


class NoiseTransport:
    """The two ciphers of an established link; frames must be sealed and opened in their order.

    After a frame that is not authentic, nothing more can be opened: the connection must be closed.
    """

    __slots__ = ("_buffer", "_receive_nonce", "_receiver", "_send_nonce", "_sender", "failure")

    def __init__(self, send_key: bytes, receive_key: bytes) -> None:
        self._sender = new_cipher(send_key)
        self._receiver = new_cipher(receive_key)
        self._send_nonce = 0
        self._receive_nonce = 0
        self._buffer = bytearray()
        self.failure: ProtocolError | None = None
        """Why `open_frames` opens no more."""

    def seal_into(
        self, buffer: memoryview | bytearray, offset: int, plaintext: bytes | bytearray | memoryview
    ) -> int:
        """Write one frame (length, ciphertext, tag) at `offset`; return the offset behind it.

        `plaintext` has at most MAX_PLAINTEXT_BYTES and does not overlap the buffer; the frame needs
        FRAME_OVERHEAD_BYTES more than that. ValueError when either does not fit.
        """
        sealed_bytes = len(plaintext) + TAG_BYTES
        start, end = offset + 2, offset + 2 + sealed_bytes
        if sealed_bytes > MAX_MESSAGE_BYTES or end > len(buffer):
            raise ValueError(f"a frame of {sealed_bytes} bytes does not fit")
        nonce = _pack_nonce(self._next_send_nonce())
        _pack_length_into(buffer, offset, sealed_bytes)
        self._sender.encrypt_into(nonce, plaintext, None, memoryview(buffer)[start:end])
        return end

    def seal_frames(self, buffer: memoryview, offset: int, plaintext: bytes | bytearray | memoryview) -> int:
        """Write `plaintext` as full frames and a last one with the rest; return the offset behind them.

        As `seal_into`, for any length of plaintext, in one pass: a frame costs a call less.
        """
        size = len(plaintext)
        count = -(-size // FULL_FRAME_BYTES)
        if offset + size + count * FRAME_OVERHEAD_BYTES > len(buffer):
            raise ValueError(f"{size} bytes in {count} frames do not fit")
        nonce = self._send_nonce
        if nonce + count > _LAST_NONCE:
            raise _used_up()
        self._send_nonce = nonce + count  # whatever happens below, no nonce is used twice
        encrypt_into = self._sender.encrypt_into
        for start in range(0, size, FULL_FRAME_BYTES):
            part = plaintext[start : start + FULL_FRAME_BYTES]
            sealed_bytes = len(part) + TAG_BYTES
            _pack_length_into(buffer, offset, sealed_bytes)
            offset += 2
            end = offset + sealed_bytes
            encrypt_into(_pack_nonce(nonce), part, None, buffer[offset:end])
            nonce += 1
            offset = end
        return offset

    def open_into(
        self, ciphertext: bytes | bytearray | memoryview, destination: memoryview | bytearray
    ) -> int:
        """Decrypt one frame's content, its length prefix removed, to the start of `destination`.

        Returns the plaintext's length. ProtocolError when the frame is not authentic (what
        `destination` then holds must not be used); ValueError when it does not fit.
        """
        length = len(ciphertext) - TAG_BYTES
        if length > len(destination):
            raise ValueError(f"a plaintext of {length} bytes does not fit into {len(destination)}")
        nonce = self._next_receive_nonce(length)
        try:
            self._receiver.decrypt_into(
                _pack_nonce(nonce), ciphertext, None, memoryview(destination)[:length]
            )
        except InvalidTag:
            raise self._refuse() from None
        return length

    def open_frames(self, ciphertext: memoryview, destination: memoryview) -> tuple[int, int]:
        """Decrypt the whole frames at the start of `ciphertext`, one plaintext behind the other.

        Returns (bytes of `ciphertext` used, bytes of `destination` written). `destination` is at least as
        long as `ciphertext`. A frame that is not authentic ends it: then `failure` is set, what was written
        is what preceded that frame, and nothing more can be opened.
        """
        decrypt_into = self._receiver.decrypt_into
        nonce = self._receive_nonce
        used = written = 0
        last = len(ciphertext) - 2
        try:
            while used <= last:
                start = used + 2
                stop = start + (ciphertext[used] << 8 | ciphertext[used + 1])
                if stop > last + 2:
                    break
                filled = written + stop - start - TAG_BYTES
                if nonce == _LAST_NONCE or filled < written:
                    self._receive_nonce = nonce
                    self._next_receive_nonce(filled - written)
                decrypt_into(_pack_nonce(nonce), ciphertext[start:stop], None, destination[written:filled])
                nonce += 1
                used, written = stop, filled
        except InvalidTag:
            self.failure = self._refuse()
        except ProtocolError as error:
            self.failure = error
        else:
            self._receive_nonce = nonce
        return used, written

    def encrypt(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """Return one whole frame, length in front. ValueError beyond MAX_PLAINTEXT_BYTES."""
        sealed_bytes = len(plaintext) + TAG_BYTES
        if sealed_bytes > MAX_MESSAGE_BYTES:
            raise ValueError(f"a frame of {sealed_bytes} bytes does not fit")
        nonce = _pack_nonce(self._next_send_nonce())
        return _pack_length(sealed_bytes) + self._sender.encrypt(nonce, plaintext, None)

    def decrypt(self, ciphertext: bytes | bytearray | memoryview) -> bytes:
        """Return the plaintext of one frame's content, its length prefix removed."""
        nonce = self._next_receive_nonce(len(ciphertext) - TAG_BYTES)
        try:
            return self._receiver.decrypt(_pack_nonce(nonce), ciphertext, None)
        except InvalidTag:
            raise self._refuse() from None

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take bytes as they come; return the plaintext of every frame that they complete, none empty."""
        buffer = self._buffer
        buffer += data
        plaintexts: list[bytes] = []
        offset = 0
        while (start := offset + 2) <= len(buffer):
            end = start + int.from_bytes(buffer[offset:start], "big")
            if end > len(buffer):
                break
            if plaintext := self.decrypt(bytes(buffer[start:end])):
                plaintexts.append(plaintext)
            offset = end
        del buffer[:offset]
        return plaintexts

    def _next_send_nonce(self) -> int:
        nonce = self._send_nonce
        if nonce == _LAST_NONCE:
            raise _used_up()
        self._send_nonce = nonce + 1
        return nonce

    def _next_receive_nonce(self, plaintext_bytes: int) -> int:
        nonce = self._receive_nonce
        if nonce == _LAST_NONCE:
            raise ProtocolError("this link can receive no more: it broke, or used up its nonces")
        if plaintext_bytes < 0:
            raise self._refuse()
        self._receive_nonce = nonce + 1
        return nonce

    def _refuse(self) -> ProtocolError:
        self._receive_nonce = _LAST_NONCE
        return ProtocolError("a Noise frame is not authentic")
