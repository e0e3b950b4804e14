"""Revocation: who is a member no longer, in lists that admins sign. Pure: nothing is stored or sent.

Each issuer, the root key or an admin's device key, has one list with a rising epoch, and the newest of each
issuer counts. A peer is revoked by its peer id, whatever certificate it shows. The root's list counts
against everybody; an admin's against members who are no admins. A list of an admin whom the root revoked is
void. Lists carry no date, for certificates carry none: as in a link-state database (RFC 2328, section 13),
the version decides which is newer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

from fedd.api.errors import Denied, FeddError, InvalidParameter, ProtocolError
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.certificates import Certificate, federation_id, verify_chain
from fedd.core.dataclass import dataclass
from fedd.core.identity import PrivateKey, PublicKey, open_sealed, peer_id_from_bytes, peer_id_to_bytes, seal

REVOCATION_DOMAIN = "fedd/revocations/1"

MAX_LIST_BYTES = 14 * 1024
"""A list travels in one frame of 16 KiB."""

MAX_REVOKED = 200
"""Peers in one list: 42 bytes each, which leaves 5 KiB for the 16 bytes of each who stays."""

MAX_ISSUERS = 32
"""Lists that are held: an issuer is an admin by the root's own signature, so there are few."""

MAX_EPOCH = 2**32 - 1
STAYS_BYTES = 16

Mark: TypeAlias = tuple[PeerId, int]
"""Whose list, and its epoch."""

Merged: TypeAlias = Literal["new", "held", "older", "void"]


class Revoked(Denied):
    """A certificate is good but for a revocation; `sealed` is the list that says so."""

    code = "denied"

    def __init__(self, detail: str, sealed: bytes) -> None:
        super().__init__(detail, hint="`fedctl revoke --undo` on the device that revoked, then a new token")
        self.sealed = sealed


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One issuer's list.

    `revoked` maps a peer to the digests (`stay_digest`) of those who stay although it certified them: an
    admin that is lost does not take along whom it let in before.
    """

    issuer: PeerId
    epoch: int
    revoked: Mapping[PeerId, frozenset[bytes]]
    by_root: bool
    sealed: bytes


def stay_digest(peer_id: PeerId) -> bytes:
    """How a list names somebody who stays: 16 bytes."""
    return hashlib.sha256(b"fedd-stays-1:" + peer_id_to_bytes(peer_id)).digest()[:STAYS_BYTES]


def sign_list(
    key: PrivateKey,
    federation: str,
    epoch: int,
    revoked: Mapping[PeerId, Iterable[bytes]],
    chain: bytes = b"",
) -> bytes:
    """Sign the list of `key`'s owner: the root key without a chain, or an admin's device key with its chain.

    Raises:
        InvalidParameter: too long, an epoch out of bounds, or a list that `open_list` would not take.
    """
    entries = [
        [peer_id_to_bytes(peer), b"".join(sorted(set(stays)))] for peer, stays in sorted(revoked.items())
    ]
    fields = {"federation": bytes.fromhex(federation), "epoch": epoch, "chain": chain, "revoked": entries}
    sealed = seal(key, REVOCATION_DOMAIN, codec.encode(fields))
    if len(entries) > MAX_REVOKED or len(sealed) > MAX_LIST_BYTES:
        raise InvalidParameter(
            f"the list of {len(entries)} revoked peers is too long; {MAX_REVOKED} is the most",
            hint="let another admin revoke, or undo what is no longer needed",
        )
    try:
        open_list(sealed, federation)
    except FeddError as error:
        raise InvalidParameter(f"that list of revoked peers is not acceptable: {error.detail}") from error
    return sealed


def open_list(sealed: bytes, federation: str) -> RevocationList:
    """The verified list.

    Raises:
        ProtocolError: malformed, not signed, or of another federation.
        Denied: its issuer is no admin of that federation.
    """
    issuer, payload = open_sealed(sealed, REVOCATION_DOMAIN, max_bytes=MAX_LIST_BYTES)
    try:
        fields = codec.decode(payload, canonical=True)
    except FeddError as error:
        raise ProtocolError(f"a revocation list of {issuer} is not readable: {error.detail}") from error
    match fields:
        case {
            "federation": bytes() as of,
            "epoch": int() as epoch,
            "chain": bytes() as chain,
            "revoked": [*entries],
        } if len(fields) == 4 and 0 < epoch <= MAX_EPOCH and type(epoch) is int:
            pass
        case _:
            raise ProtocolError(f"a revocation list of {issuer} has other fields than it should")
    if of.hex() != federation:
        raise ProtocolError(f"a revocation list of {issuer} is of another federation")
    by_root = federation_id(PublicKey.from_peer_id(issuer)) == federation
    if not by_root and not verify_chain(chain, federation, issuer).is_admin:
        raise Denied(f"a revocation list is signed by {issuer}, who is not an admin")
    return RevocationList(issuer, epoch, _revoked(issuer, entries), by_root, bytes(sealed))


def _revoked(issuer: PeerId, entries: list[object]) -> dict[PeerId, frozenset[bytes]]:
    if len(entries) > MAX_REVOKED:
        raise ProtocolError(f"a revocation list of {issuer} names more than {MAX_REVOKED} peers")
    revoked = {}
    for entry in entries:
        match entry:
            case [bytes() as peer, bytes() as stays] if len(stays) % STAYS_BYTES == 0:
                digests = (stays[at : at + STAYS_BYTES] for at in range(0, len(stays), STAYS_BYTES))
                revoked[peer_id_from_bytes(peer)] = frozenset(digests)
            case _:
                raise ProtocolError(f"a revocation list of {issuer} holds something else than peers")
    if len(revoked) != len(entries) or issuer in revoked:
        raise ProtocolError(f"a revocation list of {issuer} names a peer twice, or its issuer")
    return revoked


class Revocations:
    """The newest list of each issuer of one federation, and what follows from them."""

    def __init__(self, federation: str) -> None:
        self.federation = federation
        self.lists: dict[PeerId, RevocationList] = {}
        """The newest of each issuer, of revoked admins too: undone, no older one of theirs may count."""

    def merge(self, sealed: bytes) -> Merged:
        """Take a list in: "new" when it counts from now on, "held" when it did already.

        "older" than what is held, or "void" for being of an admin whom the root has revoked: ignored.

        Raises:
            ProtocolError, Denied: it is no list of this federation, see `open_list`.
        """
        if any(held.sealed == sealed for held in self.lists.values()):
            return "held"
        found = open_list(sealed, self.federation)
        if self._is_void(found.issuer):
            return "void"
        held = self.lists.get(found.issuer)
        # Two lists of one epoch exist only if the root key is in two places: one of them wins everywhere.
        if held is not None and (found.epoch, found.sealed) < (held.epoch, held.sealed):
            return "older"
        if held is None and len(self.lists) >= MAX_ISSUERS:
            raise Denied(f"there are revocation lists of {MAX_ISSUERS} issuers already")
        self.lists[found.issuer] = found
        return "new"

    def check(self, certificate: Certificate) -> None:
        """Return when the certificate counts.

        Raises:
            Revoked: its holder is revoked, or whoever issued it, before this holder was known to the revoker.
        """
        peer, issuer = certificate.peer_id, certificate.issuer
        for held in self.counting():
            if peer in held.revoked and (held.by_root or not certificate.is_admin):
                by = "with the root key" if held.by_root else f"by {held.issuer}"
                raise Revoked(f"{peer} was revoked {by}", held.sealed)
            if held.by_root and issuer in held.revoked and stay_digest(peer) not in held.revoked[issuer]:
                raise Revoked(f"{peer} was let in by {issuer}, who is revoked", held.sealed)

    def counting(self) -> list[RevocationList]:
        """The lists that count: all but those of revoked admins."""
        return [held for held in self.lists.values() if not self._is_void(held.issuer)]

    def revoked(self) -> dict[PeerId, tuple[PeerId, ...]]:
        """Everybody named in a list, and the issuers of those lists."""
        found: dict[PeerId, tuple[PeerId, ...]] = {}
        for held in self.counting():
            for peer in held.revoked:
                found[peer] = (*found.get(peer, ()), held.issuer)
        return found

    def marks(self) -> tuple[Mark, ...]:
        """What is held, to compare with another's."""
        return tuple(sorted((held.issuer, held.epoch) for held in self.counting()))

    def missing(self, marks: Iterable[Mark]) -> list[bytes]:
        """The lists held here that are newer than another's `marks` say."""
        theirs = dict(marks)
        return [held.sealed for held in self.counting() if held.epoch > theirs.get(held.issuer, 0)]

    def in_order(self) -> list[bytes]:
        """All lists, void ones too, in an order in which merging them anew gives the same."""
        return [held.sealed for held in sorted(self.lists.values(), key=lambda held: held.by_root)]

    def _is_void(self, issuer: PeerId) -> bool:
        return any(held.by_root and issuer in held.revoked for held in self.lists.values())
