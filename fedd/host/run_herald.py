"""What a node tells and asks the other members about its runs, one question a stream."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import trio

from fedd.api.errors import Conflict, FeddError, Refused
from fedd.api.types import PeerId
from fedd.core.manifest import Manifest, printable
from fedd.host.run_control import ask
from fedd.host.run_limits import RunLimits

if TYPE_CHECKING:
    from fedd.host.run_node import RunNode
    from fedd.net.relay import Relay

log = logging.getLogger("fedd.host")

_SPREAD_S = 1.0
"""So that whoever is told the run's id can ask any member about it at once."""


class RunHerald:
    """`running()` gives the nursery of a daemon's runs, or raises Unhealthy; `nodes` are its runs by id."""

    def __init__(
        self,
        me: PeerId,
        relay: Relay,
        limits: RunLimits,
        nodes: Mapping[str, RunNode],
        name_of: Callable[[PeerId], str],
        running: Callable[[], trio.Nursery],
    ) -> None:
        self._me = me
        self._relay = relay
        self._limits = limits
        self._nodes = nodes
        self._name_of = name_of
        self._running = running

    async def spread(self, manifest: Manifest) -> None:
        """Send the manifest to all members; go on after a moment whoever has not answered."""
        unanswered = {peer for peer in manifest.members if peer != self._me}
        all_answered = trio.Event()

        async def deliver(peer: PeerId) -> None:
            await self._tell(peer, {"kind": "manifest", "manifest": manifest.sealed})
            unanswered.discard(peer)
            if not unanswered:
                all_answered.set()

        if unanswered:
            for peer in sorted(unanswered):
                self._running().start_soon(deliver, peer)
            with trio.move_on_after(_SPREAD_S):
                await all_answered.wait()

    def tell(self, peers: Collection[PeerId], message: Mapping[str, Any]) -> None:
        """Send these members something, soon."""
        nursery = self._running()
        for peer in peers:
            nursery.start_soon(self._tell, peer, message)

    def tell_epoch(self, manifest: Manifest, peers: Collection[PeerId]) -> None:
        """Tell these members, but this node, of an epoch; those that have ended say so."""
        for peer in peers:
            if peer != self._me:
                self._running().start_soon(self._tell_one, peer, manifest)

    async def _tell_one(self, peer: PeerId, manifest: Manifest) -> None:
        reply = await self._tell(peer, {"kind": "manifest", "manifest": manifest.sealed})
        node = self._nodes.get(manifest.run_id)
        if node is not None and reply is not None and reply["kind"] == "ended":
            node.departures.on_finished(peer, str(reply.get("digest")))

    async def _tell(self, peer: PeerId, message: Mapping[str, Any]) -> dict[str, Any] | None:
        """Send a member something that its neighbours pass on as well: a failure is logged."""
        try:
            reply = await ask(self._relay, peer, message, self._limits.command_timeout_s)
            if reply["kind"] != "ok":
                log.info("%s answered our %s: %s", self._name_of(peer), message["kind"], reply.get("detail"))
            return reply
        except FeddError as error:
            log.info("%s did not get our %s: %s", self._name_of(peer), message["kind"], error.detail)
            return None

    async def enlist(self, run_id: str, peer: PeerId) -> None:
        """Ask a member that is not in the run to join it, and let it in with the next epoch.

        Raises Conflict when the run takes in nobody or it is in already, Refused with its reason when it
        declines, TimedOut, NotConnected.
        """
        node = self._nodes.get(run_id)
        name = self._name_of(peer)
        if node is None or peer in node.epochs.machine.present:
            raise Conflict(f"{name} is in the run already" if node else f"the run {run_id[:8]} has ended")
        self._check_open(node, peer)
        question = {"kind": "enlist", "manifest": node.manifest.sealed}
        reply = await ask(self._relay, peer, question, self._limits.propose_timeout_s)
        if reply["kind"] != "accepted" or not isinstance(reply.get("acceptance"), bytes):
            raise Refused(f"{name} declines: {printable(str(reply.get('reason') or reply.get('detail')))}")
        self._check_open(node, peer)
        node.epochs.let_in(peer, reply["acceptance"])

    def _check_open(self, node: RunNode, peer: PeerId) -> None:
        refusal = node.epochs.refusal(peer)
        if refusal:
            raise Conflict(f"{self._name_of(peer)} cannot be let in: {refusal}")

    def enlist_newcomer(self, node: RunNode, peer: PeerId) -> None:
        """Somebody came who is not in the run: ask it if the run is open, and this node the one to ask."""
        if node.epochs.enlists(peer):
            self._running().start_soon(self._enlist_quietly, node.manifest.run_id, peer)

    async def _enlist_quietly(self, run_id: str, peer: PeerId) -> None:
        try:
            await self.enlist(run_id, peer)
        except FeddError as error:  # it may decline
            log.info("run %s: %s", run_id[:8], error.detail)
