"""What P2PFL's nodes are told from outside of a run: to start one, to stop one, that somebody is alive.

Here they are commands to one member, `fedctl send MEMBER start_learning input=digits rounds=50`. That member
proposes the run as `fedctl run` does, or stops it as `fedctl stop` does, for whoever sent the command: no
policy lets anybody do more by a command than without.

Source of the names: P2PFL 0.4 (p2pfl/communication/commands/message).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fedd.api import CommandContext, Conflict, InvalidParameter, KnownRun, Message, NotFound
from fedd_learning.messages import MESSAGES

ALGORITHM = "learning"
IN_PROGRESS = ("running", "waiting")


@dataclass(frozen=True)
class StartLearning:
    """Starts a run of learning on all members, with the member that gets the command as its initiator.

    Each device's owner is asked, by the policy there, about the sender and about the initiator. Sent twice,
    it starts two runs. Answers {run_id, input}.
    """

    name: ClassVar[str] = "start_learning"
    audience: ClassVar[str] = "direct"
    timeout_s: ClassVar[float] = 30

    rounds: int = field(default=10, metadata={"help": "how many"})
    epochs: int = field(default=1, metadata={"help": "passes over a device's own data in each round"})
    train_set: int = field(default=0, metadata={"help": "how many train in each round (0: all)"})
    input: str = field(
        default="",
        metadata={"help": "the learner, by its input's name (empty: the only one there)"},
    )
    aggregator: str = field(default="fedavg", metadata={"help": "how models become one; see aggregators"})
    options: str = field(default="", metadata={"help": "the aggregator's options: name=value,name=value"})
    quorum: str = field(
        default="", metadata={"help": "how many must take part and stay, 3 or 60% (empty: most)"}
    )
    experiment_name: str = field(default="", metadata={"help": "for the event log; a run has an id besides"})

    async def handle(self, ctx: CommandContext) -> Message:
        """Propose the run."""
        learner = self.input or only_learner(await ctx.inputs())
        parameters: dict[str, bool | int | float | str] = {
            "rounds": self.rounds,
            "epochs": self.epochs,
            "train_set": self.train_set,
            "aggregator": self.aggregator,
            "options": self.options,
        }
        run_id = await ctx.start_run(ALGORITHM, parameters, input=learner, quorum=self.quorum)
        ctx.event("learning started", run_id=run_id, input=learner, experiment=self.experiment_name[:200])
        return {"run_id": run_id, "input": learner}


@dataclass(frozen=True)
class StopLearning:
    """Stops a run of learning on all its members. Answers {run_id}."""

    name: ClassVar[str] = "stop_learning"
    audience: ClassVar[str] = "members"

    run: str = field(
        default="", metadata={"help": "its id or the beginning (empty: the only one in progress there)"}
    )

    async def handle(self, ctx: CommandContext) -> Message:
        """Stop it."""
        found = chosen(self.run, await ctx.runs())
        await ctx.stop_run(found.run_id)
        ctx.event("learning stopped", run_id=found.run_id)
        return {"run_id": found.run_id}


@dataclass(frozen=True)
class Heartbeat:
    """Answers whom this member sees alive, the sender among them.

    Nobody has to send it: daemons tell each other by themselves that they live, in a run and without.
    Answers {time, sender: state, members: {peer id: {name, state}}}.
    """

    name: ClassVar[str] = "heartbeat"
    audience: ClassVar[str] = "members"

    time: float = field(default=0.0, metadata={"help": "of sending, given back: no clock here is compared"})

    async def handle(self, ctx: CommandContext) -> Message:
        """Say who is there."""
        members = ctx.members
        sender = members.get(ctx.sender)
        seen: dict[str, Message] = {
            peer: {"name": member.name, "state": member.state} for peer, member in members.items()
        }
        return {"time": self.time, "sender": sender.state if sender else "unknown", "members": seen}


CONTROL: tuple[type[Any], ...] = (StartLearning, StopLearning, Heartbeat)
LISTED: Mapping[str, type[Any]] = {**{command.name: command for command in CONTROL}, **MESSAGES}
"""P2PFL's commands by their names, and `model_trained`; `pre_send_model` is made needless by streams."""


def only_learner(inputs: Mapping[str, str]) -> str:
    """The input that has a learner. Raises InvalidParameter, with the names, unless it is one."""
    found = sorted(name for name, learner in inputs.items() if learner)
    if len(found) == 1:
        return found[0]
    raise InvalidParameter(
        f"there are {len(found)} learners here: {', '.join(found)}" if found else "there is no learner here",
        hint="say which: input=NAME" if found else "configure one: [inputs.NAME] with learner = ...",
        field="input",
    )


def chosen(prefix: str, runs: tuple[KnownRun, ...]) -> KnownRun:
    """The run of learning in progress whose id begins so. Raises NotFound, Conflict for several."""
    found = [
        run
        for run in runs
        if run.algorithm == ALGORITHM and run.state in IN_PROGRESS and run.run_id.startswith(prefix)
    ]
    if not found:
        which = f" whose id begins with {prefix:.40}" if prefix else ""
        raise NotFound(f"no run of learning{which} is in progress here", hint="see fedctl runs", field="run")
    if len(found) > 1:
        raise Conflict(
            f"{len(found)} runs of learning are in progress here: {', '.join(r.run_id[:8] for r in found)}",
            hint="say which: run=ID",
            field="run",
        )
    return found[0]
