"""What handlers do about runs: no more than their sender could do without a command."""

from __future__ import annotations

from typing import Any

import pytest
import trio.testing
from host.worlds import Node, rounds_of, world
from waiting import until

from fedd.api.errors import Conflict, Denied, FeddError, InvalidParameter, NotFound, ProtocolError, Refused
from fedd.host.command_runs import CommandRuns
from fedd.host.policy import Policy

Clock = trio.testing.MockClock
START = {
    "algorithm": "mean",
    "parameters": {"iterations": 5},
    "input": "x",
    "topology": "",
    "quorum": "",
}


def runs_of(node: Node) -> CommandRuns:
    return CommandRuns(node.runs, node.inputs)


def proposal_of(node: Node, run_id: str) -> Any:
    return node.runs.nodes[run_id].manifest.proposal


def long(nodes: list[Node]) -> None:
    """Runs that go on for some hours of virtual time."""
    for node in nodes:
        node.script = rounds_of(1_000_000)


async def test_a_run_that_a_member_asks_for_names_it(autojump_clock: Clock) -> None:
    async with world(3, prepare=long) as nodes:
        run_id = await runs_of(nodes[1]).perform(nodes[0].id, "start", START)
        await until(lambda: run_id in nodes[2].runs.nodes)
        proposal = proposal_of(nodes[2], run_id)
        assert (proposal.initiator, proposal.asker) == (nodes[1].id, nodes[0].id)
        assert dict(proposal.parameters)["iterations"] == 5
        assert await runs_of(nodes[2]).perform(nodes[0].id, "runs", {}) == [[run_id, "mean", "running"]]
        assert await runs_of(nodes[2]).perform(nodes[0].id, "stop", {"run_id": run_id[:10]}) is None
        assert (await nodes[1].result(run_id))["state"] == "stopped"
        with pytest.raises(Conflict, match="has ended already"):
            await runs_of(nodes[2]).perform(nodes[0].id, "stop", {"run_id": run_id})


async def test_the_devices_own_operator_asks_as_itself(autojump_clock: Clock) -> None:
    async with world(2, prepare=long) as nodes:
        run_id = await runs_of(nodes[0]).perform(nodes[0].id, "start", START)
        assert proposal_of(nodes[0], run_id).asker == ""


async def test_who_may_not_start_runs_may_not_have_them_started(autojump_clock: Clock) -> None:
    """n0 asks n1, whom all trust, for a run; those who do not trust n0 decline."""
    async with world(3, prepare=long) as nodes:
        for node in nodes[1:]:
            node.runs.set_policy(Policy(initiators=("n1",)))
        with pytest.raises(Denied, match="the policy here does not let n0 start runs"):
            await runs_of(nodes[1]).perform(nodes[0].id, "start", START)
        nodes[1].runs.set_policy(Policy(initiators=("n0",)))
        with pytest.raises(Refused, match="n2: the policy here does not let n0 start runs"):
            await runs_of(nodes[1]).perform(nodes[0].id, "start", {**START, "quorum": "3"})
        assert not any(node.runs.nodes for node in nodes)
        run_id = await runs_of(nodes[1]).perform(nodes[1].id, "start", {**START, "quorum": "3"})
        assert len(nodes[1].runs.nodes[run_id].manifest.members) == 3


async def test_only_members_have_a_run_stopped(autojump_clock: Clock) -> None:
    async with world(3, prepare=long) as nodes:
        nodes[2].runs.set_policy(Policy(initiators=("nobody",)))
        run_id = await runs_of(nodes[0]).perform(nodes[0].id, "start", START)
        assert nodes[2].id not in nodes[0].runs.nodes[run_id].manifest.members
        with pytest.raises(Denied, match=f"n2 is no member of run {run_id[:8]}"):
            await runs_of(nodes[0]).perform(nodes[2].id, "stop", {"run_id": run_id})
        assert nodes[0].runs.active == 1
        await runs_of(nodes[0]).perform(nodes[1].id, "stop", {"run_id": run_id})
        assert nodes[0].runs.active == 0


@pytest.mark.parametrize(
    ("what", "fields", "error", "said"),
    [
        ("start", {**START, "parameters": None}, InvalidParameter, "the parameters of a run"),
        ("start", {**START, "parameters": {"nope": 1}}, InvalidParameter, "nope"),
        ("start", {**START, "input": 7}, InvalidParameter, "input of a run must be a text, not 7"),
        ("start", {**START, "algorithm": "none"}, NotFound, "none"),
        ("start", {**START, "input": "none"}, NotFound, "none"),
        ("start", {**START, "topology": "mobius"}, InvalidParameter, "mobius"),
        ("start", {**START, "quorum": "many"}, InvalidParameter, "many"),
        ("stop", {}, InvalidParameter, "run_id of a run must be a text"),
        ("stop", {"run_id": "abc"}, NotFound, "abc"),
        ("jump", {}, ProtocolError, "jump"),
    ],
)
async def test_what_cannot_be_done(
    autojump_clock: Clock, what: str, fields: dict[str, Any], error: type[FeddError], said: str
) -> None:
    async with world(2) as nodes:
        with pytest.raises(error, match=said):
            await runs_of(nodes[0]).perform(nodes[1].id, what, fields)


async def test_the_inputs_of_the_device_are_told(autojump_clock: Clock) -> None:
    async with world(1) as nodes:
        assert await runs_of(nodes[0]).perform(nodes[0].id, "inputs", {}) == {"x": ""}
