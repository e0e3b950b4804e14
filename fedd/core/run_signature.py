"""What a member signs for its algorithm: nothing that could be taken for a word of the daemon's own."""

from __future__ import annotations

from fedd.api.errors import InvalidMessage

MAX_SIGNED_BYTES = 64 * 1024
"""Of an algorithm's data: a ballot, or the digest of anything larger."""

_DOMAIN = b"fedd/run-signature/1"


def signed_bytes(federation: str, run_id: str, data: bytes) -> bytes:
    """The bytes under the Ed25519 signature: the domain, federation, run and data, each with its length.

    Raises InvalidMessage for more than `MAX_SIGNED_BYTES` of data.
    """
    if len(data) > MAX_SIGNED_BYTES:
        raise InvalidMessage(
            f"{len(data)} bytes to sign, more than {MAX_SIGNED_BYTES}", hint="sign a digest of them"
        )
    parts = (_DOMAIN, federation.encode(), run_id.encode(), data)
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
