"""What the routes below /v1/federation do: who belongs, who may let others in, and who no longer does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedd.api.errors import Conflict, InvalidParameter, NotFound
from fedd.api.types import PeerId
from fedd.control.server import Operation, Request
from fedd.core.identity import parse_peer_id
from fedd.host.runs import Runs
from fedd.net.admission import Admission
from fedd.net.approval import DECIDE_S
from fedd.net.events import EventLog
from fedd.net.presence import Presence
from fedd.net.swarm import Swarm


class FederationService:
    """The operations of admission. `find_peer` turns what an operator wrote into a member's peer id."""

    def __init__(
        self,
        *,
        swarm: Swarm,
        presence: Presence,
        admission: Admission,
        runs: Runs,
        events: EventLog,
        find_peer: Callable[[str], PeerId],
    ) -> None:
        self._swarm = swarm
        self._presence = presence
        self._admission = admission
        self._runs = runs
        self._events = events
        self._find_peer = find_peer
        admission.subscribe(self._note)
        admission.before_leaving = runs.leave_all

    def operations(self) -> dict[str, Operation]:
        """Every operation of admission."""
        return {
            "init": self.init,
            "invite": self.invite,
            "join": self.join,
            "leave": self.leave,
            "grant": self.grant,
            "revoked": self.revoked,
            "revoke": self.revoke,
            "unrevoke": self.unrevoke,
            "pending": self.pending,
            "approve": self.approve,
            "deny": self.deny,
            "root": self.root,
            "root_export": self.root_export,
            "root_import": self.root_import,
            "root_remove": self.root_remove,
        }

    def place(self) -> dict[str, Any]:
        """This node's place, for its status: the federation, its rights there, or why it is in none."""
        federation, expulsion = self._presence.federation, self._admission.expulsion
        return {
            "federation": federation.name if federation else None,
            "federation_id": federation.id if federation else None,
            "admin": federation is not None and federation.is_admin,
            "root_key": self._admission.authority.has_root(),
            "waits_for": self._admission.waits_for,
            "revoked": expulsion._asdict() if expulsion is not None else None,
        }

    # -- in and out

    async def init(self, request: Request) -> dict[str, Any]:
        """Begin a federation."""
        federation = self._admission.init(request.body["federation"])
        self._events.publish("federation", what="begun", name=federation.name)
        return {"federation": federation.name, "federation_id": federation.id, "peer_id": self._swarm.peer_id}

    async def invite(self, request: Request) -> dict[str, Any]:
        """Make a token."""
        body = request.body
        made = self._admission.invite(body["uses"], body["expires_s"], body["approve"])
        return {"token": made.token, "expires_s": made.expires_s, "uses": made.uses, "approve": made.approve}

    async def join(self, request: Request) -> dict[str, Any]:
        """Join by a token."""
        federation = await self._admission.join(request.body["token"], deadline_s=request.body["deadline_s"])
        self._events.publish("federation", what="joined", name=federation.name)
        return {"federation": federation.name, "federation_id": federation.id, "peer_id": self._swarm.peer_id}

    async def leave(self, request: Request) -> dict[str, Any]:
        """Leave for good, or give up waiting to be let in."""
        federation = self._presence.federation
        if federation is None and self._admission.waits_for is None:
            raise Conflict("this node belongs to no federation", hint="there is nothing to leave")
        if federation is not None and federation.allowed is None:
            await self._runs.leave_all("this node leaves the federation")
        await self._admission.leave()
        name = federation.name if federation is not None else None
        self._events.publish("federation", what="left", name=name)
        return {"federation": name}

    # -- admins

    async def grant(self, request: Request) -> dict[str, Any]:
        """Make a member an admin."""
        role = request.body["role"]
        if role != "admin":
            raise InvalidParameter(f"there is no role {role!r} to grant", hint="write admin", field="role")
        peer = self._find_peer(request.body["peer"])
        await self._admission.authority.grant(peer)
        return {**self._about(peer), "role": role}

    async def root(self, request: Request) -> dict[str, Any]:
        """Whether the root key is on this device."""
        return {"federation": self._name(), "here": self._admission.authority.has_root()}

    async def root_export(self, request: Request) -> dict[str, Any]:
        """The root key, a secret."""
        return {"federation": self._name(), "pem": self._admission.authority.export_root()}

    async def root_import(self, request: Request) -> dict[str, Any]:
        """Keep the root key here."""
        self._admission.authority.import_root(request.body["pem"])
        return {"federation": self._name(), "here": True}

    async def root_remove(self, request: Request) -> dict[str, Any]:
        """Remove the root key, given a copy of it."""
        self._admission.authority.remove_root(request.body["pem"])
        return {"federation": self._name(), "here": False}

    # -- revocation

    async def revoked(self, request: Request) -> list[dict[str, Any]]:
        """Everybody revoked."""
        named = self._admission.authority.revoked()
        return [{"peer_id": peer, "name": self._presence.name_of(peer), "by": list(by)} for peer, by in named]

    async def revoke(self, request: Request) -> dict[str, Any]:
        """Throw a member out."""
        peer = self._known_or_id(request.path["peer"])
        done = self._admission.authority.revoke(peer)
        return {**self._about(peer), **done._asdict()}

    async def unrevoke(self, request: Request) -> dict[str, Any]:
        """Take a revocation back."""
        peer = self._among(
            request.path["peer"], [named.peer_id for named in self._admission.authority.revoked()]
        )
        done = self._admission.authority.undo(peer)
        return {**self._about(peer), "by": done.by, "epoch": done.epoch}

    # -- approval

    async def pending(self, request: Request) -> list[dict[str, Any]]:
        """Who waits to be approved, at this admin or another."""
        return [
            {
                "peer_id": waiting.peer_id,
                "name": waiting.name,
                "address": waiting.address,
                "waiting_s": round(waiting.waiting_s, 3),
                "at": at,
                "at_name": self._presence.name_of(at),
            }
            for waiting, at in await self._admission.approvals.waiting()
        ]

    async def approve(self, request: Request) -> dict[str, Any]:
        """Let a newcomer in."""
        peer, at = await self._waiting(request.path["peer"])
        await self._admission.approvals.approve(peer, at)
        return {"federation": self._name(), "peer_id": peer, "at": at}

    async def deny(self, request: Request) -> dict[str, Any]:
        """Turn a newcomer away."""
        peer, at = await self._waiting(request.path["peer"])
        await self._admission.approvals.deny(peer, at)
        return {"federation": self._name(), "peer_id": peer, "at": at}

    # -- the parts

    def _note(self, what: str, fields: dict[str, Any]) -> None:
        self._events.publish("federation", what=what, **fields)

    def _name(self) -> str | None:
        federation = self._presence.federation
        return federation.name if federation is not None else None

    def _about(self, peer: PeerId) -> dict[str, Any]:
        return {"federation": self._name(), "peer_id": peer, "name": self._presence.name_of(peer)}

    async def _waiting(self, text: str) -> tuple[PeerId, list[PeerId]]:
        """One who waits, and the admins that it came to."""
        rows = await self._admission.approvals.waiting(DECIDE_S)
        # By peer id alone: a newcomer calls itself what it likes.
        peer = self._among(text, sorted({row.waiting.peer_id for row in rows}))
        at = [row.at for row in rows if row.waiting.peer_id == peer]
        if not at:
            raise NotFound(
                f"{peer} does not wait to be approved, as far as the admins that answer know",
                hint="see `fedctl members --pending`",
                field="peer",
            )
        return peer, at

    def _known_or_id(self, text: str) -> PeerId:
        """A member; or anybody's whole peer id, for a device that has not been seen for long."""
        try:
            return self._find_peer(text)
        except NotFound:
            try:
                return parse_peer_id(text)
            except InvalidParameter:
                pass
            raise

    def _among(self, text: str, peers: list[PeerId]) -> PeerId:
        """The one of `peers` whose id begins so, or the peer of that whole id, or that member."""
        found = [peer for peer in peers if peer.startswith(text)]
        if len(found) > 1:
            raise InvalidParameter(
                f"{text!r} can be {' or '.join(sorted(found)[:4])}",
                hint="write more of the peer id",
                field="peer",
            )
        return found[0] if found else self._known_or_id(text)
