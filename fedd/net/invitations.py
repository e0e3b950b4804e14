"""The inviter's side of admission: tokens, who came with them, and who waits to be approved.

Whatever is wrong with a token, the answer is the same bytes after the same work; a valid one is spent on disk
before it is answered, and the same peer may ask again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import field
from typing import Any, Final, NamedTuple

import trio

from fedd.api.errors import Conflict, Denied, FeddError, InvalidParameter, NotFound, Unhealthy
from fedd.api.types import PeerId
from fedd.core.certificates import (
    MAX_TOKEN_ADDRESSES,
    MEMBER,
    SECRET_BYTES,
    InviteToken,
    issue_certificate,
    make_chain,
    secret_hash,
    secret_matches,
)
from fedd.core.dataclass import dataclass
from fedd.core.identity import PrivateKey
from fedd.core.records import MAX_NAME_CHARS
from fedd.net.admitted import record_all
from fedd.net.bounds import Bound
from fedd.net.doors import TokenBucket
from fedd.net.federation import FederationIdentity, PresenceStore
from fedd.net.join_messages import EXCHANGE_S, JOIN_PROTOCOL, fitting, receive, send
from fedd.net.presence import Presence
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm

logger = logging.getLogger("fedd.net.admission")

# Strangers may ask; beyond this many at once the one that has dawdled longest has to go, first of a peer that
# has several: an honest one takes a round trip or two.
SEATS: Final = 16
# Tokens that can be open at once, and uses of one: more is a mistake in a script.
MAX_INVITATIONS: Final = 1024
MAX_USES: Final = 10_000
MAX_EXPIRES_S: Final = 30 * 24 * 3600.0
# Who waits for approval: as many as a person looks through. Whoever comes later is turned away.
MAX_PENDING: Final = 64
# Wrong tokens of one peer: a few mistakes of the hand at once, then one in five seconds. The secret has 128
# bits, so this is about work and logs; a peer id costs a handshake, and those are limited at the door.
WRONG_BURST, WRONG_PER_S = 8, 0.2
MAX_WRONG: Final = 1024
NOTE_EVERY_S: Final = 60.0


class Invitation(NamedTuple):
    """What `invite` gives: the one-line token, how often and for how many seconds it can be used."""

    token: str
    uses: int
    expires_s: float
    approve: bool = False


class Waiting(NamedTuple):
    """One who waits for approval: its name is what it calls itself, and nobody has checked that."""

    peer_id: PeerId
    name: str
    address: str
    waiting_s: float


@dataclass(slots=True)
class _Open:
    """An invitation as the inviter keeps it: the secret itself is only in the token."""

    hash: bytes
    uses: int
    expires_at: float
    approve: bool
    given: dict[PeerId, bytes] = field(default_factory=dict)
    approved: dict[PeerId, PeerId] = field(default_factory=dict)
    """Who may come in, and the admin that said so."""
    denied: set[PeerId] = field(default_factory=set)


@dataclass(slots=True)
class _Pending:
    invitation: _Open
    name: str
    address: str
    since: float


@dataclass(slots=True)
class _Batch:
    """Those who were let in since the list of the admitted was written, and why that failed."""

    admitted: list[tuple[_Open, PeerId, int]] = field(default_factory=list)
    failure: FeddError | None = None


class Invitations:
    """Tokens that this node gave out, while it runs. `note` is told what the operator should know."""

    def __init__(
        self,
        swarm: Swarm,
        presence: Presence,
        key: PrivateKey,
        store: PresenceStore,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        note: Callable[..., None],
    ) -> None:
        self._presence = presence
        self._key = key
        self._store = store
        self._clock = clock
        self._random_bytes = random_bytes
        self._note = note
        self._open: list[_Open] = []
        self._pending: dict[PeerId, _Pending] = {}
        self._wrong: dict[PeerId, TokenBucket] = {}
        self._noted_at = float("-inf")
        self._unnoted = 0
        self._refused_invitations = self._refused_pending = self._refused_guesses = 0
        self._batch = _Batch()
        self._seats: dict[Stream, trio.CancelScope] = {}
        self._evicted = 0
        swarm.handle(JOIN_PROTOCOL, self._serve, access="anyone")

    def invite(self, uses: int, expires_s: float, approve: bool) -> Invitation:
        """Make a token; see `Admission.invite`."""
        federation = self._admin()
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
        waited_for = [pending.invitation for pending in self._pending.values()]
        self._open = [each for each in self._open if each.expires_at > now or each in waited_for]
        if len(self._open) >= MAX_INVITATIONS:
            self._refused_invitations += 1
            raise Unhealthy(
                f"{MAX_INVITATIONS} tokens are open", hint="wait until some expire, or use one many times"
            )
        secret = self._random_bytes(SECRET_BYTES)
        token = InviteToken(federation.id, tuple(addresses), secret)
        self._open.append(_Open(secret_hash(secret), uses, now + expires_s, approve))
        return Invitation(token.encode(), uses, expires_s, approve)

    def pending(self) -> list[Waiting]:
        """Who waits for approval here, the first that came first."""
        now = self._clock()
        return [
            Waiting(peer, each.name, each.address, now - each.since) for peer, each in self._pending.items()
        ]

    def check_admin(self) -> None:
        """Raise Conflict or Denied when this node is no admin of a federation with certificates."""
        self._admin("see who waits to be approved")

    def approve(self, peer: PeerId, by: PeerId) -> None:
        """Let `peer` in, because the admin `by` says so: it asks again every few seconds.

        Raises:
            NotFound: it does not wait here. Conflict: its token is used up.
        """
        self._admin("approve")
        pending = self._waiting(peer)
        invitation = pending.invitation
        taken = invitation.given.keys() | invitation.approved.keys()
        if peer not in taken and len(taken) >= invitation.uses:
            raise Conflict(
                f"the token of {peer} is used up: it was for {invitation.uses}", hint="`fedctl invite` anew"
            )
        invitation.approved[peer] = by

    def deny(self, peer: PeerId) -> None:
        """Turn `peer` away: when it asks again, its token is not accepted.

        Raises:
            NotFound: it does not wait here.
        """
        pending = self._waiting(peer)
        pending.invitation.denied.add(peer)
        pending.invitation.approved.pop(peer, None)
        del self._pending[peer]

    def clear(self) -> None:
        """This node leaves: its tokens are worth nothing any more."""
        self._open.clear()
        self._pending.clear()

    def bounds(self) -> list[Bound]:
        """How many invitations are open, how many wait, and how many may."""
        now = self._clock()
        live = sum(invitation.expires_at > now for invitation in self._open)
        return [
            Bound("invitations", live, MAX_INVITATIONS, self._refused_invitations, "tokens that are open"),
            Bound("joins", len(self._seats), SEATS, self._evicted, "newcomers that are being answered"),
            Bound(
                "pending", len(self._pending), MAX_PENDING, self._refused_pending, "newcomers to be approved"
            ),
            Bound(
                "wrong_tokens",
                len(self._wrong),
                MAX_WRONG,
                self._refused_guesses,
                "peers that came with a wrong token; reached: guesses that were not looked at",
            ),
        ]

    # -- the protocol

    async def _serve(self, stream: Stream) -> None:
        if len(self._seats) >= SEATS:
            self._evict()
        try:
            with trio.move_on_after(EXCHANGE_S) as self._seats[stream]:
                request = await receive(stream)
                batch = self._batch
                answer = self.answer(stream.peer_id, request, stream.connection.remote_address)
                await self._spend(batch)
                await send(stream, answer)
                await stream.aclose()
        finally:
            self._seats.pop(stream, None)

    async def _spend(self, batch: _Batch) -> None:
        """Return when all of `batch` are on disk: who asks at the same moment is written by the same write.

        Each write takes the disk some milliseconds, for which this node does nothing else.
        """
        await trio.lowlevel.checkpoint()
        if batch is self._batch and batch.admitted:
            self._batch = _Batch()
            try:
                record_all(self._store, [(peer, serial) for _, peer, serial in batch.admitted])
            except FeddError as error:
                batch.failure = error
                for invitation, peer, _ in batch.admitted:
                    invitation.given.pop(peer, None)
            else:
                for _, peer, _ in batch.admitted:
                    logger.info("admitted %s", peer)
                    self._note("admitted", peer_id=peer)
        if batch.failure is not None:
            raise batch.failure

    def _evict(self) -> None:
        held = Counter(stream.peer_id for stream in self._seats)
        most = max(held.values())
        slowest = next(stream for stream in self._seats if held[stream.peer_id] == most)
        self._seats.pop(slowest).cancel()
        slowest.reset()
        self._evicted += 1

    def answer(self, peer: PeerId, request: dict[str, Any], address: str = "") -> dict[str, Any]:
        """What the newcomer is told once it is on disk. All open tokens are compared: time tells nothing."""
        now = self._clock()
        wrong = self._wrong.get(peer)
        if wrong is not None and wrong.level(now) < 1:
            self._refused_guesses += 1
            self._note_denied(peer)
            return {"chain": None, "wait_s": 1 / WRONG_PER_S}
        secret, mine = request.get("secret"), self._presence.federation
        given = secret if isinstance(secret, bytes) else b""
        matching = [invitation for invitation in self._open if secret_matches(given, invitation.hash)]
        invitation = matching[0] if matching else None
        if (
            mine is None
            or not mine.is_admin
            or invitation is None
            or request.get("federation") != mine.id
            or not self._is_good(peer, invitation, now)
        ):
            self._charge(peer, now)
            self._note_denied(peer)
            return {"chain": None}
        if invitation.approve and peer not in invitation.given and not self._is_approved(peer, invitation):
            return self._let_wait(peer, invitation, request.get("name"), address)
        if peer not in invitation.given:
            invitation.given[peer] = self._issue(peer, mine, invitation)
            self._pending.pop(peer, None)
        lists = self._presence.credentials.revocations.missing(())
        return {"chain": invitation.given[peer], "lists": fitting(lists)}

    def _is_good(self, peer: PeerId, invitation: _Open, now: float) -> bool:
        """Whether `peer` may come in by this token, which it knows."""
        if peer in invitation.denied or peer in self._presence.credentials.revocations.revoked():
            return False
        if peer in invitation.given or peer in invitation.approved or peer in self._pending:
            return True
        taken = len(invitation.given.keys() | invitation.approved.keys())
        return now < invitation.expires_at and taken < invitation.uses

    def _is_approved(self, peer: PeerId, invitation: _Open) -> bool:
        """Whether an admin has approved it; of one who was revoked since then it does not count."""
        by = invitation.approved.get(peer)
        if by is not None and by in self._presence.credentials.revocations.revoked():
            del invitation.approved[peer]
        return peer in invitation.approved

    def _let_wait(self, peer: PeerId, invitation: _Open, name: object, address: str) -> dict[str, Any]:
        if peer not in self._pending:
            if len(self._pending) >= MAX_PENDING:
                self._refused_pending += 1
                self._note_denied(peer)
                return {"chain": None}
            text = name if isinstance(name, str) and name.isprintable() else ""
            self._pending[peer] = _Pending(invitation, text[:MAX_NAME_CHARS], address, self._clock())
            logger.info("%s (%s) waits to be approved: fedctl approve %s", text[:MAX_NAME_CHARS], peer, peer)
            self._note("pending", peer_id=peer, name=text[:MAX_NAME_CHARS])
        return {"chain": None, "pending": True}

    def _issue(self, peer: PeerId, mine: FederationIdentity, invitation: _Open) -> bytes:
        serial = new_serial(self._random_bytes)
        certificate = issue_certificate(
            self._key, federation=mine.id, name=mine.name, peer_id=peer, serial=serial, roles=(MEMBER,)
        )
        self._batch.admitted.append((invitation, peer, serial))
        return make_chain(certificate, mine.chain)

    def _admin(self, what: str = "invite") -> FederationIdentity:
        federation = self._presence.federation
        if federation is None:
            raise Conflict("this node is in no federation", hint="`fedctl init NAME` begins one")
        refuse_allow_list(federation)
        if not federation.is_admin:
            raise Denied(
                f"this node may not {what}: it is no admin",
                hint="ask on an admin, or let the device with the root key `fedctl grant` it",
            )
        return federation

    def _waiting(self, peer: PeerId) -> _Pending:
        pending = self._pending.get(peer)
        if pending is None:
            raise NotFound(
                f"{peer} does not wait to be approved by this node",
                hint="`fedctl members --pending` says who does, and where",
                field="peer",
            )
        return pending

    def _charge(self, peer: PeerId, now: float) -> None:
        if peer not in self._wrong:
            if len(self._wrong) >= MAX_WRONG:
                del self._wrong[next(iter(self._wrong))]
            self._wrong[peer] = TokenBucket(WRONG_BURST, WRONG_PER_S, now)
        self._wrong[peer].take(now)

    def _note_denied(self, peer: PeerId) -> None:
        """Tell the first, and once a minute how many there were since."""
        now = self._clock()
        if now < self._noted_at + NOTE_EVERY_S:
            self._unnoted += 1
            return
        others = f" (and {self._unnoted} others before)" if self._unnoted else ""
        logger.warning("a join by %s was denied%s", peer, others)
        self._note("join denied", peer_id=peer, others=self._unnoted or None)
        self._noted_at, self._unnoted = now, 0


def refuse_allow_list(federation: FederationIdentity) -> None:
    """Raise Conflict when the federation is one by allow-list: it has neither tokens nor certificates."""
    if federation.allowed is not None:
        raise Conflict(
            f"{federation.name} is a federation by allow-list: its members are those in fedd.toml",
            hint="change allow in [federation] on every device and reload",
        )


def new_serial(random_bytes: Callable[[int], bytes]) -> int:
    """The serial of a certificate: random, so that admins need not agree on a counter; 63 bits."""
    return int.from_bytes(random_bytes(8), "big") >> 1
