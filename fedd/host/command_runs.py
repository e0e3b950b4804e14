"""What a command's handler can do about runs: start one, stop one, see which there are.

It is done for whoever sent the command, and nobody can do more by a command than by `fedctl run` and
`fedctl stop` on a device of its own: a run that is started names its asker, whom every device's policy judges
beside the initiator, and only members of a run can have it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedd.api.errors import Denied, InvalidParameter, ProtocolError
from fedd.api.types import PeerId

if TYPE_CHECKING:
    from fedd.host.inputs import Inputs
    from fedd.host.runs import Runs


class CommandRuns:
    """`Steering` of `fedd.host.commands`, over this node's runs and inputs."""

    def __init__(self, runs: Runs, inputs: Inputs) -> None:
        self._runs = runs
        self._inputs = inputs

    async def perform(self, sender: PeerId, what: str, fields: Mapping[str, Any]) -> Any:
        """Do it for the command of `sender`, whom its link or its signature proves.

        `start` {algorithm, parameters, input, topology, quorum} answers the run's id, `stop` {run_id}
        nothing, `runs` [[run id, algorithm, state]], `inputs` {name: learner}. Raises what `CommandContext`
        says.
        """
        match what:
            case "start":
                return await self._start(sender, fields)
            case "stop":
                return await self._stop(sender, _text(fields, "run_id"))
            case "runs":
                return [[run["run_id"], run["algorithm"], run["state"]] for run in self._runs.summaries()]
            case "inputs":
                return {found["name"]: found.get("learner") or "" for found in self._inputs.list()}
        raise ProtocolError(f"a handler wants {what!r:.40} of the runs, which there is not")

    async def _start(self, sender: PeerId, fields: Mapping[str, Any]) -> str:
        from fedd.host.run_proposer import RunRequest  # here: few commands start runs

        parameters = fields.get("parameters")
        if not isinstance(parameters, dict):
            raise InvalidParameter("the parameters of a run are {name: value}", field="parameters")
        request = RunRequest(
            _text(fields, "algorithm"),
            parameters,
            input=_text(fields, "input") or None,
            topology=_text(fields, "topology") or None,
            quorum=_text(fields, "quorum") or None,
            asker="" if sender == self._runs.me else sender,
        )
        begun = await self._runs.start(request)
        return str(begun["run_id"])

    async def _stop(self, sender: PeerId, run_id: str) -> None:
        run = self._runs.get(run_id)
        if sender not in (self._runs.me, *run["members"]):
            raise Denied(
                f"{self._runs.name_of(sender)} is no member of run {run['run_id'][:8]}",
                hint="a run is stopped by its members",
            )
        await self._runs.stop(run["run_id"])


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise InvalidParameter(f"{name} of a run must be a text, not {value!r:.80}", field=name)
    return value
