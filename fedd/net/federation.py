"""Which federation this node belongs to, and where its state is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fedd.api.types import PeerId
from fedd.core.certificates import verify_chain
from fedd.core.identity import PublicKey


class PresenceStore(Protocol):
    """Small files that survive a restart, each replaced whole or not at all."""

    def read(self, name: str) -> bytes | None:
        """The content, None when there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Replace the content; on return it survives a power cut."""


@dataclass(frozen=True, slots=True)
class FederationIdentity:
    """This node's place in a federation.

    `id` is the hash of the root public key; `chain` proves this node's membership to whoever knows the id;
    `is_admin` tells whether it may invite.
    """

    name: str
    id: str
    root_public_key: PublicKey
    chain: bytes
    is_admin: bool

    @classmethod
    def from_chain(cls, chain: bytes, federation: str, peer_id: PeerId) -> FederationIdentity:
        """What a certificate chain says.

        Raises:
            Denied: the chain does not make `peer_id` a member of that federation.
        """
        certificate = verify_chain(chain, federation, peer_id)
        root = PublicKey.from_peer_id(certificate.root)
        return cls(certificate.name, federation, root, chain, certificate.is_admin)
