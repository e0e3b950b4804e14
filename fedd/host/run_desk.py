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
from fedd.host.run_wire import Kind, PreambleDecoder, encode_frame

if TYPE_CHECKING:
    from fedd.host.run_histories import RunHistories
    from fedd.host.run_node import RunNode
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
    ) -> None:
        self._key = key
        self._presence = presence
        self._gate = gate
        self._limits = limits
        self._nodes = nodes
        self._adopt = adopt
        self._histories = histories
        self._tell = tell
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
            {"propose": "proposal", "stop": "statement", "withdraw": "proposal"}.get(kind, kind)
        )
        if not isinstance(document, bytes):
            raise ProtocolError(f"a run message of unknown kind {kind!r:.40}, or without its document")
        if kind == "propose":
            return await self._answer_proposal(peer, Proposal.decode(document))
        if kind == "manifest":
            return self._answer_manifest(peer, document)
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

    def _take_part(self, proposal: Proposal, sealed: bytes) -> RunNode:
        """Begin a run that this node accepted: only then are all its members' signatures verified."""
        self._gate.check_expected(proposal.digest)
        return self._adopt(open_any(sealed))

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
