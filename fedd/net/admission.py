"""Admission: begin a federation, invite into it, join it, leave it. Protocol `/fedd/join/1.0.0`.

A newcomer proves to the inviter that it knows the token's secret, over a connection on which the inviter has
proven its peer id, and is given a certificate signed by the inviter's admin key. Whatever is wrong with a
token, the answer is the same.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import trio

from fedd.api.errors import (
    Conflict,
    Denied,
    FeddError,
    InvalidParameter,
    NotConnected,
    ProtocolError,
    TimedOut,
    Unhealthy,
)
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.certificates import (
    ADMIN,
    MAX_TOKEN_ADDRESSES,
    MEMBER,
    SECRET_BYTES,
    InviteToken,
    federation_id,
    issue_certificate,
    make_chain,
    parse_token,
    secret_hash,
    secret_matches,
)
from fedd.core.identity import PrivateKey, parse_peer_id, peer_id_to_bytes
from fedd.net.bounds import Bound
from fedd.net.federation import FederationIdentity, PresenceStore
from fedd.net.presence import Presence
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm

logger = logging.getLogger("fedd.net.admission")

JOIN_PROTOCOL: Final = "/fedd/join/1.0.0"
FEDERATION_FILE: Final = "federation"
# What is in that file after leaving; an empty file is a damaged one.
_LEFT: Final = b"left\n"
ADMITTED_FILE: Final = "admitted"
ROOT_KEY_FILE: Final = "root-{}.key"

# A request is a secret, an answer a chain of two certificates.
MAX_MESSAGE_BYTES: Final = 4096
EXCHANGE_S: Final = 5.0
# Strangers may ask; beyond this many at once they are turned away.
SEATS: Final = 16
# Tokens that can be open at once, and uses of one: more is a mistake in a script.
MAX_INVITATIONS: Final = 1024
MAX_USES: Final = 10_000
MAX_EXPIRES_S: Final = 30 * 24 * 3600.0
# Who was admitted with what, for the operator and for revocation; 100 bytes each.
MAX_ADMITTED: Final = 4096

_DENIED: Final = "the token is not accepted"


class Invitation(NamedTuple):
    """What `invite` gives: the one-line token, how often and for how many seconds it can be used."""

    token: str
    uses: int
    expires_s: float


@dataclass(slots=True)
class _Open:
    """An invitation as the inviter keeps it: the secret itself is only in the token."""

    hash: bytes
    uses: int
    expires_at: float
    given: dict[PeerId, bytes] = field(default_factory=dict)


class Admission:
    """Who belongs. Call `restore` once, when the swarm listens; it enters the federation of the last run."""

    def __init__(
        self,
        swarm: Swarm,
        presence: Presence,
        key: PrivateKey,
        store: PresenceStore,
        *,
        clock: Callable[[], float] = trio.current_time,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._swarm = swarm
        self._presence = presence
        self._key = key
        self._store = store
        self._clock = clock
        self._random_bytes = random_bytes
        self._open: list[_Open] = []
        self._refused_invitations = 0
        self._seats = trio.CapacityLimiter(SEATS)
        self._changing = trio.Lock()
        swarm.handle(JOIN_PROTOCOL, self._serve, access="anyone")

    @property
    def federation(self) -> FederationIdentity | None:
        """The federation this node is in."""
        return self._presence.federation

    def restore(self) -> FederationIdentity | None:
        """Enter the federation that this node was in when it stopped, if any.

        Raises:
            FeddError: what is stored is damaged or not this node's.
        """
        data = self._store.read(FEDERATION_FILE)
        if data is None or data == _LEFT:
            return None
        try:
            content = codec.decode(data)
            identity = FederationIdentity.from_chain(content["chain"], content["id"], self._key.peer_id)
        except (FeddError, KeyError, TypeError) as error:
            raise FeddError(
                f"the stored membership of this node is not usable: {error}",
                hint=f"restore {FEDERATION_FILE!r} in the state directory, or remove it and join again",
            ) from error
        self._presence.enter(identity)
        return identity

    def init(self, federation_name: str) -> FederationIdentity:
        """Begin a federation: make its root key here, and this node its first admin.

        Raises:
            Conflict: this node is in one already. InvalidParameter: the name is not acceptable.
        """
        self._check_free()
        root = PrivateKey.from_seed(self._random_bytes(32))
        identifier = federation_id(root.public_key)
        certificate = issue_certificate(
            root,
            federation=identifier,
            name=federation_name,
            peer_id=self._key.peer_id,
            serial=self._serial(),
            roles=(MEMBER, ADMIN),
        )
        chain = make_chain(certificate)
        identity = FederationIdentity.from_chain(chain, identifier, self._key.peer_id)
        self._store.write(ROOT_KEY_FILE.format(identifier[:16]), root.to_pem())
        self._enter(identity)
        return identity

    def invite(self, uses: int = 1, expires_s: float = 3600.0) -> Invitation:
        """Make a token that lets `uses` nodes in within `expires_s` seconds, while this daemon runs.

        Raises:
            Conflict: no federation, or nowhere to listen. Denied: this node is not an admin.
            InvalidParameter: a number out of its bounds. Unhealthy: too many tokens are open.
        """
        federation = self.federation
        if federation is None:
            raise Conflict("this node is in no federation", hint="`fedctl init NAME` begins one")
        if not federation.is_admin:
            raise Denied(
                "this node may not invite: it is no admin", hint="ask on the node that began the federation"
            )
        if not 1 <= uses <= MAX_USES:
            raise InvalidParameter(f"a token has 1 to {MAX_USES} uses, not {uses}", field="uses")
        if not 0 < expires_s <= MAX_EXPIRES_S:
            raise InvalidParameter(
                f"a token lasts up to {MAX_EXPIRES_S:g} s, not {expires_s:g}", field="expires"
            )
        addresses = self._presence.own_addresses[:MAX_TOKEN_ADDRESSES]
        if not addresses:
            raise Conflict(
                "this node listens nowhere, nobody could join by it", hint="start fedd with --listen"
            )
        now = self._clock()
        self._open = [invitation for invitation in self._open if invitation.expires_at > now]
        if len(self._open) >= MAX_INVITATIONS:
            self._refused_invitations += 1
            raise Unhealthy(
                f"{MAX_INVITATIONS} tokens are open", hint="wait until some expire, or use one many times"
            )
        secret = self._random_bytes(SECRET_BYTES)
        token = InviteToken(federation.id, tuple(addresses), secret)
        self._open.append(_Open(secret_hash(secret), uses, now + expires_s))
        return Invitation(token.encode(), uses, expires_s)

    def bounds(self) -> list[Bound]:
        """How many invitations are open, and how many may be."""
        now = self._clock()
        live = sum(invitation.expires_at > now for invitation in self._open)
        help = "tokens that have not expired"
        return [Bound("invitations", live, MAX_INVITATIONS, self._refused_invitations, help)]

    async def join(self, token_text: str, deadline_s: float = 20.0) -> FederationIdentity:
        """Join by a token; returns when this node is a member and linked.

        Raises:
            InvalidParameter: no token. Conflict: in a federation already. Denied: the inviter does not accept
            it. NotConnected: no inviter answers. TimedOut: not within `deadline_s` seconds.
        """
        token = parse_token(token_text)
        self._check_free()
        inviter = parse_peer_id(token.addresses[0].rpartition("/p2p/")[2])
        if inviter == self._key.peer_id:
            raise Conflict("this token is this node's own invitation", hint="use it on another node")
        start = self._clock()
        async with self._changing:
            self._check_free()
            chain = await self._ask(token, inviter, deadline_s)
            try:
                identity = FederationIdentity.from_chain(chain, token.federation, self._key.peer_id)
            except Denied as error:
                raise ProtocolError(
                    f"{inviter} gave a certificate that does not hold: {error.detail}"
                ) from error
            self._enter(identity)
        self._presence.hint(inviter, token.addresses)
        try:
            await self._presence.wait_linked(inviter, max(0.0, start + deadline_s - self._clock()))
        except TimedOut as error:
            raise TimedOut(
                f"this node is a member of {identity.name} now, but {error.detail}",
                hint="it goes on trying by itself, see `fedctl members`; there is no need to join again",
            ) from error
        return identity

    async def leave(self) -> None:
        """Leave the federation for good: the others see it at once, the certificate is thrown away.

        Raises:
            Conflict: this node is in none.
        """
        async with self._changing:
            if self.federation is None:
                raise Conflict("this node is in no federation")
            self._store.write(FEDERATION_FILE, _LEFT)
            self._open.clear()
            await self._presence.leave()

    # -- both ends of the protocol

    async def _ask(self, token: InviteToken, inviter: PeerId, deadline_s: float) -> bytes:
        try:
            with trio.fail_after(deadline_s):
                await self._swarm.dial(token.addresses, inviter)
                stream = await self._swarm.open_stream(inviter, JOIN_PROTOCOL)
                try:
                    await _send(stream, {"federation": token.federation, "secret": token.secret})
                    answer = await _receive(stream)
                    await stream.aclose()
                finally:
                    stream.reset()  # does nothing to a stream that was closed
        except (trio.TooSlowError, trio.BrokenResourceError, EOFError) as error:
            raise NotConnected(
                f"{inviter}, who gave the token, did not answer", hint="is its daemon running and reachable?"
            ) from error
        chain = answer.get("chain")
        if not isinstance(chain, bytes):
            raise Denied(
                _DENIED, hint="ask for a new one: it may be used up, expired, or the inviter restarted"
            )
        return chain

    async def _serve(self, stream: Stream) -> None:
        try:
            self._seats.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            stream.reset()
            return
        try:
            with trio.move_on_after(EXCHANGE_S):
                request = await _receive(stream)
                chain = self._consider(stream.peer_id, request.get("federation"), request.get("secret"))
                await _send(stream, {"chain": chain})
                await stream.aclose()
        finally:
            self._seats.release_on_behalf_of(stream)

    def _consider(self, peer: PeerId, federation: object, secret: object) -> bytes | None:
        """The newcomer's chain, or None; every open token is compared, so the time tells nothing."""
        if not isinstance(secret, bytes):
            secret = b""
        now = self._clock()
        matching = [invitation for invitation in self._open if secret_matches(secret, invitation.hash)]
        mine = self.federation
        if not matching or mine is None or federation != mine.id:
            logger.info("a join by %s was denied", peer)
            return None
        invitation = matching[0]
        if peer in invitation.given:
            return invitation.given[peer]
        if invitation.expires_at <= now or len(invitation.given) >= invitation.uses:
            logger.info("a join by %s was denied: the token is expired or used up", peer)
            return None
        serial = self._serial()
        certificate = issue_certificate(
            self._key, federation=mine.id, name=mine.name, peer_id=peer, serial=serial, roles=(MEMBER,)
        )
        chain = make_chain(certificate, mine.chain)
        self._record_admitted(peer, serial)
        invitation.given[peer] = chain
        logger.info("admitted %s to %s", peer, mine.name)
        return chain

    # -- what is kept

    def _record_admitted(self, peer: PeerId, serial: int) -> None:
        stored = self._store.read(ADMITTED_FILE)
        try:
            admitted = codec.decode(stored, max_bytes=1 << 20) if stored else []
        except FeddError as error:
            raise FeddError(
                f"the list of admitted nodes {ADMITTED_FILE!r} is damaged: {error.detail}"
            ) from error
        if len(admitted) >= MAX_ADMITTED:
            raise Unhealthy(f"this node has admitted {MAX_ADMITTED} others", hint="let another admin invite")
        self._store.write(ADMITTED_FILE, codec.encode([*admitted, [peer_id_to_bytes(peer), serial]]))

    def _enter(self, identity: FederationIdentity) -> None:
        self._store.write(FEDERATION_FILE, codec.encode({"id": identity.id, "chain": identity.chain}))
        self._presence.enter(identity)

    def _check_free(self) -> None:
        if self.federation is not None:
            raise Conflict(
                f"this node is in the federation {self.federation.name} already", hint="`fedctl leave` first"
            )

    def _serial(self) -> int:
        # Random, so that admins need not agree on a counter; certificates say at most 63 bits.
        return int.from_bytes(self._random_bytes(8), "big") >> 1


async def _send(stream: Stream, message: dict[str, object]) -> None:
    data = codec.encode(message)
    await stream.send_all(len(data).to_bytes(2, "big") + data)


async def _receive(stream: Stream) -> dict[str, object]:
    size = int.from_bytes(await stream.receive_exactly(2), "big")
    if size > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"{stream.peer_id} announces a join message of {size} bytes")
    try:
        message = codec.decode(await stream.receive_exactly(size), canonical=True)
    except FeddError as error:
        raise ProtocolError(f"{stream.peer_id} sent no join message: {error.detail}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"{stream.peer_id} sent no join message")
    return message
