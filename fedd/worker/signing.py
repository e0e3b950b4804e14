"""Checking members' signatures in the worker. Its own node's are made by the daemon: no key comes here."""

from __future__ import annotations

from fedd.api.errors import FeddError
from fedd.api.types import PeerId


def is_signed_by(peer: PeerId, signed: bytes, signature: bytes) -> bool:
    """Whether `signature` is that of this peer's key over `signed`."""
    from fedd.core.identity import PublicKey  # here: 4 MiB of cryptography for those who verify

    try:
        PublicKey.from_peer_id(peer).verify(signature, signed)
    except FeddError:
        return False
    return True
