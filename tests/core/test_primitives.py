"""Keys and ciphers are the same wherever `cryptography` keeps them, and bring nothing else along."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat import bindings
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedd.core.primitives import InvalidSignature, InvalidTag, Primitives

SECRET, NONCE = bytes(range(32)), bytes(12)

direct = Primitives(bindings)


def hidden() -> Primitives:
    return Primitives(object())


def partly_hidden() -> Primitives:
    """As if one function of several had moved."""
    below: Any = bindings
    found = below._rust.openssl
    kept = SimpleNamespace(x25519=found.x25519, ed25519=SimpleNamespace(), aead=found.aead)
    return Primitives(SimpleNamespace(_rust=SimpleNamespace(openssl=kept)))


@pytest.mark.parametrize("other", [hidden, partly_hidden])
def test_keys_are_the_same_where_cryptography_hides_its_functions(other: Any) -> None:
    public = other()
    assert public.x25519.generate == X25519PrivateKey.generate != direct.x25519.generate
    mine, theirs = public.x25519.load_private(SECRET), direct.x25519.generate()
    again = direct.x25519.load_private(SECRET)
    secret = mine.exchange(direct.x25519.load_public(theirs.public_key().public_bytes_raw()))
    assert secret == again.exchange(public.x25519.load_public(theirs.public_key().public_bytes_raw()))


@pytest.mark.parametrize("other", [hidden, partly_hidden])
def test_signatures_are_the_same_where_cryptography_hides_its_functions(other: Any) -> None:
    public = other()
    assert public.ed25519.generate == Ed25519PrivateKey.generate != direct.ed25519.generate
    ours, theirs = direct.ed25519.load_private(SECRET), public.ed25519.load_private(SECRET)
    assert ours.sign(b"data") == theirs.sign(b"data")
    key = direct.ed25519.load_public(theirs.public_key().public_bytes_raw())
    key.verify(theirs.sign(b"data"), b"data")
    with pytest.raises(InvalidSignature):
        key.verify(theirs.sign(b"data"), b"other data")
    with pytest.raises(ValueError, match="32 bytes"):
        direct.ed25519.load_public(b"short")


def test_ciphers_are_the_same_where_cryptography_hides_its_classes() -> None:
    sealed = direct.new_cipher(SECRET).encrypt(NONCE, b"data", b"bound")
    assert hidden().new_cipher(SECRET).decrypt(NONCE, sealed, b"bound") == b"data"
    with pytest.raises(InvalidTag):
        direct.new_cipher(SECRET).decrypt(NONCE, sealed, b"else")


def test_a_handshake_loads_nothing_of_cryptography_that_it_does_not_need() -> None:
    program = (
        "import sys; from fedd.core.identity import PrivateKey\n"
        "from fedd.core.noise import HandshakeXX\n"
        "key = PrivateKey(bytes(32)); key.public_key.verify(key.sign(b''), b'')\n"
        "one, other = HandshakeXX(initiator=True), HandshakeXX(initiator=False)\n"
        "for _ in range(3): other.read_message(one.write_message(b'')); one, other = other, one\n"
        "kept_away = ('cryptography.hazmat.back', 'cryptography.hazmat.prim')\n"
        "print(one.finished, *(name for name in sys.modules if name.startswith(kept_away)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr
