"""Makes workers for runs: input opened, process spawned, parameters checked before anybody is asked."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from fedd.api.errors import FeddError, InvalidParameter, PluginFailed, TimedOut
from fedd.core.manifest import Proposal
from fedd.host.inputs import Inputs, no_input

if TYPE_CHECKING:
    from fedd.host.worker_process import WorkerProcess

MAX_FRAME_BYTES = 1 << 30
"""The largest exchange: 64 MiB to each of 16 neighbours. A worker that sends more has lost its mind."""

CHECK_TIMEOUT_S = 30.0
"""To import one plugin and make one dataclass, on a small board that starts."""


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

    async def check(self, proposal: Proposal) -> None:
        """Have the worker build the algorithm, and the learner if there is one.

        Raises InvalidParameter or PluginFailed with what it says.
        """
        question = {"kind": "check", **_algorithm_fields(proposal)}
        if self.input.get("kind") == "learner":
            question["input"] = {**self.input, "data": {"kind": "none"}}
        try:
            with trio.fail_after(CHECK_TIMEOUT_S):
                answer = await self.process.ask(question)
        except trio.TooSlowError as error:
            raise TimedOut(f"the plugin {proposal.plugin} was not ready in {CHECK_TIMEOUT_S:g} s") from error
        if answer.get("kind") == "checked":
            return
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

    `aggregators` tells {name: plugin} of those that the owner allows; without it all may be used.
    """

    def __init__(
        self,
        scratch: str,
        inputs: Inputs,
        command: Sequence[str] | None = None,
        aggregators: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        shutil.rmtree(scratch, ignore_errors=True)  # what the workers of a killed daemon left
        self._scratch = scratch
        self._inputs = inputs
        self._command = command
        self._aggregators = aggregators
        self._numbers = itertools.count(1)

    async def prepare(self, proposal: Proposal) -> Seat:
        """Open the input that the proposal names and start a worker that inherits it.

        Raises what `Inputs.open` raises, or PluginFailed.
        """
        handle = await self._inputs.open(proposal.input) if proposal.input else no_input()
        with handle:
            scratch = os.path.join(self._scratch, f"{os.getpid()}-{next(self._numbers)}")
            more = {} if self._command is None else {"command": self._command}
            from fedd.host.worker_process import WorkerProcess  # here: only a device with runs needs it

            process = await WorkerProcess.spawn(scratch, MAX_FRAME_BYTES, handle.fds, **more)
        allowed = None if self._aggregators is None else self._aggregators()
        return Seat(process, handle.description, allowed)


def _algorithm_fields(proposal: Proposal) -> dict[str, Any]:
    return {
        "algorithm": proposal.algorithm,
        "plugin": proposal.plugin,
        "parameters": dict(proposal.parameters),
    }
