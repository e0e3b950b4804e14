"""What is known of runs here: in progress, waiting for their members, ended and kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import trio

from fedd.api.errors import Conflict, InvalidParameter, NotFound
from fedd.host.run_storage import RunStorage

if TYPE_CHECKING:
    from fedd.core.history import History
    from fedd.host.run_node import RunNode
    from fedd.host.run_returns import Sleeper

WAITING = "waiting"
"""The state of a run that goes on when its members are back."""

WATCH_INTERVAL_S = 0.05
"""A watcher gets the newest state twenty times a second at most, however fast the rounds are."""


class KnownRuns:
    """The part of `Runs` that only looks. `sleeping` are those that wait for their members."""

    def __init__(self, storage: RunStorage, clock: Callable[[], float]) -> None:
        self.storage = storage
        self.nodes: dict[str, RunNode] = {}
        self.sleeping: dict[str, Sleeper] = {}
        self.watchers = trio.lowlevel.ParkingLot()
        self._clock = clock

    def summaries(self) -> list[dict[str, Any]]:
        """All runs that are known here, oldest first, those in progress last."""
        now = self._clock()
        live = [node.story.summary(now) for node in self.nodes.values()]
        waiting = self.sleeping
        asleep = [{**waiting[run_id].story.summary(now), "state": WAITING} for run_id in waiting]
        ended = [
            kept for kept in self.storage.results.summaries() if kept["run_id"] not in {*self.nodes, *waiting}
        ]
        return ended + asleep + live

    @property
    def active(self) -> int:
        """Runs in progress."""
        return sum(node.story.ending is None for node in self.nodes.values())

    def get(self, run_id: str) -> dict[str, Any]:
        """The run with this id, or the only one whose id begins so. Raises NotFound or InvalidParameter."""
        run_id = self.resolve(run_id)
        if run_id in self.nodes:
            return self.nodes[run_id].result()
        if run_id in self.sleeping:
            return {**self.sleeping[run_id].story.result(), "state": WAITING}
        result = self.storage.results.get(run_id)
        if result is None:
            raise NotFound(f"the result of run {run_id} is damaged or gone", field="run_id")
        return result

    def value(self, run_id: str) -> dict[str, Any]:
        """{run_id, value}: this node's answer in full, see `exported`.

        Errors as `get`; Conflict while the run goes on, NotFound when a large value is no longer kept.
        """
        from fedd.host.run_histories import exported
        from fedd.host.run_result import is_cut

        result = self.get(run_id)
        run_id = result["run_id"]
        if result["state"] in ("running", WAITING):
            raise Conflict(f"the run {run_id[:8]} goes on: it has no value yet", hint="wait for its end")
        node = self.nodes.get(run_id)
        large = b"" if node is None or node.story.ending is None else node.story.ending.large_value
        large = large or self.storage.keepsakes.get("value", run_id) or b""
        if large:
            return {"run_id": run_id, "value": exported(large)}
        if is_cut(result["value"]):
            raise NotFound(
                f"the value of run {run_id[:8]} is no longer kept here",
                hint="large values are kept for the newest runs; ask another member",
                field="run_id",
            )
        return {"run_id": run_id, "value": result["value"]}

    async def watch(self, run_id: str) -> AsyncIterator[dict[str, Any]]:
        """Progress, the newest when there is news, then the result as the last item. Errors as `get`."""
        run_id = self.resolve(run_id)
        while run_id in self.sleeping:
            yield self.sleeping[run_id].story.progress()
            await self.watchers.park()
        node = self.nodes.get(run_id)
        while node is not None and node.story.ending is None:
            seen = node.story.changes
            yield node.progress()
            if node.story.changes == seen:
                await self.watchers.park()
            if node.story.ending is None:
                await trio.sleep(WATCH_INTERVAL_S)
        result = self.get(run_id) if node is None else node.story.result()
        yield {**result, "kind": "result"}

    def state_of_ended(self, run_id: str) -> str | None:
        """How a run stands that has begun here, None when it is unknown."""
        if run_id in self.nodes:
            return self.nodes[run_id].story.state
        result = self.storage.results.get(run_id)
        return None if result is None else str(result.get("state"))

    def live_history(self, run_id: str) -> History | None:
        """What was reported so far in a run in progress here."""
        node = self.nodes.get(run_id)
        return None if node is None else node.story.history

    def resolve(self, prefix: str) -> str:
        """The id that begins so. Raises NotFound or InvalidParameter."""
        known = [*dict.fromkeys([*self.storage.results.ids(), *self.sleeping, *self.nodes])]
        found = [run_id for run_id in known if run_id.startswith(prefix)] if prefix else []
        if not found:
            raise NotFound(f"there is no run {prefix!r} here", hint="see fedctl runs", field="run_id")
        if len(found) > 1:
            raise InvalidParameter(
                f"{prefix!r} begins {len(found)} runs", hint="give more of the run id", field="run_id"
            )
        return found[0]
