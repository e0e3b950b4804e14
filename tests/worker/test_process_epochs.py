"""What a worker is told of its run's epochs, and what it keeps from one to the next."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import trio
from worker.test_pipe import Daemon

from fedd.api import Message, PluginFailed, RunContext
from fedd.core import codec
from fedd.worker import process
from fedd.worker.pipe import Pipe
from fedd.worker.process import _all_epochs, _Device


@dataclass(frozen=True)
class Counting:
    """Counts its epochs by its checkpoints."""

    name: ClassVar[str] = "counting"

    async def run(self, ctx: RunContext) -> Message:
        came: list[str] = []
        ctx.on_join(came.extend)
        restored = ctx.restored
        await ctx.checkpoint((restored if isinstance(restored, int) else 0) + 1)
        await ctx.exchange(None)
        return [restored, ctx.epoch, ctx.round, list(ctx.members), came]


def epoch(number: int, members: list[str], **more: Any) -> dict[str, Any]:
    edges = [[0, index] for index in range(1, len(members))]
    return {"run_id": "r", "me": "p0", "members": members, "edges": edges, "epoch": number, "seed": 1,
            "quorum": 1, "max_payload_bytes": 1000, "more": True, **more}  # fmt: skip


def test_an_input_that_could_not_be_read_is_not_taken_for_none_later(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[object] = []

    def read_input(handle: object) -> Message:
        reads.append(handle)
        raise MemoryError

    monkeypatch.setattr(process, "read_input", read_input)
    device = _Device()
    for _ in range(2):  # for a prediction, and for the run
        with pytest.raises(PluginFailed, match="MemoryError"):
            device.read({"input": {"kind": "file"}})
    assert len(reads) == 1


async def test_an_epoch_calls_the_algorithm_again_with_what_it_kept() -> None:
    ours, theirs = socket.socketpair()
    daemon, pipe = Daemon(ours), Pipe(theirs)
    with theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.watch, trio.CancelScope())
            start = epoch(1, ["p0", "p1"])
            nursery.start_soon(_all_epochs, pipe, Counting(), start, _Device())
            assert codec.decode((await daemon.next("checkpoint")).body[0]) == 1
            await daemon.next("exchange")
            await daemon.send({"kind": "saved"})
            following = epoch(2, ["p0", "p1", "p2"], base_round=7, newcomers=["p2"])
            await daemon.send({**following, "kind": "epoch", "entry": 1})
            assert (await daemon.next("epoch")).header["entry"] == 1
            assert codec.decode((await daemon.next("checkpoint")).body[0]) == 2
            assert (await daemon.next("exchange")).header["to"] == ["p1", "p2"]
            await daemon.send({"kind": "round", "round": 0, "from": [], "gone": []})
            value = codec.decode((await daemon.next("result")).body[0])
            assert value == [1, 2, 8, ["p0", "p1", "p2"], ["p2"]]
            nursery.cancel_scope.cancel()
