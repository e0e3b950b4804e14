"""The newcomer's side of `/fedd/join/1.0.0`: show a token to the inviter, and take what it answers."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import trio

from fedd.api.errors import Denied, NotConnected
from fedd.api.types import PeerId
from fedd.core.certificates import InviteToken
from fedd.net.join_messages import JOIN_PROTOCOL, MAX_ANSWER_BYTES, converse, lists_in
from fedd.net.swarm import Swarm

_DENIED: Final = "the token is not accepted"
_ASK_NEW: Final = "ask for a new one: it may be used up, expired, or the inviter restarted"


_ATTEMPTS: Final = 3
"""In a crowd of newcomers a connection may be given up for another just when this one asks: asking again is
harmless, and a link that breaks three times is no such chance."""


class NotYet(Exception):
    """The token is good, and the inviter wants the newcomer to be approved first."""


class Granted(NamedTuple):
    """What the inviter gave: a certificate chain and the revocation lists it holds, neither verified yet."""

    chain: bytes
    lists: list[bytes]


async def ask(swarm: Swarm, token: InviteToken, inviter: PeerId, name: str, deadline_s: float) -> Granted:
    """Show `token` to its inviter, over a connection on which that has proven its peer id.

    Raises:
        NotYet: an admin has to approve. Denied: the token is not accepted. NotConnected: nobody answers
        within `deadline_s` seconds. ProtocolError: the answer is none.
    """
    request: dict[str, Any] = {"federation": token.federation, "secret": token.secret, "name": name}
    failure: Exception = trio.TooSlowError()
    with trio.move_on_after(deadline_s):
        for _ in range(_ATTEMPTS):
            try:
                answer = await _show(swarm, token, inviter, request)
                break
            except (trio.BrokenResourceError, EOFError) as error:
                failure = error
        else:
            raise _unanswered(inviter) from failure
        return _read(answer, inviter)
    raise _unanswered(inviter) from failure


async def _show(swarm: Swarm, token: InviteToken, inviter: PeerId, request: dict[str, Any]) -> dict[str, Any]:
    await swarm.dial(token.addresses, inviter)
    try:
        stream = await swarm.open_stream(inviter, JOIN_PROTOCOL)
    except NotConnected as error:  # it stood a moment ago
        raise trio.BrokenResourceError from error
    return await converse(stream, request, MAX_ANSWER_BYTES)


def _unanswered(inviter: PeerId) -> NotConnected:
    return NotConnected(
        f"{inviter}, who gave the token, did not answer", hint="is its daemon running and reachable?"
    )


def _read(answer: dict[str, Any], inviter: PeerId) -> Granted:
    chain = answer.get("chain")
    if isinstance(chain, bytes):
        return Granted(chain, lists_in(answer))
    if answer.get("pending") is True:
        raise NotYet
    if "wait_s" in answer:
        raise Denied(f"{inviter} has seen too many wrong tokens from this node", hint="wait some seconds")
    raise Denied(_DENIED, hint=_ASK_NEW)
