"""Whose data is in an answer: members that died count, strangers do not."""

from __future__ import annotations

from typing import Any

import trio.testing
from host.worlds import PlayedWorker, context, request, world
from waiting import until

from fedd.core.codec import encode


async def names_everybody(worker: PlayedWorker, start: dict[str, Any]) -> None:
    """One exchange; then the result is over all members of the start, and a stranger."""
    ctx = context(worker, start)
    while len(ctx.neighbors) == 2:
        await ctx.exchange(1)
    header = {"kind": "result", "residual": None, "rounds": 1, "agreed": True}
    worker.emit({**header, "contributors": ["stranger", *start["members"]]}, [encode(1)])


async def test_the_dead_count_and_strangers_do_not(autojump_clock: trio.testing.MockClock) -> None:
    async with world(3) as nodes:
        for node in nodes:
            node.workers.script = names_everybody
        started = await nodes[0].runs.start(request(pace_s=0.1))
        run_id = started["run_id"]
        await until(lambda: run_id in nodes[2].runs.nodes and nodes[2].round_of(run_id) > 2)
        nodes[2].kill()
        result = await nodes[0].result(run_id)
        assert [entry["peer_id"] for entry in result["dropped"]] == [nodes[2].id]
        assert result["contributors"] == sorted(node.id for node in nodes)
