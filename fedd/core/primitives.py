"""X25519, Ed25519 and ChaCha20-Poly1305 of `cryptography`, by the functions below its public classes.

The public classes are in modules that bring other ciphers, their modes, hashes and formats of keys: 0.3 MiB
in every daemon. Those of X25519 also load the whole OpenSSL backend, RSA and elliptic curves and all, to ask
whether the curve is there: 1.3 MiB more, and a question more for each key. The functions below them are
cryptography's own business: where one of them is not found, the classes it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat import bindings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

__all__ = ["ED25519", "X25519", "InvalidSignature", "InvalidTag", "new_cipher"]

_Private = TypeVar("_Private")
_Public = TypeVar("_Public")


class Curve(Generic[_Private, _Public]):
    """How the keys of a curve are made, and read from their 32 bytes (ValueError for what is no key)."""

    __slots__ = ("generate", "load_private", "load_public")

    def __init__(
        self,
        generate: Callable[[], _Private],
        load_private: Callable[[bytes], _Private],
        load_public: Callable[[bytes], _Public],
    ) -> None:
        self.generate = generate
        self.load_private = load_private
        self.load_public = load_public


class Primitives:
    """What is found in `package`, which is `cryptography.hazmat.bindings`, or else the public classes."""

    x25519: Curve[X25519PrivateKey, X25519PublicKey]
    ed25519: Curve[Ed25519PrivateKey, Ed25519PublicKey]
    new_cipher: Callable[[bytes], ChaCha20Poly1305]
    """ChaCha20-Poly1305 (RFC 8439) with a key of 32 bytes."""

    def __init__(self, package: Any) -> None:
        try:
            below = package._rust.openssl
            self.x25519, self.ed25519 = _curve_below(below.x25519), _curve_below(below.ed25519)
            self.new_cipher = below.aead.ChaCha20Poly1305
        except AttributeError:
            self._take_public_classes()

    def _take_public_classes(self) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        self.x25519 = Curve(
            X25519PrivateKey.generate, X25519PrivateKey.from_private_bytes, X25519PublicKey.from_public_bytes
        )
        self.ed25519 = Curve(
            Ed25519PrivateKey.generate,
            Ed25519PrivateKey.from_private_bytes,
            Ed25519PublicKey.from_public_bytes,
        )
        self.new_cipher = ChaCha20Poly1305


def _curve_below(module: Any) -> Curve[Any, Any]:
    return Curve(module.generate_key, module.from_private_bytes, module.from_public_bytes)


_found = Primitives(bindings)
X25519 = _found.x25519
ED25519 = _found.ed25519
new_cipher = _found.new_cipher
