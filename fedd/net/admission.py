"""Who belongs: this node's place in a federation, from `init` or `join` to `leave` or its revocation.

A newcomer proves to the inviter that it knows the token's secret, over a connection on which the inviter has
proven its peer id, and is given a certificate signed by the inviter's admin key. What it needs to find the
federation again is on disk before the first link.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

from fedd.api.errors import Conflict, Denied, FeddError, ProtocolError, TimedOut
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.certificates import InviteToken, parse_token
from fedd.core.identity import PrivateKey, parse_peer_id
from fedd.core.revocation import Revoked
from fedd.net.approval import Approvals
from fedd.net.authority import Authority
from fedd.net.bounds import Bound
from fedd.net.credentials import Alarm
from fedd.net.federation import FederationIdentity, PresenceStore
from fedd.net.invitations import Invitation as Invitation
from fedd.net.invitations import Invitations, refuse_allow_list
from fedd.net.join_messages import JOIN_PROTOCOL as JOIN_PROTOCOL
from fedd.net.joining import NotYet, ask
from fedd.net.presence import Presence
from fedd.net.swarm import Swarm

if TYPE_CHECKING:
    from trio_typing import TaskStatus

logger = logging.getLogger("fedd.net.admission")

FEDERATION_FILE: Final = "federation"
JOINING_FILE: Final = "joining"
# What is in the first after leaving; an empty file is a damaged one.
_LEFT: Final = b"left\n"
# Who waits to be approved asks this often: nobody who approves waits for it, and each costs one stream.
ASK_AGAIN_S: Final = 5.0
ASK_DEADLINE_S: Final = 10.0


class Expulsion(NamedTuple):
    """This node was a member of the federation of that name, and why it is one no longer."""

    federation: str
    reason: str


class _Joining(NamedTuple):
    """A token by which this node asks until it is approved."""

    token: InviteToken
    inviter: PeerId
    over: trio.Event


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
        self._changing = trio.Lock()
        self._joining: _Joining | None = None
        self._failure: FeddError | None = None
        self._revoked: Revoked | None = None
        self._work = trio.Event()
        self._via: tuple[str, ...] = ()
        self.expulsion: Expulsion | None = None
        """Why this node is in no federation, when it was revoked."""
        self.before_leaving: Callable[[str], Awaitable[None]] = _nothing
        """Awaited before this node, being revoked, ends its links: whatever needs them has to end."""
        self._observers: list[Callable[[str, dict[str, Any]], None]] = []
        self.invitations = Invitations(swarm, presence, key, store, clock, random_bytes, self._note)
        self.authority = Authority(swarm, presence, key, store, random_bytes, self._promote, self._note)
        self.approvals = Approvals(
            swarm, presence, self.invitations, lambda peer, s: self.authority.reach(peer, s), self._note
        )
        presence.revoking.expelled = self._expelled
        presence.credentials.alarm = self._alarm

    @property
    def federation(self) -> FederationIdentity | None:
        """The federation this node is in."""
        return self._presence.federation

    @property
    def waits_for(self) -> PeerId | None:
        """The inviter that has to approve this node, if it waits for one."""
        return self._joining.inviter if self._joining is not None else None

    def subscribe(self, callback: Callable[[str, dict[str, Any]], None]) -> None:
        """Call back, synchronously, with what happened and its fields: for an event log."""
        self._observers.append(callback)

    def restore(self, allow_list: FederationIdentity | None = None) -> FederationIdentity | None:
        """Enter the federation that this node was in when it stopped, else that of the `allow_list`, if any.

        Raises:
            FeddError: what is stored is damaged or not this node's.
        """
        data = self._store.read(FEDERATION_FILE)
        if data is not None and data != _LEFT:
            try:
                content = codec.decode(data)
                if "revoked" in content:
                    self.expulsion = Expulsion(content["revoked"], content["reason"])
                else:
                    return self._restore(content, allow_list)
            except (FeddError, KeyError, TypeError) as error:
                raise FeddError(
                    f"the stored membership of this node is not usable: {error}",
                    hint=f"restore {FEDERATION_FILE!r} in the state directory, or remove it and join again",
                ) from error
        if allow_list is not None:
            self._presence.enter(allow_list)
            return allow_list
        token = self._store.read(JOINING_FILE)
        if token:
            self._wait_for(parse_token(token.decode("ascii", "replace")))
        return None

    def _restore(
        self, content: dict[str, Any], allow_list: FederationIdentity | None
    ) -> FederationIdentity | None:
        identity = FederationIdentity.from_chain(content["chain"], content["id"], self._key.peer_id)
        if allow_list is not None:
            logger.warning(
                "this node is in %s by certificate; the allow-list in the configuration counts only after "
                "`fedctl leave` and a restart",
                identity.name,
            )
        via = tuple(str(address) for address in content.get("via", ()))
        try:
            self._presence.enter(identity)
        except Revoked as revoked:
            self._expel(identity, revoked)
            return None
        self._via = via
        self._hint(via)
        return identity

    def init(self, federation_name: str) -> FederationIdentity:
        """Begin a federation: make its root key here, and this node its first admin.

        Raises:
            Conflict: this node is in one already. InvalidParameter: the name is not acceptable.
        """
        self._check_free()
        identity = self.authority.found(federation_name)
        self._enter(identity, ())
        return identity

    def invite(self, uses: int = 1, expires_s: float = 3600.0, approve: bool = False) -> Invitation:
        """Make a token that lets `uses` nodes in within `expires_s` seconds, while this daemon runs.

        With `approve`, each of them waits until an admin, here or elsewhere, approves it.

        Raises:
            Conflict: no federation, or nowhere to listen. Denied: this node is not an admin.
            InvalidParameter: a number out of its bounds. Unhealthy: too many tokens are open.
        """
        return self.invitations.invite(uses, expires_s, approve)

    def bounds(self) -> list[Bound]:
        """What is held for newcomers, and the most of it."""
        return self.invitations.bounds()

    async def join(self, token_text: str, deadline_s: float = 20.0) -> FederationIdentity:
        """Join by a token; returns when this node is a member and linked.

        Raises:
            InvalidParameter: no token. Conflict: in a federation already. Denied: the inviter does not accept
            it. NotConnected: no inviter answers. TimedOut: not within `deadline_s` seconds; where an admin
            has to approve, this node goes on asking.
        """
        token = parse_token(token_text)
        self._check_free()
        inviter = _inviter_of(token)
        if inviter == self._key.peer_id:
            raise Conflict("this token is this node's own invitation", hint="use it on another node")
        start = self._clock()
        joining = None
        async with self._changing:
            self._check_free()
            try:
                identity = await self._ask(token, inviter, deadline_s)
            except NotYet:
                self._store.write(JOINING_FILE, token.encode().encode("ascii"))
                joining = self._wait_for(token)
        left_s = max(0.0, start + deadline_s - self._clock())
        if joining is not None:
            identity = await self._approved(joining, left_s)
            left_s = max(0.0, start + deadline_s - self._clock())
        try:
            await self._presence.wait_linked(inviter, left_s)
        except TimedOut as error:
            raise TimedOut(
                f"this node is a member of {identity.name} now, but {error.detail}",
                hint="it goes on trying by itself, see `fedctl members`; there is no need to join again",
            ) from error
        return identity

    async def leave(self) -> None:
        """Leave the federation for good: the others see it at once, the certificate is thrown away.

        A node that waits to be approved gives that up.

        Raises:
            Conflict: this node is in none, or in one by allow-list.
        """
        waited = self._give_up_joining(None)
        async with self._changing:
            if self.federation is None:
                if waited:
                    return
                raise Conflict("this node is in no federation")
            refuse_allow_list(self.federation)
            # The others need not wait for all of it: after a power cut in between this node is a member.
            self._store.replace(FEDERATION_FILE, _LEFT)
            self.invitations.clear()
            try:
                await self._presence.leave()
            finally:
                self._store.flush(FEDERATION_FILE)

    def set_allow_list(self, allow_list: FederationIdentity | None) -> None:
        """The configuration has another allow-list: who is no longer in it is cut off."""
        mine = self.federation
        if mine is None:
            if allow_list is not None and self._joining is None:
                self._presence.enter(allow_list)
        elif mine.allowed is not None:
            nobody = FederationIdentity.from_allow_list(mine.name, {self._key.peer_id})
            if allow_list is None or allow_list.id == mine.id:  # another name takes a restart
                self._presence.renew(allow_list or nobody)

    # -- running

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask until approved, and leave when revoked; until cancelled."""
        task_status.started()
        while True:
            try:
                if self._revoked is not None:
                    await self._be_expelled()
                elif self._joining is not None:
                    await self._ask_again(self._joining)
                else:
                    await self._work.wait()
            except FeddError as error:  # a full disk: what counts has happened in memory
                logger.error("a change of this node's place could not be stored: %s", error)
            self._work = trio.Event()

    async def _ask_again(self, joining: _Joining) -> None:
        with trio.move_on_after(ASK_AGAIN_S):
            await self._work.wait()
        if self._joining is not joining:
            return
        async with self._changing:
            if self._joining is not joining:
                return
            try:
                identity = await self._ask(joining.token, joining.inviter, ASK_DEADLINE_S)
            except NotYet:
                return
            except Denied as error:
                logger.warning("%s does not let this node in: %s", joining.inviter, error.detail)
                self._note("join denied by the inviter", peer_id=joining.inviter)
                self._give_up_joining(error)
            except FeddError as error:
                logger.debug("%s cannot be asked now: %s", joining.inviter, error)
            else:
                logger.info("approved by %s: this node is a member of %s", joining.inviter, identity.name)
                self._note("joined", name=identity.name)
                self._give_up_joining(None)

    async def _approved(self, joining: _Joining, deadline_s: float) -> FederationIdentity:
        with trio.move_on_after(deadline_s):
            await joining.over.wait()
        if self.federation is not None:
            return self.federation
        if joining.over.is_set():
            raise self._failure or Conflict("joining was given up", hint="`fedctl leave` did that")
        raise TimedOut(
            f"{joining.inviter} has not approved this node yet",
            hint=f"on any admin: `fedctl approve {self._key.peer_id}`; this node goes on asking until then",
        )

    def _wait_for(self, token: InviteToken) -> _Joining:
        self._failure = None
        self._joining = _Joining(token, _inviter_of(token), trio.Event())
        self._work.set()
        return self._joining

    def _give_up_joining(self, failure: FeddError | None) -> bool:
        """Ask no more, because it worked or because of `failure`; whether this node was asking."""
        joining, self._joining = self._joining, None
        if joining is None:
            return False
        self._failure = failure
        self._store.remove(JOINING_FILE)
        joining.over.set()
        return True

    async def _ask(self, token: InviteToken, inviter: PeerId, deadline_s: float) -> FederationIdentity:
        """Show the token, and enter with what comes. Raises NotYet when an admin has to approve."""
        granted = await ask(self._swarm, token, inviter, self._presence.name, deadline_s)
        try:
            identity = FederationIdentity.from_chain(granted.chain, token.federation, self._key.peer_id)
            self._enter(identity, token.addresses, granted.lists)
        except Denied as error:
            raise ProtocolError(f"{inviter} gave a certificate that does not hold: {error.detail}") from error
        self._hint(token.addresses)
        return identity

    # -- being revoked

    def _expelled(self, revoked: Revoked) -> None:
        """A list says that this node is a member no longer: note it on disk now, end the links soon."""
        if self._revoked is None and self.federation is not None:
            self._revoked = revoked
            self._work.set()
            self._expel(self.federation, revoked)

    def _expel(self, identity: FederationIdentity, revoked: Revoked) -> None:
        self.expulsion = Expulsion(identity.name, revoked.detail)
        logger.error("this node is a member of %s no longer: %s", identity.name, revoked.detail)
        self._note("this node is revoked", name=identity.name, reason=revoked.detail)
        content = {"revoked": identity.name, "reason": revoked.detail}
        try:
            self._store.write(FEDERATION_FILE, codec.encode(content))
        except FeddError as error:  # the list itself is kept, so the next start finds out again
            logger.error("that could not be stored: %s", error)

    async def _be_expelled(self) -> None:
        self._revoked = None
        await self.before_leaving("this node was revoked")
        async with self._changing:
            self.invitations.clear()
            if self.federation is not None:
                await self._presence.leave()

    # -- the parts

    def _enter(self, identity: FederationIdentity, via: tuple[str, ...], lists: Iterable[bytes] = ()) -> None:
        self._via = via
        # As durable as the epoch, which `enter` writes: a second wait for the disk would secure nothing more.
        self._store.replace(FEDERATION_FILE, self._content(identity))
        try:
            self._presence.enter(identity, lists)
        except FeddError:
            self._store.write(FEDERATION_FILE, _LEFT)
            raise
        self.expulsion = None

    def _promote(self, identity: FederationIdentity) -> None:
        """The same federation with another certificate: on disk, then in this node's record."""
        self._store.write(FEDERATION_FILE, self._content(identity))
        self._presence.renew(identity)

    def _content(self, identity: FederationIdentity) -> bytes:
        return codec.encode({"id": identity.id, "chain": identity.chain, "via": list(self._via)})

    def _hint(self, addresses: Iterable[str]) -> None:
        """Where the inviter was: all that is known before the first link."""
        found = tuple(addresses)
        if found:
            self._presence.hint(parse_peer_id(found[0].rpartition("/p2p/")[2]), found)

    def _check_free(self) -> None:
        federation = self.federation
        if federation is not None:
            refuse_allow_list(federation)
            raise Conflict(
                f"this node is in the federation {federation.name} already", hint="`fedctl leave` first"
            )
        if self._joining is not None:
            raise Conflict(
                f"this node waits for {self._joining.inviter} to approve it",
                hint=f"on any admin: `fedctl approve {self._key.peer_id}`; `fedctl leave` here gives it up",
            )

    def _alarm(self, alarm: Alarm) -> None:
        self._note("revocation list ignored", peer_id=alarm.source, kind_of=alarm.what, reason=alarm.reason)

    def _note(self, what: str, **fields: Any) -> None:
        for observer in self._observers:
            observer(what, fields)


def _inviter_of(token: InviteToken) -> PeerId:
    return parse_peer_id(token.addresses[0].rpartition("/p2p/")[2])


async def _nothing(reason: str) -> None:
    """Nothing needs the links."""
