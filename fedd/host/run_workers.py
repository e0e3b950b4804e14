"""Makes workers for runs: input opened, process spawned, parameters checked before anybody is asked."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio

from fedd.api.errors import FeddError, InvalidParameter, PluginFailed, TimedOut
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.host.inputs import Inputs, no_input

if TYPE_CHECKING:
    from fedd.core.manifest import Proposal
    from fedd.host.worker_process import WorkerProcess

MAX_FRAME_BYTES = 1 << 30
"""The largest exchange: 64 MiB to each of 16 neighbours. A worker that sends more has lost its mind."""

CHECK_TIMEOUT_S = 30.0
"""To import one plugin and make one dataclass, on a small board that starts."""

PREDICT_TIMEOUT_S = 15.0
"""To read the input and take some gradients; who has more to compute begins without being foreseen. With the
check and the members' answers it stays below the minute for which fedctl waits."""


@dataclass
class Seat:
    """A spawned worker and what its start message says about the input."""

    process: WorkerProcess
    input: Mapping[str, Any]
    aggregators: Mapping[str, str] | None = None

    def start_fields(self, proposal: Proposal) -> dict[str, Any]:
        """The part of the start message that names algorithm, input and what else may be used."""
        allowed = None if self.aggregators is None else dict(self.aggregators)
        return {**_algorithm_fields(proposal), "input": dict(self.input), "aggregators": allowed}

    async def predict(
        self, proposal: Proposal, members: Sequence[PeerId], payload_bytes: int, *, graph: bool
    ) -> dict[str, Any]:
        """What the worker foresees of a run of these members; with `graph` of any, else of foreseeing ones.

        Raises InvalidParameter when the algorithm would refuse to run, and as `check`.
        """
        from fedd.core.topology import build, default_topology  # here: only a device with runs needs graphs

        built = build(proposal.topology or default_topology(len(members)), members, proposal.seed)
        question = {
            "kind": "predict",
            **self.start_fields(proposal),
            **built.document(),
            "graph": graph,
            "run_id": "",
            "me": proposal.initiator,
            "initiator": proposal.initiator,
            "members": list(built.members),
            "epoch": 1,
            "seed": proposal.seed,
            "quorum": proposal.quorum,
            "max_payload_bytes": payload_bytes,
        }
        answer = await self._ask(question, PREDICT_TIMEOUT_S, "predicted", proposal)
        prediction = answer.get("prediction")
        return dict(prediction) if isinstance(prediction, dict) else {}

    async def check(self, proposal: Proposal) -> None:
        """Have the worker build the algorithm, and the learner if there is one.

        Raises InvalidParameter or PluginFailed with what it says.
        """
        question = {"kind": "check", **_algorithm_fields(proposal)}
        if self.input.get("kind") == "learner":
            question["input"] = {**self.input, "data": {"kind": "none"}}
        await self._ask(question, CHECK_TIMEOUT_S, "checked", proposal)

    async def _ask(
        self, question: Mapping[str, Any], timeout_s: float, expected: str, proposal: Proposal
    ) -> dict[str, Any]:
        try:
            with trio.fail_after(timeout_s):
                answer = await self.process.ask(dict(question))
        except trio.TooSlowError as error:
            raise TimedOut(f"the plugin {proposal.plugin} was not ready in {timeout_s:g} s") from error
        if answer.get("kind") == expected:
            return answer
        detail, hint = (
            str(answer.get("detail") or "the worker did not say why"),
            str(answer.get("hint") or ""),
        )
        kind: type[FeddError] = InvalidParameter if answer.get("code") == "invalid" else PluginFailed
        raise kind(detail, hint=hint, field=str(answer.get("field") or ""))

    async def aclose(self) -> None:
        """End the worker. Harmless when repeated."""
        await self.process.aclose()


class RunWorkers:
    """Spawns workers, each in a scratch directory of its own below `scratch`.

    `aggregators` tells {name: plugin} of those that the owner allows; without it all may be used. `walls`
    tells what a process for these plugins must give up (`Policy.walls`).
    """

    def __init__(
        self,
        scratch: str,
        inputs: Inputs,
        command: Sequence[str] | None = None,
        aggregators: Callable[[], Mapping[str, str]] | None = None,
        walls: Callable[[Sequence[str]], Sequence[str]] = lambda plugins: (),
    ) -> None:
        shutil.rmtree(scratch, ignore_errors=True)  # what the workers of a killed daemon left
        self._scratch = scratch
        self._inputs = inputs
        self._command = command
        self._aggregators = aggregators
        self._walls = walls
        self._numbers = itertools.count(1)

    async def prepare(self, proposal: Proposal) -> Seat:
        """Open the input that the proposal names and start a worker that inherits it.

        Raises what `Inputs.open` raises, or PluginFailed.
        """
        handle = await self._inputs.open(proposal.input) if proposal.input else no_input()
        with handle:
            # here: only a device with runs needs it
            from fedd.host.worker_process import WorkerProcess, worker_command

            scratch = os.path.join(self._scratch, f"{os.getpid()}-{next(self._numbers)}")
            plugins = [proposal.plugin, str(handle.description.get("plugin") or "")]
            command = self._command or worker_command("run", scratch, self._walls(plugins))
            process = await WorkerProcess.spawn(scratch, MAX_FRAME_BYTES, handle.fds, command)
        allowed = None if self._aggregators is None else self._aggregators()
        return Seat(process, handle.description, allowed)


def _algorithm_fields(proposal: Proposal) -> dict[str, Any]:
    return {
        "algorithm": proposal.algorithm,
        "plugin": proposal.plugin,
        "parameters": dict(proposal.parameters),
    }
