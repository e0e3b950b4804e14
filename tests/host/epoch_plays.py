"""Workers that play algorithms through the epochs of a run, as the real worker process does."""

from __future__ import annotations

from typing import Any

from host.worlds import PlayedWorker, Script

from fedd.core.codec import encode
from fedd.core.graph import Graph
from fedd.core.pipe import Frame
from fedd.worker.context import Context, RunStart
from fedd.worker.port import Payload


class _Again(Exception):
    """Another epoch has begun."""

    def __init__(self, header: dict[str, Any]) -> None:
        super().__init__("another epoch")
        self.header = header


def through_epochs(algorithm: Any) -> Script:
    """Run `algorithm` in every epoch, and wait for another one after its result."""

    async def script(worker: PlayedWorker, start: dict[str, Any]) -> None:
        plain_hear = worker.hear

        async def hear() -> Frame:
            while True:
                frame = await plain_hear()
                if frame.header["kind"] == "epoch":
                    raise _Again(frame.header)
                if frame.header["kind"] != "saved":
                    return frame

        async def checkpoint(state: Payload) -> None:
            worker.state = bytes(state)
            worker.emit({"kind": "checkpoint"}, [bytes(state)])

        worker.hear = hear
        worker.checkpoint = checkpoint
        header = start
        while True:
            try:
                worker.rounds.clear()
                worker.aside = 0
                if header is not start:
                    worker.emit({"kind": "epoch", "entry": header["entry"]})
                await _one_epoch(worker, header, start, algorithm)
                while (await worker.hear()).header["kind"] != "stop":
                    pass
                return
            except _Again as again:
                header = again.header

    return script


async def _one_epoch(
    worker: PlayedWorker, header: dict[str, Any], start: dict[str, Any], algorithm: Any
) -> None:
    begin = RunStart(
        header["run_id"],
        header["me"],
        Graph.read(header["members"], header),
        header["epoch"],
        header["seed"],
        header["quorum"],
        header["max_payload_bytes"],
        header["base_round"],
        worker.state,
        tuple(header["newcomers"]),
    )
    ctx = Context(begin, worker, start["input"].get("value"))
    outcome = ctx.outcome(await algorithm.run(ctx))
    result = {
        "kind": "result",
        "contributors": list(outcome.contributors),
        "residual": outcome.residual,
        "rounds": outcome.rounds,
        "agreed": outcome.agreed,
    }
    worker.emit(result, [encode(outcome.value)])
