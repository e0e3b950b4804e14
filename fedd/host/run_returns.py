"""After a restart of this daemon: runs of which a checkpoint is left, until their members let it in again.

It asks each member that is alive. One in whose hands the run goes on lets it in with a new epoch, or says why
not; those that wait as well count each other, and begin an epoch of their own when it is time
(`fedd.core.epochs.Sleepers`). The same holds for a member that the others had declared dead by mistake.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import trio

from fedd.api.errors import Conflict, Dropped, FeddError, NotFound
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.epoch_manifest import issue_epoch, open_any
from fedd.core.epochs import Next, Sleepers
from fedd.core.identity import PrivateKey
from fedd.core.manifest import Manifest, printable
from fedd.host.checkpoints import Checkpoints
from fedd.host.run_control import Opener, ask
from fedd.host.run_gate import RunGate
from fedd.host.run_result import Story, failure

log = logging.getLogger("fedd.host")

RETRY_S = 1.0
"""How often everybody is asked: one that boots beside this one is there within seconds, or hours later."""

LAST_RETRY_S = 15.0

ASK_TIMEOUT_S = 5.0


@dataclass
class Sleeper:
    """A run that waits for its members."""

    manifest: Manifest
    story: Story
    round: int
    count: Sleepers
    news: trio.Event
    ended: set[PeerId]
    """Members at which it has failed: they do not come back."""


@dataclass(frozen=True)
class Hooks:
    """What the runs of this node do for those that wait."""

    adopt: Callable[[Manifest], object]
    """Begin this node's part. Raises FeddError."""
    tell: Callable[[Manifest, Collection[PeerId]], None]
    end: Callable[[Story], Awaitable[None]]
    """Store how a run ended that did not begin again."""
    state_of: Callable[[PeerId], str | None]
    name_of: Callable[[PeerId], str]
    clock: Callable[[], float]


class RunReturns:
    """The runs that wait, by id in `sleeping`."""

    def __init__(
        self,
        key: PrivateKey,
        opener: Opener,
        gate: RunGate,
        checkpoints: Checkpoints,
        hooks: Hooks,
        sleeping: dict[str, Sleeper],
    ) -> None:
        self._key = key
        self._opener = opener
        self._gate = gate
        self._checkpoints = checkpoints
        self._hooks = hooks
        self.sleeping = sleeping

    async def wait_for(self, run_id: str, federation: str | None) -> None:
        """Ask for this run until it goes on here or has ended; `federation` is the one we are in."""
        kept = self._checkpoints.read(run_id)
        if kept is None:
            self._checkpoints.remove(run_id)
            return
        try:
            manifest = open_any(kept.manifest)
        except FeddError as error:
            log.error("the checkpoint of run %s is of no use: %s", run_id, error.detail)
            self._checkpoints.remove(run_id)
            return
        me, clock = self._key.peer_id, self._hooks.clock
        story = Story(manifest, me, started_at=clock(), started_unix_s=kept.started_unix_s, rounds=kept.round)
        count = Sleepers(me, manifest.members, manifest.proposal.quorum)
        count.hear(me, manifest.epoch, clock())
        sleeper = self.sleeping[run_id] = Sleeper(manifest, story, kept.round, count, trio.Event(), set())
        try:
            await self._gate.consider(
                manifest.proposal, federation or "", self._hooks.name_of(manifest.proposal.initiator)
            )
        except FeddError as error:
            await self._give_up(run_id, error)
            return
        log.info("run %s: waits for its members after a restart", run_id[:8])
        await self._ask_until_begun(run_id, sleeper)

    async def _ask_until_begun(self, run_id: str, sleeper: Sleeper) -> None:
        retry_s = RETRY_S
        while run_id in self.sleeping:
            self._gate.renew(sleeper.manifest.proposal)
            sleeper.news = trio.Event()
            async with trio.open_nursery() as nursery:
                for peer in sleeper.manifest.members:
                    if peer != self._key.peer_id:
                        nursery.start_soon(self._ask_one, run_id, sleeper, peer)
            if run_id not in self.sleeping:
                return
            self._resume_if_due(sleeper)
            due_s = sleeper.count.due_at - self._hooks.clock()
            with trio.move_on_after(min(retry_s, due_s) if due_s > 0 else retry_s):
                await sleeper.news.wait()
                retry_s = RETRY_S
            retry_s = min(retry_s * 1.5, LAST_RETRY_S)

    async def _ask_one(self, run_id: str, sleeper: Sleeper, peer: PeerId) -> None:
        if self._hooks.state_of(peer) != "alive":
            sleeper.count.forget(peer)
            return
        question = {"kind": "return", "manifest": sleeper.manifest.sealed}
        try:
            reply = await ask(self._opener, peer, question, ASK_TIMEOUT_S)
            await self._take_reply(run_id, sleeper, peer, reply)
        except FeddError as error:
            log.debug("%s does not say whether run %s goes on: %s", peer, run_id[:8], error.detail)
            sleeper.count.forget(peer)

    async def _take_reply(
        self, run_id: str, sleeper: Sleeper, peer: PeerId, reply: Mapping[str, Any]
    ) -> None:
        kind, name = reply["kind"], self._hooks.name_of(peer)
        if kind == "asleep" and isinstance(reply.get("manifest"), bytes):
            self.hear_sleeper(run_id, peer, reply["manifest"])
        elif kind == "refused":
            reason = printable(str(reply.get("reason")))
            await self._give_up(run_id, Dropped(f"{name} does not let it in again: {reason}"))
        elif kind == "ended" and reply.get("state") in ("finished", "stopped"):
            await self._give_up(run_id, Dropped(f"it has {reply['state']} at {name} without this node"))
        elif kind != "ok":
            sleeper.count.forget(peer)
            if kind == "ended":
                sleeper.ended.add(peer)
                left = len(sleeper.manifest.members) - len(sleeper.ended)
                if left < sleeper.manifest.proposal.quorum:
                    await self._give_up(
                        run_id, Dropped(f"it has ended at {name}, and too few are left for it")
                    )

    def hear_sleeper(self, run_id: str, peer: PeerId, sealed: bytes) -> bytes | None:
        """Another member waits too; returns this node's own manifest if it does. Raises ProtocolError."""
        sleeper = self.sleeping.get(run_id)
        if sleeper is None:
            return None
        if sealed != sleeper.manifest.sealed:
            theirs = open_any(sealed, sleeper.manifest)
            if theirs.mark > sleeper.manifest.mark:
                sleeper.manifest = sleeper.story.manifest = theirs
                sleeper.count.members = theirs.members
                sleeper.count.hear(self._key.peer_id, theirs.epoch, self._hooks.clock())
        known = peer in sleeper.manifest.initial.members or peer in sleeper.manifest.admitted
        if known:
            if peer not in sleeper.count.asleep:
                sleeper.news.set()
            sleeper.count.hear(peer, sleeper.manifest.epoch, self._hooks.clock())
        return sleeper.manifest.sealed if known else None

    def _resume_if_due(self, sleeper: Sleeper) -> None:
        following = sleeper.count.resume(self._hooks.clock())
        if following is not None:
            self._resume(sleeper, following)

    def _resume(self, sleeper: Sleeper, following: Next) -> None:
        try:
            manifest = issue_epoch(self._key, sleeper.manifest, following, sleeper.round)
            log.info("run %s: goes on with %d members", manifest.run_id[:8], len(manifest.members))
            self._hooks.adopt(manifest)
        except FeddError as error:
            log.error("run %s cannot go on: %s", sleeper.manifest.run_id[:8], error.detail)
        else:
            self._hooks.tell(manifest, manifest.members)

    def begun(self, run_id: str) -> None:
        """This run goes on here."""
        sleeper = self.sleeping.pop(run_id, None)
        if sleeper is not None:
            sleeper.news.set()

    async def stop(self, run_id: str) -> Story:
        """Give a run up that waits. Raises NotFound when it does not."""
        if run_id not in self.sleeping:
            raise NotFound(f"the run {run_id[:8]} does not wait here", field="run_id")
        story = self.sleeping[run_id].story
        await self._give_up(run_id, Conflict("it was stopped while it waited for its members"))
        return story

    async def _give_up(self, run_id: str, error: FeddError) -> None:
        sleeper = self.sleeping.pop(run_id, None)
        if sleeper is None:
            return
        sleeper.news.set()
        self._gate.withdraw(sleeper.manifest.proposal.digest, sleeper.manifest.proposal.initiator)
        sleeper.story.ending = failure(error)
        await self._hooks.end(sleeper.story)
