"""Admission: membership certificates, their chains, and invite tokens. Pure: nothing is stored or sent.

A federation is known by the hash of its root public key. The root signs certificates of admins; an
admin's device key signs certificates of members. A *chain* proves membership to anyone who knows the
federation's id: the member's own certificate and, unless the root itself signed that, the certificate
of the admin who did. Certificates carry no date: a device without a clock must come back after a
power cut.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import field
from functools import lru_cache
from typing import Any

from fedd.api.errors import Denied, FeddError, InvalidMessage, InvalidParameter, ProtocolError
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.dataclass import dataclass
from fedd.core.identity import (
    PrivateKey,
    PublicKey,
    open_sealed,
    parse_peer_id,
    peer_id_from_bytes,
    peer_id_to_bytes,
    seal,
)

MEMBER, ADMIN = "member", "admin"
"""The roles: an admin may also invite and issue certificates of members."""

MAX_CHAIN_BYTES = 2048
"""Two certificates of about 350 bytes, with room for long names."""

MAX_NAME_CHARS = 64
"""A federation's name is for people to read."""

SECRET_BYTES = 16
TOKEN_PREFIX = "fedd1-"  # noqa: S105 - the kind of token, not a secret
MAX_TOKEN_ADDRESSES = 8
_MAX_ADDRESS_CHARS = 300  # a DNS name of 253 characters with its port and peer id
_MAX_TOKEN_CHARS = 4096  # eight of the longest addresses in base64

_MAX_ROLES = 8
_MAX_ROLE_CHARS = 32
_CERTIFICATE_DOMAIN = "fedd/certificate/1"
_CERTIFICATE_KEYS = {"federation", "name", "peer", "roles", "serial"}


def federation_id(root_public_key: PublicKey) -> str:
    """Return the federation's key hash: sha256 of the root key's libp2p protobuf, 64 hex digits."""
    return hashlib.sha256(root_public_key.to_protobuf()).hexdigest()


@dataclass(frozen=True, slots=True)
class Certificate:
    """That `peer_id` has `roles` in a federation, says `issuer`.

    `federation` is the federation's id, `name` what its founder called it, `root` the peer id of the
    key that the federation's id is the hash of. `serial` names the certificate when it is revoked.
    """

    federation: str
    name: str
    peer_id: PeerId
    roles: tuple[str, ...]
    serial: int
    issuer: PeerId
    root: PeerId

    @property
    def is_admin(self) -> bool:
        """Whether the holder may invite others and issue their certificates."""
        return ADMIN in self.roles


def issue_certificate(
    key: PrivateKey,
    *,
    federation: str,
    name: str,
    peer_id: PeerId,
    serial: int,
    roles: tuple[str, ...] = (MEMBER,),
) -> bytes:
    """Sign one certificate with the root key, or with an admin's device key for plain members.

    `serial` is 0 to 2**63 - 1. InvalidParameter when a field is out of its bounds.
    """
    _check_fields(federation, name, roles, serial)
    fields = {
        "federation": bytes.fromhex(federation),
        "name": name,
        "peer": peer_id_to_bytes(peer_id),
        "roles": list(roles),
        "serial": serial,
    }
    return seal(key, _CERTIFICATE_DOMAIN, codec.encode(fields))


def make_chain(certificate: bytes, issuer_chain: bytes | None = None) -> bytes:
    """Return the chain of a certificate.

    `issuer_chain` is the chain of the admin whose device key signed it, None when the root signed it.
    InvalidParameter when that chain is not one that the root began.
    """
    if issuer_chain is None:
        return codec.encode([certificate])
    certificates = _split_chain(issuer_chain)
    if len(certificates) != 1:
        raise InvalidParameter("only an admin whom the root certified can issue certificates")
    return codec.encode([certificate, certificates[0]])


def verify_chain(chain: bytes, federation: str | PublicKey, peer_id: PeerId) -> Certificate:
    """Return the certificate by which `peer_id` is a member of the federation (its id or root key).

    Denied, with the reason, when the chain is malformed, of another federation or peer, signed by
    somebody who is not an admin, or gives no membership.
    """
    expected = federation_id(federation) if isinstance(federation, PublicKey) else federation
    try:
        sealed = _split_chain(chain)
        certificates = [_open(sealed[0]), *map(_open_issuers, sealed[1:])]
    except FeddError as error:
        raise Denied(f"the certificate of {peer_id} is not valid: {error.detail}") from None
    own, top = certificates[0], certificates[-1]
    if own.federation != expected or top.federation != expected:
        raise Denied(f"the certificate of {peer_id} is of another federation")
    if own.peer_id != peer_id:
        raise Denied(f"{peer_id} showed the certificate of {own.peer_id}")
    if federation_id(PublicKey.from_peer_id(top.issuer)) != expected:
        raise Denied(f"the certificate of {peer_id} does not go back to the federation's root key")
    if top is not own and (top.peer_id != own.issuer or not top.is_admin):
        raise Denied(f"the certificate of {peer_id} is signed by {own.issuer}, who is not an admin")
    if top is not own and own.is_admin:
        raise Denied(f"the certificate of {peer_id} makes it an admin, which only the root key can do")
    if MEMBER not in own.roles:
        raise Denied(f"the certificate of {peer_id} does not make it a member")
    return Certificate(
        own.federation, own.name, own.peer_id, own.roles, own.serial, own.issuer, root=top.issuer
    )


def _split_chain(chain: bytes) -> list[bytes]:
    certificates = codec.decode(chain, max_bytes=MAX_CHAIN_BYTES, canonical=True)
    if not isinstance(certificates, list) or len(certificates) not in (1, 2):
        raise InvalidMessage("a certificate chain is not a list of one or two certificates")
    if not all(type(certificate) is bytes for certificate in certificates):
        raise InvalidMessage("a certificate chain holds something else than certificates")
    return certificates


def _open(sealed: bytes) -> Certificate:
    """Verify the signature and form of one certificate, not yet the right of its issuer."""
    issuer, payload = open_sealed(sealed, _CERTIFICATE_DOMAIN)
    fields = codec.decode(payload, canonical=True)
    if not isinstance(fields, dict) or fields.keys() != _CERTIFICATE_KEYS:
        raise ProtocolError("a certificate has other fields than it should")
    if not (type(fields["federation"]) is bytes and type(fields["peer"]) is bytes):
        raise ProtocolError("a certificate's federation and peer are not bytes")
    if not isinstance(fields["roles"], list):
        raise ProtocolError("a certificate's roles are not a list")
    federation, roles = fields["federation"].hex(), tuple(fields["roles"])
    _check_fields(federation, fields["name"], roles, fields["serial"])
    peer_id = peer_id_from_bytes(fields["peer"])
    return Certificate(federation, fields["name"], peer_id, roles, fields["serial"], issuer, root=issuer)


# Few admins have let all members in: 64 certificates of 300 bytes. What does not verify is not kept.
_open_issuers = lru_cache(maxsize=64)(_open)


def _check_fields(federation: str, name: Any, roles: tuple[Any, ...], serial: Any) -> None:
    _check_federation(federation)
    if not (
        type(name) is str and 0 < len(name.strip()) <= len(name) <= MAX_NAME_CHARS and name.isprintable()
    ):
        raise InvalidParameter(
            f"a federation's name has 1 to {MAX_NAME_CHARS} printable characters", field="name"
        )
    if not (0 < len(roles) <= _MAX_ROLES and all(_is_role(role) for role in roles)):
        raise InvalidParameter(f"a certificate has 1 to {_MAX_ROLES} roles, each a short word", field="roles")
    if not (type(serial) is int and 0 <= serial < 1 << 63):
        raise InvalidParameter("a certificate's serial is 0 to 2**63 - 1", field="serial")


def _is_role(role: Any) -> bool:
    return type(role) is str and role.isascii() and role.isalpha() and len(role) <= _MAX_ROLE_CHARS


def _check_federation(federation: str) -> None:
    if len(federation) != 64 or federation.strip("0123456789abcdef"):
        raise InvalidParameter("a federation's id is 64 hex digits in lower case", field="federation")


@dataclass(frozen=True, slots=True)
class InviteToken:
    """What a newcomer needs: whom to join, where to knock, and the word that opens.

    `addresses` are multiaddrs that end in /p2p/ and the inviter's peer id; `secret` is 16 random
    bytes, shown to nobody but that inviter. The representation hides it.
    """

    federation: str
    addresses: tuple[str, ...]
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_federation(self.federation)
        if not 0 < len(self.addresses) <= MAX_TOKEN_ADDRESSES:
            raise InvalidParameter(f"an invite token has 1 to {MAX_TOKEN_ADDRESSES} addresses")
        for address in self.addresses:
            _check_address(address)
        if len(self.secret) != SECRET_BYTES:
            raise InvalidParameter(f"an invite token's secret has {SECRET_BYTES} bytes")

    def encode(self) -> str:
        """Return the token in one line: fedd1- and base64url without padding."""
        content = codec.encode([bytes.fromhex(self.federation), list(self.addresses), self.secret])
        return TOKEN_PREFIX + base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def parse_token(text: str) -> InviteToken:
    """Read a token, with white space around it or not; InvalidParameter when it is cut or changed.

    The message never repeats the token: it may end in a log.
    """
    token = text.strip()
    if not token.startswith(TOKEN_PREFIX):
        raise InvalidParameter(f"an invite token begins with {TOKEN_PREFIX}", hint=_TOKEN_HINT, field="token")
    body = token[len(TOKEN_PREFIX) :]
    try:
        if len(token) > _MAX_TOKEN_CHARS:
            raise InvalidMessage("it is too long")
        content = base64.b64decode(body + "=" * (-len(body) % 4), altchars="-_", validate=True)
        fields = codec.decode(content, canonical=True)
        match fields:
            case [bytes() as federation, [*addresses], bytes() as secret]:
                parsed = InviteToken(federation.hex(), tuple(addresses), secret)
            case _:
                raise InvalidMessage("it is not [federation, addresses, secret]")
        if parsed.encode() != token:
            raise InvalidMessage("it is not in its one form")
    except (ValueError, FeddError) as error:
        reason = error.detail if isinstance(error, FeddError) else "it is not base64"
        raise InvalidParameter(
            f"the invite token is damaged: {reason}", hint=_TOKEN_HINT, field="token"
        ) from None
    return parsed


_TOKEN_HINT = "copy the whole line that `fedctl invite` printed"  # noqa: S105 - a hint, not a secret


def _check_address(address: Any) -> None:
    if type(address) is str and address.startswith("/") and len(address) <= _MAX_ADDRESS_CHARS:
        _, separator, peer_id = address.rpartition("/p2p/")
        if separator:
            parse_peer_id(peer_id)
            return
    raise InvalidParameter("an invite token's address does not end in /p2p/ and a peer id")


def secret_hash(secret: bytes) -> bytes:
    """Return what the inviter keeps of a token's secret: 32 bytes."""
    return hashlib.sha256(b"fedd-invite-1:" + secret).digest()


def secret_matches(secret: bytes, kept_hash: bytes) -> bool:
    """Compare a secret with a kept hash in constant time."""
    return hmac.compare_digest(secret_hash(secret), kept_hash)
