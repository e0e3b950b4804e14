"""What admins do: make other admins, revoke, and keep the root key. Protocol `/fedd/certificate/1.0.0`.

An admin's certificate is signed by the root key alone and so proves itself, whoever brings it. Revocation is
by peer id; with the root key it counts against everybody, with an admin's against members who are no admins.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, NamedTuple

import trio

from fedd.api.errors import (
    Conflict,
    Denied,
    FeddError,
    InvalidParameter,
    NotConnected,
    NotFound,
    ProtocolError,
    Refused,
)
from fedd.api.types import PeerId
from fedd.core.certificates import ADMIN, MEMBER, federation_id, issue_certificate, make_chain
from fedd.core.identity import PrivateKey
from fedd.core.revocation import MAX_LIST_BYTES, STAYS_BYTES, RevocationList, sign_list, stay_digest
from fedd.net.admitted import record_admitted
from fedd.net.federation import FederationIdentity, PresenceStore
from fedd.net.invitations import new_serial, refuse_allow_list
from fedd.net.join_messages import (
    CERTIFICATE_PROTOCOL,
    EXCHANGE_S,
    MAX_MESSAGE_BYTES,
    ask_member,
    receive,
    send,
)
from fedd.net.presence import Presence
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm

logger = logging.getLogger("fedd.net.admission")

ROOT_KEY_FILE: Final = "root-{}.key"
# A list's entry beside whom it lets stay, and a list beside its entries (signer, chain, signature).
ENTRY_BYTES, FRAME_BYTES = 48, 1024
_BRING_ROOT: Final = "`fedctl root export FILE` where it is, `fedctl root import FILE` here"


class Revocation(NamedTuple):
    """What `revoke` did, `by` "root" or "admin"; `stay` and `leave` count whom a revoked admin had let in."""

    peer_id: PeerId
    by: str
    epoch: int
    stay: int
    leave: int


class Named(NamedTuple):
    """A revoked peer and the issuers of the lists that name it."""

    peer_id: PeerId
    by: tuple[PeerId, ...]


class Authority:
    """The rights of this node in its federation. `enter` makes a new certificate its own, on disk first."""

    def __init__(
        self,
        swarm: Swarm,
        presence: Presence,
        key: PrivateKey,
        store: PresenceStore,
        random_bytes: Callable[[int], bytes],
        enter: Callable[[FederationIdentity], None],
        note: Callable[..., None],
    ) -> None:
        self._swarm = swarm
        self._presence = presence
        self._key = key
        self._store = store
        self._random_bytes = random_bytes
        self._enter = enter
        self._note = note
        self.reach: Callable[[PeerId, float], Awaitable[object]] = self._dial
        """Makes a connection to a member, within so many seconds."""
        swarm.handle(CERTIFICATE_PROTOCOL, self._serve)

    # -- the root key

    def found(self, name: str) -> FederationIdentity:
        """Make a root key and this node its first admin; nothing is entered yet."""
        root = PrivateKey.from_seed(self._random_bytes(32))
        identifier = federation_id(root.public_key)
        chain = self._certify(root, identifier, name, self._key.peer_id)
        identity = FederationIdentity.from_chain(chain, identifier, self._key.peer_id)
        self._store.write(ROOT_KEY_FILE.format(identifier[:16]), root.to_pem())
        return identity

    def has_root(self) -> bool:
        """Whether the root key of the present federation is on this device."""
        federation = self._presence.federation
        return federation is not None and bool(self._store.read(ROOT_KEY_FILE.format(federation.id[:16])))

    def export_root(self) -> str:
        """The root key as PEM, a secret: whoever has it makes admins.

        Raises:
            Conflict: no federation, or one by allow-list. NotFound: the key is not here.
        """
        federation = self._federation()
        return self._need_root(federation).to_pem().decode("ascii")

    def import_root(self, pem: str) -> None:
        """Keep the root key on this device.

        Raises:
            InvalidParameter: no key, or another federation's.
        """
        federation = self._federation()
        key = self._parse(pem, federation)
        self._store.write(ROOT_KEY_FILE.format(federation.id[:16]), key.to_pem())
        self._note("root key imported")

    def remove_root(self, pem: str) -> None:
        """Remove the root key from this device, for whoever shows that they have it elsewhere.

        Raises:
            NotFound: it is not here. InvalidParameter: `pem` is not the same key.
        """
        federation = self._federation()
        self._need_root(federation)
        self._parse(pem, federation)  # of one federation id there is one key
        self._store.remove(ROOT_KEY_FILE.format(federation.id[:16]))
        self._note("root key removed")

    # -- admins

    async def grant(self, peer: PeerId, deadline_s: float = 10.0) -> None:
        """Make the member `peer` an admin: it keeps its links and can invite from now on.

        Raises:
            Denied: the root key is not here, or `peer` is revoked. NotFound: it is no member.
            NotConnected, TimedOut: it cannot be reached now. Refused: it does not accept.
        """
        federation = self._federation()
        root = self._need_root(federation)
        named = self._presence.credentials.revocations.revoked()
        if peer in named:
            raise Denied(f"{peer} is revoked", hint=f"`fedctl revoke --undo {peer}` first")
        if peer == self._key.peer_id:
            chain = self._certify(root, federation.id, federation.name, peer)
            self._enter(FederationIdentity.from_chain(chain, federation.id, peer))
            return
        if self._presence.state_of(peer) in (None, "left"):
            raise NotFound(f"{peer} is no member", hint="it has to join first, see `fedctl members`")
        chain = self._certify(root, federation.id, federation.name, peer)
        answer = await ask_member(
            self._swarm,
            self.reach,
            peer,
            CERTIFICATE_PROTOCOL,
            {"chain": chain},
            max_bytes=MAX_MESSAGE_BYTES,
            deadline_s=deadline_s,
            late=f"{peer} did not take its certificate",
            broken=f"the link with {peer} broke before it took its certificate",
        )
        if answer.get("accepted") is not True:
            reason = answer.get("reason")
            text = reason[:200] if isinstance(reason, str) and reason.isprintable() else "it does not say why"
            raise Refused(f"{peer} does not take the certificate: {text}")
        self._note("granted", peer_id=peer)

    async def _dial(self, peer: PeerId, deadline_s: float) -> object:
        if peer in self._swarm.connections:
            return None
        where = next((view.addresses for view in self._presence.members() if view.peer_id == peer), ())
        if not where:
            raise NotConnected(
                f"there is no link with {peer} and no address of it", hint="try again when it is linked"
            )
        return await self._swarm.dial(where, peer)

    async def _serve(self, stream: Stream) -> None:
        """A member brings a certificate for this node: an admin's, or it is not wanted."""
        with trio.move_on_after(EXCHANGE_S):
            request = await receive(stream)
            try:
                self._take(request.get("chain"), stream.peer_id)
            except FeddError as error:
                await send(stream, {"accepted": False, "reason": error.detail})
            else:
                await send(stream, {"accepted": True, "reason": ""})
            await stream.aclose()

    def _take(self, chain: object, source: PeerId) -> None:
        federation = self._federation()
        if not isinstance(chain, bytes):
            raise ProtocolError("that is no certificate")
        if chain == federation.chain:
            return
        identity = FederationIdentity.from_chain(chain, federation.id, self._key.peer_id)
        if not identity.is_admin:
            raise Denied("that certificate gives no rights that this node does not have")
        certificate = identity.check(self._key.peer_id, chain)
        if certificate is not None:
            self._presence.credentials.revocations.check(certificate)
        self._enter(identity)
        logger.info("this node is an admin of %s now, by the root key; %s brought it", identity.name, source)
        self._note("made admin", peer_id=source, name=identity.name)

    # -- revocation

    def revoke(self, peer: PeerId) -> Revocation:
        """`peer` is a member no longer, whatever certificate it shows.

        Raises:
            Denied: this node is no admin, or `peer` is one and the root key is not here. Conflict: it is this
            node, or revoked already. InvalidParameter: the list is full.
        """
        federation = self._federation()
        if peer == self._key.peer_id:
            raise Conflict("that is this node itself", hint="`fedctl leave` leaves the federation")
        certificates = self._presence.revoking.certificates()
        is_admin = peer in certificates and certificates[peer].is_admin
        root = self._root(federation)
        signer = root or self._key
        if root is None and not federation.is_admin:
            raise Denied(
                "this node may not revoke: it is no admin", hint="ask on an admin, or bring the root key"
            )
        if root is None and is_admin:
            raise Denied(
                f"{peer} is an admin, and only the root key revokes those; it is not on this device",
                hint=_BRING_ROOT,
            )
        held = self._held(signer)
        if peer in held:
            raise Conflict(f"{peer} is revoked already", hint="see `fedctl members --revoked`")
        revoked: dict[PeerId, Iterable[bytes]] = dict(held)
        let_in = [one for one, certificate in certificates.items() if certificate.issuer == peer]
        if root is not None:  # that admin's own list counts no more, but what it said so far still does
            theirs = self._presence.credentials.revocations.lists.get(peer)
            for one in theirs.revoked if theirs is not None else ():
                if one != root.peer_id:
                    revoked.setdefault(one, ())
        stay = self._who_stays(let_in, revoked) if root is not None else []
        revoked[peer] = [stay_digest(one) for one in stay]
        epoch = self._publish(signer, revoked, federation, with_chain=root is None)
        leave = len(let_in) - len(stay)
        self._note("revoked", peer_id=peer, by="root" if root is not None else "admin", epoch=epoch)
        return Revocation(peer, "root" if root is not None else "admin", epoch, len(stay), leave)

    def _who_stays(self, let_in: Iterable[PeerId], revoked: Mapping[PeerId, Iterable[bytes]]) -> list[PeerId]:
        """Of those whom a revoked admin let in, who stays: the living first, as many as the list holds."""
        used = sum(ENTRY_BYTES + len(b"".join(stays)) for stays in revoked.values())
        room = max(0, (MAX_LIST_BYTES - FRAME_BYTES - used) // STAYS_BYTES)
        stay = [one for one in let_in if one not in revoked]
        stay.sort(key=lambda one: (self._presence.state_of(one) != "alive", one))
        return stay[:room]

    def undo(self, peer: PeerId) -> Revocation:
        """Take back that `peer` is revoked: its certificate counts again where it still has it.

        Raises:
            NotFound: this node has not revoked it. Conflict: others have as well.
        """
        federation = self._federation()
        root = self._root(federation)
        done = None
        for signer in (root, self._key):
            held = self._held(signer) if signer is not None else {}
            if signer is None or peer not in held:
                continue
            rest: dict[PeerId, Iterable[bytes]] = {one: stay for one, stay in held.items() if one != peer}
            epoch = self._publish(signer, rest, federation, with_chain=signer is self._key)
            done = Revocation(peer, "root" if signer is root else "admin", epoch, 0, 0)
        others = self._presence.credentials.revocations.revoked().get(peer, ())
        if others:
            by = ", ".join("the root key" if self._is_root(one) else one for one in others)
            hint = "it is undone here; undo it there as well" if done is not None else "undo it there"
            raise Conflict(f"{peer} is still revoked by {by}", hint=hint)
        if done is None:
            raise NotFound(f"{peer} is not revoked", hint="see `fedctl members --revoked`", field="peer")
        self._note("revocation undone", peer_id=peer, by=done.by, epoch=done.epoch)
        return done

    def revoked(self) -> list[Named]:
        """Everybody named in a list that counts here."""
        named = self._presence.credentials.revocations.revoked()
        return [Named(peer, by) for peer, by in sorted(named.items())]

    def _held(self, signer: PrivateKey) -> Mapping[PeerId, frozenset[bytes]]:
        held = self._list_of(signer)
        return held.revoked if held is not None else {}

    def _list_of(self, signer: PrivateKey) -> RevocationList | None:
        return self._presence.credentials.revocations.lists.get(signer.peer_id)

    def _publish(
        self,
        signer: PrivateKey,
        revoked: Mapping[PeerId, Iterable[bytes]],
        federation: FederationIdentity,
        *,
        with_chain: bool,
    ) -> int:
        held = self._list_of(signer)
        epoch = held.epoch + 1 if held is not None else 1
        sealed = sign_list(signer, federation.id, epoch, revoked, federation.chain if with_chain else b"")
        self._presence.revoking.publish(sealed)
        return epoch

    # -- the parts

    def _federation(self) -> FederationIdentity:
        federation = self._presence.federation
        if federation is None:
            raise Conflict("this node is in no federation", hint="`fedctl init NAME` begins one")
        refuse_allow_list(federation)
        return federation

    def _root(self, federation: FederationIdentity) -> PrivateKey | None:
        data = self._store.read(ROOT_KEY_FILE.format(federation.id[:16]))
        return PrivateKey.from_pem(data) if data else None

    def _need_root(self, federation: FederationIdentity) -> PrivateKey:
        root = self._root(federation)
        if root is None:
            raise Denied(f"the root key of {federation.name} is not on this device", hint=_BRING_ROOT)
        return root

    def _is_root(self, issuer: PeerId) -> bool:
        federation = self._federation()
        return federation.root_public_key is not None and federation.root_public_key.peer_id == issuer

    def _parse(self, pem: str, federation: FederationIdentity) -> PrivateKey:
        key = PrivateKey.from_pem(pem.encode("utf-8", "replace"))
        if federation_id(key.public_key) != federation.id:
            raise InvalidParameter(
                f"that is not the root key of {federation.name}",
                hint="it is what `fedctl root export` wrote on a device of this federation",
                field="pem",
            )
        return key

    def _certify(self, root: PrivateKey, identifier: str, name: str, peer: PeerId) -> bytes:
        serial = new_serial(self._random_bytes)
        certificate = issue_certificate(
            root, federation=identifier, name=name, peer_id=peer, serial=serial, roles=(MEMBER, ADMIN)
        )
        record_admitted(self._store, peer, serial)
        return make_chain(certificate)
