"""The newcomer's side of `/fedd/join/1.0.0`: show a token to the inviter, and take what it answers."""

from __future__ import annotations

from typing import Final, NamedTuple

import trio

from fedd.api.errors import Denied, NotConnected
from fedd.api.types import PeerId
from fedd.core.certificates import InviteToken
from fedd.net.join_messages import JOIN_PROTOCOL, MAX_ANSWER_BYTES, lists_in, receive, send
from fedd.net.swarm import Swarm

_DENIED: Final = "the token is not accepted"
_ASK_NEW: Final = "ask for a new one: it may be used up, expired, or the inviter restarted"


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
    request = {"federation": token.federation, "secret": token.secret, "name": name}
    try:
        with trio.fail_after(deadline_s):
            await swarm.dial(token.addresses, inviter)
            stream = await swarm.open_stream(inviter, JOIN_PROTOCOL)
            try:
                await send(stream, request)
                answer = await receive(stream, MAX_ANSWER_BYTES)
                await stream.aclose()
            finally:
                stream.reset()  # does nothing to a stream that was closed
    except (trio.TooSlowError, trio.BrokenResourceError, EOFError) as error:
        raise NotConnected(
            f"{inviter}, who gave the token, did not answer", hint="is its daemon running and reachable?"
        ) from error
    chain = answer.get("chain")
    if isinstance(chain, bytes):
        return Granted(chain, lists_in(answer))
    if answer.get("pending") is True:
        raise NotYet
    if "wait_s" in answer:
        raise Denied(f"{inviter} has seen too many wrong tokens from this node", hint="wait some seconds")
    raise Denied(_DENIED, hint=_ASK_NEW)
