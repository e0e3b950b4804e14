"""The runs of this node: proposed, accepted, taking place, ended.

Two protocols: `/fedd/runs/1.0.0` asks and answers (propose, manifest, stop); `/fedd/run/1.0.0` carries the
rounds between neighbours and begins with the manifest, so that after its first delivery a run needs its
initiator no more than any other member.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection
from functools import cached_property
from typing import TYPE_CHECKING, Any

import trio

from fedd.api.errors import (
    Conflict,
    Dropped,
    PluginFailed,
    Unhealthy,
)
from fedd.api.types import PeerId
from fedd.core.identity import PrivateKey
from fedd.host.inputs import Inputs
from fedd.host.known_runs import KnownRuns
from fedd.host.plugins import PluginRegistry
from fedd.host.policy import Policy
from fedd.host.run_control import CONTROL_PROTOCOL
from fedd.host.run_gate import RunGate
from fedd.host.run_limits import RunLimits
from fedd.host.run_storage import RunStorage
from fedd.host.run_workers import RunWorkers, Seat
from fedd.host.stores import ResultStore
from fedd.net.bounds import Bound

if TYPE_CHECKING:
    from trio_typing import TaskStatus

    from fedd.core.manifest import Manifest
    from fedd.core.pieces import Payload
    from fedd.core.verdicts import MemberChange
    from fedd.host.run_node import RunNode
    from fedd.host.run_proposer import RunRequest
    from fedd.host.run_result import Story
    from fedd.host.run_rooms import RunRooms
    from fedd.net.connection import Connection
    from fedd.net.events import EventLog
    from fedd.net.presence import Presence
    from fedd.net.relay import Relay
    from fedd.net.stream import Stream
    from fedd.net.swarm import Swarm

log = logging.getLogger("fedd.host")

RUN_PROTOCOL = "/fedd/run/1.0.0"


class Runs(KnownRuns):
    """Everything about runs on this node. `run` must be running for anything to happen.

    `write` calls what writes a result to the disk, off the event loop.
    """

    def __init__(
        self,
        swarm: Swarm,
        presence: Presence,
        relay: Relay,
        registry: PluginRegistry,
        inputs: Inputs,
        key: PrivateKey,
        state: ResultStore,
        scratch: str,
        policy: Policy | None = None,
        limits: RunLimits | None = None,
        events: EventLog | None = None,
        workers: RunWorkers | None = None,
        clock: Callable[[], float] = trio.current_time,
        write: Callable[[Callable[[], str]], Awaitable[str]] | None = None,
    ) -> None:
        self.me = key.peer_id
        self._relay = relay
        self._presence = presence
        self._registry = registry
        self._key = key
        self._limits = limits or RunLimits()
        super().__init__(RunStorage(state, self._limits.results, write), clock)
        self._events = events
        self._workers = workers or RunWorkers(
            scratch, inputs, aggregators=registry.allowed_aggregators, walls=registry.walls
        )
        self._nursery: trio.Nursery | None = None
        self._shuts_down = False
        self._gate = RunGate(
            key,
            registry,
            inputs,
            policy or Policy(),
            self._limits,
            lambda: len(self.nodes),
            clock,
            self.name_of,
        )
        swarm.handle(CONTROL_PROTOCOL, self._serve_control)
        swarm.handle(RUN_PROTOCOL, self._serve_run_stream)
        swarm.subscribe(self._on_link)
        presence.subscribe(self._on_member)

    @cached_property
    def rooms(self) -> RunRooms:
        """What a device that takes part in no run does not hold, nor its modules."""
        from fedd.host.run_rooms import RunRooms

        return RunRooms(
            self,
            self._key,
            self._presence,
            self._relay,
            self._registry,
            self._gate,
            self._workers,
            self._limits,
            self._clock,
        )

    async def _serve_control(self, stream: Stream) -> None:
        await self.rooms.desk.serve_control(stream)

    async def _serve_run_stream(self, stream: Stream) -> None:
        await self.rooms.desk.serve_run_stream(stream)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the runs' tasks until cancelled; workers are killed then. Call `leave_all` before."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                for run_id in self.storage.unfinished():
                    nursery.start_soon(self._wait_for, run_id)
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def _wait_for(self, run_id: str) -> None:
        await self._registry.ready()
        federation = self._presence.federation
        await self.rooms.returns.wait_for(run_id, None if federation is None else federation.id)

    def set_policy(self, policy: Policy) -> None:
        """Replace the owner's policy; runs in progress go on."""
        self._gate.policy = policy
        self._registry.policy = policy

    def name_of(self, peer: PeerId) -> str:
        """A name for messages: the member's, else the beginning of its id."""
        from fedd.host.run_proposer import printable_name

        return printable_name(self._presence, peer)

    # ---- what the operator asks ------------------------------------------------------------

    async def start(self, request: RunRequest) -> dict[str, Any]:
        """Propose a run and begin it with those who accept.

        Returns {run_id, members, declined[{peer_id, reason}], topology, seed, quorum, prediction}. Raises
        InvalidParameter (the field says which), NotFound (algorithm, input, member), Denied (this device's
        own policy), Conflict (no federation), Unhealthy, PluginFailed, or Refused naming everyone who
        declined when too few accepted.
        """
        from fedd.core.manifest import issue

        self.running()
        await self._registry.ready()
        proposal, others = self.rooms.proposer.draft(request)
        own = await self._gate.consider(proposal, proposal.federation, self.name_of(self.me))
        asked: list[PeerId] = []
        seat: Seat | None = None
        try:
            seat = await self._workers.prepare(proposal)
            await seat.check(proposal)
            seat, prediction = await self.rooms.forecaster.foresee(seat, proposal, others)
            asked = others
            answers = await self.rooms.proposer.ask_all(proposal, others)
            self._gate.renew(proposal)
            manifest = issue(
                self._key,
                proposal,
                {self.me: own, **answers.acceptances},
                answers.declined,
                answers.payload_bytes,
            )
            node = self.adopt(manifest, seat)
        except BaseException:
            self._gate.withdraw(proposal.digest, self.me)
            if seat is not None:
                await seat.aclose()
            self.rooms.herald.tell(asked, {"kind": "withdraw", "proposal": proposal.digest})
            raise
        await self.rooms.herald.spread(manifest)
        story = node.story.result()
        told = {key: story[key] for key in ("run_id", "members", "declined", "topology", "seed", "quorum")}
        return {**told, "prediction": prediction}

    async def predict(self, request: RunRequest) -> dict[str, Any]:
        """What is foreseen of a run, without asking anybody: see `Forecaster.predict`."""
        self.running()
        await self._registry.ready()
        return await self.rooms.forecaster.predict(request, self.name_of(self.me))

    def bounds(self) -> list[Bound]:
        """Runs here and results kept, and how many may be. Beyond it the oldest results go."""
        runs, results = self._limits.runs, self._limits.results
        return [
            Bound(
                "runs", self._gate.occupied, runs, self._gate.refused, "runs in progress; [limits] max_runs"
            ),
            Bound(
                "results",
                len(self.storage.results.ids()),
                results,
                self.storage.results.removed,
                "kept; [limits] max_results",
            ),
        ]

    async def stop(self, run_id: str) -> dict[str, Any]:
        """Stop a run on every member, or give up one that waits here for its members.

        Raises NotFound, or Conflict when it has ended here already.
        """
        from fedd.core.manifest import state_stop

        run_id = self.resolve(run_id)
        if run_id in self.sleeping:
            return {"run_id": run_id, "state": (await self.rooms.returns.stop(run_id)).state}
        node = self.nodes.get(run_id)
        if node is None or node.story.ending is not None:
            raise Conflict(f"the run {run_id[:8]} has ended already", hint=f"see fedctl show {run_id[:8]}")
        statement = state_stop(self._key, run_id)
        node.stop(statement)
        far = [peer for peer in node.manifest.members if peer != self.me and peer not in node.links]
        self.rooms.herald.tell(far, {"kind": "stop", "statement": statement})
        return {"run_id": run_id, "state": node.story.state}

    async def history(self, run_id: str) -> dict[str, Any]:
        """Every member's metrics by round; see `RunHistories.collect`. Errors as `get`."""
        result = self.get(run_id)
        return await self.rooms.histories.collect(result["run_id"], result["members"])

    async def enlist(self, run_id: str, peer: PeerId) -> dict[str, Any]:
        """Ask a member that is not in the run to join it, and let it in with the next epoch.

        Returns {run_id, peer_id}. Raises NotFound, Conflict when the run takes in nobody or it is in already,
        Refused with its reason when it declines, TimedOut, NotConnected.
        """
        run_id = self.resolve(run_id)
        await self.rooms.herald.enlist(run_id, peer)
        return {"run_id": run_id, "peer_id": peer}

    async def leave_all(self, reason: str, deadline_s: float = 2.0, *, for_good: bool = True) -> None:
        """This node takes part in nothing any more: it leaves the federation, or shuts down.

        Not `for_good`, runs that have a checkpoint go on with the daemon's next start.
        """
        self._shuts_down = not for_good
        for run_id in list(self.sleeping) if for_good else ():
            await self.rooms.returns.stop(run_id)
        for node in list(self.nodes.values()):
            node.leave(Unhealthy(reason))
        with trio.move_on_after(deadline_s):
            while self.nodes:
                await self.watchers.park()

    # ---- proposing ------------------------------------------------------------------------

    def running(self) -> trio.Nursery:
        """Where the runs' tasks are. Raises Unhealthy while the daemon starts or ends."""
        if self._nursery is None:
            raise Unhealthy("runs cannot be started", hint="the daemon is starting or shutting down")
        return self._nursery

    # ---- taking part ----------------------------------------------------------------------

    def adopt(self, manifest: Manifest, seat: Seat | None = None) -> RunNode:
        """Begin this node's part. Raises what `RunGate.admit` raises."""
        if manifest.run_id in self.nodes:
            return self.nodes[manifest.run_id]
        nursery = self.running()
        self._gate.admit(manifest)
        from fedd.host.run_node import RunNode

        joinable = self._registry.algorithm(manifest.proposal.algorithm).joinable
        kept = self.storage.checkpoints.read(manifest.run_id)
        node = RunNode(manifest, self.rooms.around, joinable, None if kept is None else kept.state)
        node.story.started_unix_s = time.time() if kept is None else kept.started_unix_s
        self.nodes[manifest.run_id] = node
        self.rooms.returns.begun(manifest.run_id)
        self.watchers.unpark_all()

        async def get_worker() -> Any:
            own = seat or await self._workers.prepare(manifest.proposal)
            return own.process, own.start_fields(manifest.proposal)

        nursery.start_soon(self._play, node, get_worker)
        self._publish(node.story, "started")
        return node

    async def _play(self, node: RunNode, get_worker: Callable[[], Awaitable[Any]]) -> None:
        for peer in node.links:
            self.rooms.pins.hold(peer)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_result, node)
                try:
                    await node.run(get_worker)
                except Exception:  # a mistake of ours in one run must not end the daemon and its other runs
                    log.exception("run %s failed here", node.manifest.run_id)
                    node.leave(PluginFailed("an internal error, see the log of this daemon"))
        finally:
            for peer in node.links:
                self.rooms.pins.release(peer)
            self.rooms.desk.retire(node)
            del self.nodes[node.manifest.run_id]
            self.watchers.unpark_all()
            if self._comes_back(node) and self._nursery is not None and not self._shuts_down:
                self.rooms.desk.forget(node.manifest.run_id)
                self._nursery.start_soon(self._wait_for, node.manifest.run_id)

    def _comes_back(self, node: RunNode) -> bool:
        """Whether this node's part has ended, but not for good: its checkpoint stays."""
        ending = node.story.ending
        if ending is None or node.manifest.run_id not in self.storage.checkpoints:
            return False
        if self._shuts_down:
            return ending.code == Unhealthy.code
        return ending.code == Dropped.code and node.epochs.machine.joinable

    def on_epoch(self, node: RunNode, before: Collection[PeerId]) -> None:
        """A run goes on in another epoch, with other neighbours than those `before`."""
        for peer in node.links:
            self.rooms.pins.hold(peer)
        for peer in before:
            self.rooms.pins.release(peer)
        self._publish(node.story, f"epoch {node.manifest.epoch}")
        self.running().start_soon(self.storage.move, node)

    def keep_checkpoint(self, node: RunNode, state: Payload) -> None:
        """Have it written; the node is told when that is done."""
        self.running().start_soon(self.storage.save, node, state)

    async def _keep_result(self, node: RunNode) -> None:
        """Store the result as soon as there is one: the last confirmation may come minutes later."""
        await node.ended.wait()
        with trio.CancelScope(shield=True):  # a shutdown waits for this one file
            if not self._comes_back(node):
                await self.store(node.story)

    async def store(self, story: Story) -> None:
        """Keep what an ended run leaves."""
        why = await self.storage.keep(story)
        self.watchers.unpark_all()
        if why:
            self._publish(story, "not stored", why)

    async def open_run_stream(self, peer: PeerId) -> Stream:
        """A new stream for rounds. Raises FeddError."""
        return await self._relay.open_stream(peer, RUN_PROTOCOL)

    def on_change(self, story: Story) -> None:
        """Something that `watch` shows has changed."""
        story.changes += 1
        self.watchers.unpark_all()
        if warning := story.new_warning():
            from fedd.core.manifest import printable

            self._publish(story, "warning", printable(warning))
        if story.ending is not None and not story.announced:
            story.announced = True
            self._publish(story, story.state)

    def _on_member(self, change: MemberChange) -> None:
        for node in list(self.nodes.values()):
            node.departures.on_member(change.peer_id, change.new, change.reason)
            if change.new == "alive" and self._nursery is not None:
                self.rooms.herald.enlist_newcomer(node, change.peer_id)

    def _on_link(self, kind: str, connection: Connection, reason: str) -> None:
        if kind == "up":
            for node in self.nodes.values():
                node.renew(connection.peer_id)

    def _publish(self, story: Story, what: str, why: str | None = None) -> None:
        log.info("run %s (%s): %s", story.manifest.run_id[:8], story.manifest.proposal.algorithm, what)
        if self._events is not None:
            error = story.ending.detail if story.ending is not None and what == "failed" else why
            self._events.publish(
                "run",
                run_id=story.manifest.run_id,
                algorithm=story.manifest.proposal.algorithm,
                state=what,
                error=error,
            )
