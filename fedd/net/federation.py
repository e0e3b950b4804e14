"""Which federation this node belongs to, what makes others members of it, and where state is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

from fedd.api.errors import Denied
from fedd.api.types import PeerId
from fedd.core.certificates import Certificate, verify_chain
from fedd.core.dataclass import dataclass
from fedd.core.identity import PublicKey


class PresenceStore(Protocol):
    """Small files that survive a restart, each replaced whole or not at all."""

    def read(self, name: str) -> bytes | None:
        """The content, None when there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Replace the content; on return it survives a power cut, as does all that was replaced before."""

    def replace(self, name: str, data: bytes) -> None:
        """Replace the content; it survives a power cut after `flush`."""

    def flush(self, name: str) -> None:
        """Return when what was replaced survives a power cut."""

    def remove(self, name: str) -> None:
        """Delete it; nothing happens when there is none."""


@dataclass(frozen=True, slots=True)
class FederationIdentity:
    """This node's place in a federation.

    By certificate: `id` is the hash of the root public key; `chain` proves this node's membership to whoever
    knows the id; `is_admin` tells whether it may invite. By allow-list: `id` is the hash of the name, there
    are neither root key nor certificates (`chain` is empty), and `allowed` are those whom this node accepts.
    """

    name: str
    id: str
    root_public_key: PublicKey | None
    chain: bytes
    is_admin: bool
    allowed: frozenset[PeerId] | None = None

    @classmethod
    def from_chain(cls, chain: bytes, federation: str, peer_id: PeerId) -> FederationIdentity:
        """What a certificate chain says.

        Raises:
            Denied: the chain does not make `peer_id` a member of that federation.
        """
        certificate = verify_chain(chain, federation, peer_id)
        root = PublicKey.from_peer_id(certificate.root)
        return cls(certificate.name, federation, root, chain, certificate.is_admin)

    @classmethod
    def from_allow_list(cls, name: str, allowed: Iterable[PeerId]) -> FederationIdentity:
        """The federation of all that name each other in their own configuration.

        The id only keeps federations of different names apart; whom a node accepts is its own list's matter.
        """
        identifier = hashlib.sha256(b"fedd-allow-list-1:" + name.encode()).hexdigest()
        return cls(name, identifier, None, b"", False, frozenset(allowed))

    def check(self, peer_id: PeerId, chain: bytes) -> Certificate | None:
        """The certificate by which `peer_id` is a member; None by allow-list, where the peer id is the proof.

        Raises:
            Denied: it is none.
        """
        if self.allowed is None:
            return verify_chain(chain, self.id, peer_id)
        if peer_id not in self.allowed:
            raise Denied(f"{peer_id} is not in the allow-list of this node")
        return None
