"""What other members ask of this node about runs: to take part, to begin, to stop, and to exchange rounds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import trio

from fedd.api.errors import Conflict, Denied, FeddError, ProtocolError
from fedd.api.types import PeerId
from fedd.core.epoch_manifest import open_any, read_any
from fedd.core.epochs import News
from fedd.core.identity import PrivateKey
from fedd.core.manifest import Manifest, Proposal, open_stop, state_end
from fedd.host.run_control import read_message, write_message
from fedd.host.run_gate import RunGate
from fedd.host.run_limits import RunLimits
from fedd.host.run_proposer import printable_name

if TYPE_CHECKING:
    from fedd.host.run_histories import RunHistories
    from fedd.host.run_node import RunNode
    from fedd.host.run_returns import RunReturns
    from fedd.net.presence import Presence
    from fedd.net.stream import Stream

_PREAMBLE_TIMEOUT_S = 10.0
"""A manifest comes in one piece, or its sender is in no hurry to be served."""

_MAX_RETIRED = 256
"""Runs whose end is still told to those who ask: a neighbour asks within `linger_s` if at all."""


class RunDesk:
    """Serves the two protocols.

    `nodes` are the runs in progress by id, `adopt` begins one, `tell` tells members of an epoch.
    """

    def __init__(
        self,
        key: PrivateKey,
        presence: Presence,
        gate: RunGate,
        limits: RunLimits,
        nodes: Mapping[str, RunNode],
        adopt: Callable[[Manifest], RunNode],
        histories: RunHistories,
        tell: Callable[[Manifest, Collection[PeerId]], None],
        state_of_run: Callable[[str], str | None],
        returns: RunReturns,
    ) -> None:
        self._key = key
        self._presence = presence
        self._gate = gate
        self._limits = limits
        self._nodes = nodes
        self._adopt = adopt
        self._histories = histories
        self._tell = tell
        self._state_of_run = state_of_run
        self._returns = returns
        self._retired: dict[str, tuple[bytes, str | None]] = {}
        """By run id: the frame that says how this node's part ended, and in which epoch if it finished."""

    def retire(self, node: RunNode) -> None:
        """Remember how this node's part ended, for a neighbour that comes back later."""
        self._retired[node.manifest.run_id] = (node.end_frame(), node.finished_digest)
        while len(self._retired) > _MAX_RETIRED:
            del self._retired[next(iter(self._retired))]

    async def serve_control(self, stream: Stream) -> None:
        """Answer one question. Raises ProtocolError for one that cannot be read."""
        with trio.move_on_after(self._limits.command_timeout_s):
            message = await read_message(stream)
            try:
                reply = await self.answer(stream.peer_id, message)
            except FeddError as error:
                reply = {"kind": "error", "code": error.code, "detail": error.detail, "hint": error.hint}
            await write_message(stream, reply)
            await stream.aclose()

    async def answer(self, peer: PeerId, message: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a member's question. Raises FeddError."""
        kind = message["kind"]
        if kind == "history":
            return self._histories.answer(message)
        document = message.get(
            {
                "propose": "proposal",
                "stop": "statement",
                "withdraw": "proposal",
                "return": "manifest",
                "enlist": "manifest",
            }.get(kind, kind)
        )
        if not isinstance(document, bytes):
            raise ProtocolError(f"a run message of unknown kind {kind!r:.40}, or without its document")
        if kind == "propose":
            return await self._answer_proposal(peer, Proposal.decode(document))
        if kind == "manifest":
            return self._answer_manifest(peer, document)
        if kind == "return":
            return self._answer_return(peer, document)
        if kind == "enlist":
            return await self._answer_enlist(peer, document)
        if kind == "withdraw":
            self._gate.withdraw(document, peer)
        else:
            _, run_id = open_stop(document)
            if run_id in self._nodes:
                self._nodes[run_id].on_stop(document)
        return {"kind": "ok"}

    def _answer_manifest(self, peer: PeerId, sealed: bytes) -> dict[str, Any]:
        proposal, run_id = read_any(sealed)
        node = self._nodes.get(run_id)
        digest = node.finished_digest if node is not None else self._retired.get(run_id, (b"", None))[1]
        if digest is not None:
            return {"kind": "ended", "digest": digest}
        if node is None:
            self._take_part(proposal, sealed)
        else:
            self._hear(peer, node, sealed)
        return {"kind": "ok"}

    def _answer_return(self, peer: PeerId, sealed: bytes) -> dict[str, Any]:
        """A member that was away, after a restart or by mistake, wants to take part again."""
        _, run_id = read_any(sealed)
        node = self._nodes.get(run_id)
        if node is None or node.story.ending is not None:
            waiting = self._returns.hear_sleeper(run_id, peer, sealed)
            if waiting is not None:
                return {"kind": "asleep", "manifest": waiting}
            state = self._state_of_run(run_id)
            return {"kind": "unknown"} if state is None else {"kind": "ended", "state": state}
        if not node.epochs.knows(peer):
            raise Denied("this node was never a member of that run")
        if sealed != node.manifest.sealed and peer in node.manifest.newcomers:
            self._tell(node.manifest, [peer])  # it is in already, and has not heard of it yet
            return {"kind": "ok"}
        refusal = node.epochs.refusal(peer)
        if refusal:
            return {"kind": "refused", "reason": refusal}
        node.epochs.let_in(peer)
        return {"kind": "ok"}

    async def _answer_enlist(self, peer: PeerId, sealed: bytes) -> dict[str, Any]:
        """A member of a run asks this node to join it."""
        manifest = open_any(sealed)
        federation = self._presence.federation
        try:
            if peer not in manifest.members or federation is None:
                raise Denied("who asks is no member of that run")
            if manifest.run_id in self._nodes:
                raise Conflict("this node takes part in that run already")
            if manifest.max_payload_bytes > self._limits.payload_bytes:
                raise Denied(f"messages of {manifest.max_payload_bytes} bytes are more than this node takes")
            name = printable_name(self._presence, manifest.proposal.initiator)
            acceptance = await self._gate.consider(manifest.proposal, federation.id, name)
        except FeddError as error:
            return {"kind": "declined", "code": error.code, "reason": str(error)}
        self._retired.pop(manifest.run_id, None)  # it was in this run before, and is asked to come back
        return {"kind": "accepted", "acceptance": acceptance}

    def _take_part(self, proposal: Proposal, sealed: bytes) -> RunNode:
        """Begin a run that this node accepted: only then are all its members' signatures verified."""
        self._gate.check_expected(proposal.digest)
        manifest = open_any(sealed)
        if self._is_sleeping(manifest.run_id) and self._key.peer_id not in manifest.newcomers:
            raise Conflict("this node was restarted, and waits to be let in again")
        return self._adopt(manifest)

    def _is_sleeping(self, run_id: str) -> bool:
        return run_id in self._returns.sleeping

    def forget(self, run_id: str) -> None:
        """This node's part has ended, but not for good."""
        self._retired.pop(run_id, None)

    def _hear(self, peer: PeerId, node: RunNode, sealed: bytes) -> bool:
        """A member speaks of an epoch; whether this node is in the same one now. Raises ProtocolError."""
        if sealed == node.manifest.sealed:
            return True
        manifest = open_any(sealed, node.manifest)
        if node.story.ending is not None:
            return False
        news = node.epochs.hear(manifest)
        if news is News.STALE:
            self._tell(node.manifest, [peer])
        elif news is News.EXCLUDED:
            node.exclude(peer)
        return news in (News.KNOWN, News.ENTER)

    async def _answer_proposal(self, peer: PeerId, proposal: Proposal) -> dict[str, Any]:
        federation = self._presence.federation
        try:
            if proposal.initiator != peer or federation is None:
                raise Denied("the proposal is somebody else's")
            acceptance = await self._gate.consider(
                proposal, federation.id, printable_name(self._presence, peer)
            )
        except FeddError as error:
            return {"kind": "declined", "code": error.code, "reason": str(error)}
        limit = self._limits.payload_bytes
        return {"kind": "accepted", "acceptance": acceptance, "max_payload_bytes": limit}

    async def serve_run_stream(self, stream: Stream) -> None:
        """Read a neighbour's rounds, or tell it how this node's part ended. Raises ProtocolError."""
        # Here: what goes over run streams, letters and all, only a device with runs needs.
        from fedd.host.run_wire import Kind, PreambleDecoder, encode_frame

        decoder = PreambleDecoder()
        with trio.fail_after(_PREAMBLE_TIMEOUT_S):
            while (preamble := decoder.receive_data(data := await stream.receive_some())) is None:
                if not data:
                    raise ProtocolError(f"{stream.peer_id} ended a run stream before its manifest")
        sealed, early = preamble
        proposal, run_id = read_any(sealed)
        node = self._nodes.get(run_id)
        farewell = self._retired.get(run_id, (b"", None))[0] if node is None else b""
        if not farewell:
            try:
                node = node or self._take_part(proposal, sealed)
            except (Denied, Conflict) as error:
                if self._is_sleeping(run_id):
                    return  # it has lost its place in that epoch, and asks for one in the next
                statement = state_end(self._key, run_id, 0, f"left: {error.detail}")
                farewell = encode_frame(Kind.END, 0, statement.sealed)
            else:
                if self._hear(stream.peer_id, node, sealed):
                    await node.take_stream(stream, early)
                    return
                if node.story.ending is None:
                    return  # it is told of the present epoch, or this node has left for it
                farewell = node.end_frame()
        await stream.send_all(farewell)
        with trio.move_on_after(_PREAMBLE_TIMEOUT_S):
            while await stream.receive_some():
                pass
