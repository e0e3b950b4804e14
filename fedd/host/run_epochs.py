"""A run's epochs on one node: proposed when they are due, told to the members, and closed together.

What is decided is decided by `fedd.core.epochs`; here it meets the run's node, its streams and the clock.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from fedd.api.errors import FeddError, ProtocolError
from fedd.api.types import PeerId
from fedd.core.epoch_manifest import admit, issue_epoch
from fedd.core.epochs import End, Epochs, Mark, News, Next, closing_rounds
from fedd.core.manifest import Manifest
from fedd.host.run_result import Ending
from fedd.host.run_surroundings import Surroundings

if TYPE_CHECKING:
    from fedd.host.run_node import RunNode

log = logging.getLogger("fedd.host")

MAX_ADMISSIONS = 256
"""Members that join one run although its initiator did not ask them; each adds 400 bytes to its manifest."""


class RunEpochs:
    """When the next epoch of a node's run is due, who is let in, and what ended with the present one."""

    def __init__(self, node: RunNode, manifest: Manifest, around: Surroundings, joinable: bool) -> None:
        self._node = node
        self._around = around
        proposal = manifest.proposal
        self.machine = Epochs(
            around.key.peer_id,
            manifest.members,
            proposal.contract,
            joinable,
            proposal.quorum,
            manifest.mark,
        )
        self._admissions: dict[PeerId, bytes] = {}
        self._news = trio.Event()
        self._kept: dict[Mark, Ending] = {}
        """This node's results in the epochs that it ran to their ends."""
        self._closing_left: int | None = None

    # ---- proposing -----------------------------------------------------------------------

    async def run(self) -> None:
        """Propose epochs when they are due, until cancelled."""
        while True:
            self._news = trio.Event()
            due_at = self.machine.due_at
            with trio.move_on_after(
                float("inf") if due_at is None else max(0.0, due_at - self._around.clock())
            ):
                await self._news.wait()
            following = self.machine.propose(self._around.clock())
            if following is not None and self._node.story.ending is None:
                self._propose(following)

    def _propose(self, following: Next) -> None:
        node = self._node
        before = node.manifest
        try:
            manifest = issue_epoch(
                self._around.key,
                before,
                following,
                node.round,
                [self._admissions[peer] for peer in following.newcomers if peer in self._admissions],
                {peer: why for peer, (_, why) in node.story.dropped.items() if peer in before.members},
            )
        except FeddError as error:  # more members than a document holds, or no graph over them
            log.error("run %s: no epoch %d: %s", node.manifest.run_id[:8], following.number, error.detail)
            return
        log.info(
            "run %s: epoch %d with %d members", before.run_id[:8], following.number, len(manifest.members)
        )
        self.hear(manifest)
        self._around.tell(manifest, {*before.members, *manifest.members})

    def lose(self, peer: PeerId, *, blamed: bool = False) -> None:
        """A member takes part no longer, `blamed`: because of what it sent to this node."""
        self.machine.lose(peer, self._around.clock(), blamed=blamed)
        self._news.set()

    def refusal(self, peer: PeerId) -> str:
        """Why this member cannot be let in, empty when it can."""
        if self._node.story.ending is not None:
            return "the run has ended"
        return self.machine.refusal(peer)

    def enlists(self, peer: PeerId) -> bool:
        """Whether this node is to ask somebody who has come: the run is open, and one member asks."""
        present = self.machine.present
        is_open = self._node.manifest.proposal.open and self._node.story.ending is None
        return is_open and peer not in present and present[:1] == (self._around.key.peer_id,)

    def knows(self, peer: PeerId) -> bool:
        """Whether this one was ever a member of the run."""
        return peer in self._node.manifest.initial.members or peer in self._node.manifest.admitted

    def let_in(self, peer: PeerId, acceptance: bytes | None = None) -> None:
        """The next epoch shall have this member too; one that never was in the run has accepted it.

        Raises ProtocolError when the acceptance is not its word, or too many were admitted already.
        """
        if not self.knows(peer):
            if len(self._node.manifest.admissions) + len(self._admissions) >= MAX_ADMISSIONS:
                raise ProtocolError(f"{MAX_ADMISSIONS} members were admitted to this run already")
            self._admissions[peer] = admit(self._around.key, self._node.manifest, peer, acceptance or b"")
        self.machine.let_in([peer], self._around.clock())
        self._news.set()

    # ---- entering ------------------------------------------------------------------------

    def hear(self, manifest: Manifest) -> News:
        """Somebody tells of an epoch of this run, its manifest verified."""
        news = self.machine.hear(manifest.mark, manifest.members, self._around.clock(), manifest.newcomers)
        if news is News.ENTER:
            self._closing_left = None
            for peer in manifest.admitted:
                self._admissions.pop(peer, None)
            self._node.enter(manifest)
            self._news.set()
        return news

    # ---- closing -------------------------------------------------------------------------

    @property
    def closing(self) -> bool:
        """Whether the algorithm has returned here, and the others may not be so far."""
        return self._closing_left is not None

    def keep(self, ending: Ending) -> None:
        """The algorithm has returned: its result counts once everybody is known to be so far."""
        manifest = self._node.manifest
        self.machine.keep()
        self._kept[self.machine.mark] = ending
        self._kept = {mark: self._kept[mark] for mark in self.machine.kept}
        self._closing_left = closing_rounds(manifest.graph, manifest.proposal.contract)

    def close_one(self) -> bool:
        """Whether another closing exchange is to be made."""
        if not self._closing_left:
            return False
        self._closing_left -= 1
        return True

    def hear_end(self, peer: PeerId, digest: str) -> tuple[End, Mark]:
        """A member has finished in the epoch with this digest: what that means, and which one it is."""
        known = (*self.machine.kept, self.machine.mark)
        mark = next((mark for mark in known if mark.digest.hex() == digest), Mark(0, b""))
        return self.machine.hear_end(peer, mark), mark

    def ending_in(self, mark: Mark) -> Ending | None:
        """This node's result in an epoch, if it has one."""
        return self._kept.get(mark)
