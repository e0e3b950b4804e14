"""What runs leave on this node's disk: checkpoints while they go on; results, histories, large values."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from fedd.host.checkpoints import Checkpoints
from fedd.host.keepsakes import Keepsakes
from fedd.host.results import Results
from fedd.host.stores import ResultStore

if TYPE_CHECKING:
    from fedd.core.pieces import Payload
    from fedd.host.run_node import RunNode
    from fedd.host.run_result import Story

log = logging.getLogger("fedd.host")

MAX_CHECKPOINTS = 32
"""Twice the runs at once: those that wait for others after a restart stay until somebody stops them."""


def _in_a_thread(limiter: trio.CapacityLimiter) -> Callable[[Callable[[], str]], Awaitable[str]]:
    """How files are written: a disk may need seconds, and heartbeats must not wait for it."""

    async def write(keep: Callable[[], str]) -> str:
        return await trio.to_thread.run_sync(keep, limiter=limiter)

    return write


class RunStorage:
    """Results of ended runs, what comes with them, and checkpoints of those that go on.

    `write` calls what writes to the disk, off the event loop, one after the other.
    """

    def __init__(
        self,
        state: ResultStore,
        max_results: int,
        write: Callable[[Callable[[], str]], Awaitable[str]] | None = None,
    ) -> None:
        self.results = Results(state, max_results)
        self.keepsakes = Keepsakes(state)
        self.checkpoints = Checkpoints(state, MAX_CHECKPOINTS)
        self._write = write or _in_a_thread(trio.CapacityLimiter(1))

    def unfinished(self) -> list[str]:
        """Runs of which a checkpoint is left, because this daemon ended before they did."""
        for run_id in self.checkpoints.ids():
            if run_id in self.results:  # it ended between the writing of the one and the removal of the other
                self.checkpoints.remove(run_id)
        return self.checkpoints.ids()

    async def keep(self, story: Story) -> str:
        """Store what an ended run leaves; why its result could not be stored, empty when it was."""
        return await self._write(partial(self._keep_files, story))

    async def save(self, node: RunNode, state: Payload) -> None:
        """Keep a checkpoint, and tell the node when that is done. A failure is logged."""
        why = await self._write(partial(self._save_checkpoint, node, state))
        if why:
            log.error("run %s: its checkpoint is not stored: %s", node.manifest.run_id[:8], why)
        node.checkpoint_kept()

    async def move(self, node: RunNode) -> None:
        """The node is in another epoch: its checkpoint is to say so. A failure is logged."""
        why = await self._write(partial(self._move_checkpoint, node))
        if why:
            log.error("run %s: its checkpoint is not renewed: %s", node.manifest.run_id[:8], why)

    def _save_checkpoint(self, node: RunNode, state: Payload) -> str:
        if node.story.ending is not None:  # what the run leaves is stored, and its checkpoint gone
            return ""
        manifest, started = node.manifest, node.story.started_unix_s
        return self.checkpoints.keep(manifest.run_id, manifest.sealed, node.round, started, state)

    def _move_checkpoint(self, node: RunNode) -> str:
        if node.story.ending is not None:
            return ""
        return self.checkpoints.move(node.manifest.run_id, node.manifest.sealed, node.round)

    def _keep_files(self, story: Story) -> str:
        run_id = story.manifest.run_id
        why = self.results.keep(story.result())
        if len(story.history):
            self.keepsakes.keep("history", run_id, story.history.encode())
        if story.ending is not None and story.ending.large_value:
            self.keepsakes.keep("value", run_id, story.ending.large_value)
        self.checkpoints.remove(run_id)
        return why
