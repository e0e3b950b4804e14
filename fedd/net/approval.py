"""Who waits anywhere to be approved, and by which admin: any admin sees and decides. `/fedd/approval/1.0.0`.

A newcomer waits at the admin that made its token, and only that one can let it in: the token names nobody
else. So nothing is copied. Another admin asks the alive ones who waits, and brings its decision to where the
newcomer does. It shows its certificate each time: an admin's is signed by the root key and proves itself, so
one that was made a moment ago is heard as well.

{do: "list", chain} -> {waiting: [[peer_id, name, address, waiting_s], ...]};
{do: "approve" | "deny", chain, peer} -> {}; either -> {error, reason} when it is not done.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, NamedTuple

import trio

from fedd.api.errors import (
    Conflict,
    Denied,
    FeddError,
    InvalidParameter,
    NotFound,
    ProtocolError,
    Refused,
)
from fedd.api.types import PeerId
from fedd.core.identity import parse_peer_id
from fedd.core.records import MAX_NAME_CHARS
from fedd.net.invitations import MAX_PENDING, Invitations, Waiting
from fedd.net.join_messages import EXCHANGE_S, MAX_ANSWER_BYTES, ask_member, receive, send
from fedd.net.presence import Presence
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm

logger = logging.getLogger("fedd.net.admission")

APPROVAL_PROTOCOL: Final = "/fedd/approval/1.0.0"
# How long another admin has, to be reached, perhaps through a relay, and for one round trip: when somebody
# looks who waits, and when a decision depends on it.
ASK_ADMIN_S: Final = 3.0
DECIDE_S: Final = 10.0
# How many are asked, each in a task and on a stream: more admins than that is no federation of trust.
MAX_ASKED: Final = 64
# What an address takes: `/ip6/` of 39 characters, `/tcp/` of 5, `/p2p/` of 52, and some to spare.
MAX_ADDRESS_CHARS: Final = 256
MAX_REASON_CHARS: Final = 200

_ERRORS: Final = {error.code: error for error in (Conflict, Denied, InvalidParameter, NotFound)}


class WaitingAt(NamedTuple):
    """One who waits for approval, and the admin that it came to."""

    waiting: Waiting
    at: PeerId


class Approvals:
    """Who waits, at this admin and at all others that are alive, and the decision about each.

    `reach` makes a connection to a member within so many seconds. `note` is told of decisions that others
    made about who waits here, and of admins that could not be asked.
    """

    def __init__(
        self,
        swarm: Swarm,
        presence: Presence,
        invitations: Invitations,
        reach: Callable[[PeerId, float], Awaitable[object]],
        note: Callable[..., None],
    ) -> None:
        self._swarm = swarm
        self._presence = presence
        self._invitations = invitations
        self._reach = reach
        self._note = note
        swarm.handle(APPROVAL_PROTOCOL, self._serve)

    async def waiting(self, deadline_s: float = ASK_ADMIN_S) -> list[WaitingAt]:
        """Who waits at this admin and at those that answer within `deadline_s`, the longest first.

        An admin that is alive and does not answer is noted; who waits there is not in the list.

        Raises:
            Conflict: no federation, or one by allow-list. Denied: this node is no admin.
        """
        self._invitations.check_admin()
        found = [WaitingAt(each, self._swarm.peer_id) for each in self._invitations.pending()]

        async def ask(admin: PeerId) -> None:
            try:
                answer = await self._ask(admin, {"do": "list"}, deadline_s)
                found.extend(WaitingAt(each, admin) for each in read_waiting(answer, admin))
            except FeddError as error:
                logger.warning("%s cannot say who waits to be approved there: %s", admin, error.detail)
                self._note("pending unknown", peer_id=admin, reason=error.detail)

        async with trio.open_nursery() as nursery:
            for admin in self._others():
                nursery.start_soon(ask, admin)
        return sorted(found, key=lambda each: -each.waiting.waiting_s)

    async def approve(self, peer: PeerId, at: Iterable[PeerId]) -> None:
        """Let `peer` in, which waits at these admins. Errors as `decide` has them."""
        await self._decide("approve", peer, at)

    async def deny(self, peer: PeerId, at: Iterable[PeerId]) -> None:
        """Turn `peer` away, which waits at these admins. Errors as `decide` has them."""
        await self._decide("deny", peer, at)

    async def _decide(self, what: str, peer: PeerId, at: Iterable[PeerId]) -> None:
        """Bring the decision to each of these admins.

        Raises:
            the first error, when none of them has done it: NotFound: it waits there no longer. Conflict: its
            token is used up. Denied: that admin does not know this one as such. NotConnected, TimedOut,
            Refused: it cannot be told.
        """
        errors: list[FeddError] = []
        done = False
        for admin in at:
            try:
                if admin == self._swarm.peer_id:
                    self._do(what, peer, admin)
                else:
                    await self._ask(admin, {"do": what, "peer": peer}, DECIDE_S)
                done = True
            except FeddError as error:
                errors.append(error)
        if errors and not done:
            raise errors[0]

    def _others(self) -> list[PeerId]:
        """The other admins that this node takes for alive."""
        admins = sorted(self._presence.revoking.admins() - {self._swarm.peer_id})
        return [peer for peer in admins if self._presence.state_of(peer) in ("alive", "suspect")][:MAX_ASKED]

    # -- asking

    async def _ask(self, admin: PeerId, question: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        """The answer to a question; raises what the other admin says, or why there is no answer."""
        federation = self._presence.federation
        if federation is None:
            raise Conflict("this node is in no federation", hint="`fedctl init NAME` begins one")
        answer = await ask_member(
            self._swarm,
            self._reach,
            admin,
            APPROVAL_PROTOCOL,
            {**question, "chain": federation.chain},
            max_bytes=MAX_ANSWER_BYTES,
            deadline_s=deadline_s,
            late=f"the admin {admin} did not answer",
            broken=f"the link with the admin {admin} broke",
        )
        raise_if_refused(answer, admin)
        return answer

    # -- being asked

    async def _serve(self, stream: Stream) -> None:
        with trio.move_on_after(EXCHANGE_S):
            request = await receive(stream)
            try:
                answer = self.answer(stream.peer_id, request)
            except FeddError as error:
                answer = {"error": error.code, "reason": error.detail[:MAX_REASON_CHARS]}
            await send(stream, answer)
            await stream.aclose()

    def answer(self, asker: PeerId, request: dict[str, Any]) -> dict[str, Any]:
        """What another admin is told.

        Raises:
            Denied: the asker is no admin. NotFound, Conflict: as `Invitations.approve`. InvalidParameter,
            ProtocolError: that is no question.
        """
        chain = request.get("chain")
        certificate = self._presence.credentials.check(asker, chain) if isinstance(chain, bytes) else None
        if certificate is None or not certificate.is_admin:
            raise Denied(f"{asker} is no admin")
        what = request.get("do")
        if what == "list":
            return {"waiting": [list(each) for each in self._invitations.pending()]}
        if what not in ("approve", "deny"):
            raise ProtocolError(f"{asker} asks for no such thing")
        peer = request.get("peer")
        if not isinstance(peer, str):
            raise ProtocolError(f"{asker} does not say whom to {what}")
        self._do(what, parse_peer_id(peer), asker)
        return {}

    def _do(self, what: str, peer: PeerId, by: PeerId) -> None:
        if what == "approve":
            self._invitations.approve(peer, by)
            self._note("approved", peer_id=peer, by=by)
        else:
            self._invitations.deny(peer)
            self._note("denied", peer_id=peer, by=by)
        logger.info("%s has decided to %s %s", by, what, peer)


def read_waiting(answer: dict[str, Any], source: PeerId) -> list[Waiting]:
    """Who waits at `source`, as it says.

    Raises:
        ProtocolError: that is no list of them.
    """
    waiting = answer.get("waiting")
    if not isinstance(waiting, list) or len(waiting) > MAX_PENDING:
        raise ProtocolError(f"{source} does not say who waits to be approved there")
    return [_read_one(each, source) for each in waiting]


def _read_one(item: Any, source: PeerId) -> Waiting:
    match item:
        case [str() as peer, str() as name, str() as address, float() as waiting_s]:
            pass
        case _:
            raise ProtocolError(f"{source} tells of somebody who waits in a way that is not understood")
    if len(name) > MAX_NAME_CHARS or len(address) > MAX_ADDRESS_CHARS:
        raise ProtocolError(f"{source} tells of somebody who waits with too long a name or address")
    if not (name + address).isprintable() or not 0 <= waiting_s < math.inf:
        raise ProtocolError(f"{source} tells of somebody who waits what cannot be shown")
    try:
        return Waiting(parse_peer_id(peer), name, address, waiting_s)
    except InvalidParameter as error:
        raise ProtocolError(f"{source} tells of somebody who waits without a peer id") from error


def raise_if_refused(answer: dict[str, Any], source: PeerId) -> None:
    """Raise what the other admin said, when it has not done what it was asked for."""
    if "error" not in answer:
        return
    code, reason = answer["error"], answer.get("reason")
    text = reason[:MAX_REASON_CHARS] if isinstance(reason, str) and reason.isprintable() else ""
    error = _ERRORS.get(code, Refused) if isinstance(code, str) else Refused
    raise error(f"the admin {source} says: {text or 'no'}", hint="see `fedctl members --pending`")
