"""Members that send each other commands, in one process and on virtual time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import trio
import trio.testing

from fedd.api.command import Command, Member, Notice, Reached
from fedd.api.errors import Conflict, Denied, FeddError, InvalidParameter, NotConnected, NotFound, TimedOut
from fedd.api.types import Message, PeerId
from fedd.core.command_messages import encode_value, read_answer
from fedd.core.nearest import nearest
from fedd.worker import arrays
from fedd.worker.command_context import CallContext, Fields, answer_call, check_size, encoded
from fedd.worker.parameters import MAX_COMMAND_BYTES, command_kind, command_schema, command_terms


@dataclass(frozen=True)
class LoggedEvent:
    """A line in the event log of node number `node`. `error` says why a broadcast was not handled there."""

    node: int
    sender: PeerId
    command: str
    text: str
    fields: Fields = field(default_factory=dict)
    error: FeddError | None = None


@dataclass
class StartedRun:
    """A run that a handler started on node number `node`, for `sender`: nothing takes place, it is noted."""

    run_id: str
    node: int
    sender: PeerId
    algorithm: str
    parameters: Mapping[str, bool | int | float | str]
    input: str = ""
    topology: str = ""
    quorum: str = ""
    state: str = "running"


class Commands:
    """Members with these commands.

    `nodes` is a number (peer ids are then node-00, node-01, ...) or sorted peer ids; `states` says whom the
    others take for suspect, dead or left. Parameters and answers travel as they do between daemons: encoded,
    bounded, checked against the class's fields, with its audience and its `timeout_s` in virtual time.

    `events` is what handlers wrote into the event logs, in the order of time; `runs` are those that they
    started, which all nodes know; `inputs` are every device's, with their learners. Raises InvalidParameter
    for a class that is no command, and for two of one name.
    """

    def __init__(
        self,
        commands: Sequence[type[Command] | type[Notice]],
        nodes: int | Sequence[PeerId] = 2,
        states: Mapping[int, str] = MappingProxyType({}),
        inputs: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.peer_ids: tuple[PeerId, ...] = (
            tuple(f"node-{index:02d}" for index in range(nodes)) if isinstance(nodes, int) else tuple(nodes)
        )
        self.events: list[LoggedEvent] = []
        self.runs: list[StartedRun] = []
        self.inputs = dict(inputs)
        self._members = {
            peer: Member(peer, peer, states.get(index, "alive")) for index, peer in enumerate(self.peer_ids)
        }
        self._classes: dict[str, type[Any]] = {}
        for cls in commands:
            command_schema(cls)
            command_terms(cls)
            if cls.name in self._classes:
                raise InvalidParameter(f"two commands are called {cls.name}")
            self._classes[cls.name] = cls

    def send(self, sender: int, receiver: int, command: str, /, **parameters: Message) -> Message:
        """Send a command from one node, by number, to another or itself; the handler's answer.

        Raises what the sender would get. Call it from a plain function, not from inside an event loop.
        """
        answer = _run(self._deliver, self.peer_ids[sender], self.peer_ids[receiver], command, parameters)
        value: Message = arrays.from_wire(read_answer(answer, MAX_COMMAND_BYTES))
        return value

    def broadcast(self, sender: int, command: str, /, **parameters: Message) -> Reached:
        """Send a command to every node, one after the other; who is dead or left is missing.

        A handler that fails on a node leaves an event with its error there, as with daemons.
        """
        reached: Reached = _run(self._spread, self.peer_ids[sender], command, parameters)
        return reached

    async def _deliver(
        self, sender: PeerId, receiver: PeerId, command: str, parameters: Mapping[str, Message]
    ) -> bytes:
        if receiver not in self._members:
            raise NotFound(f"{receiver} is no member of this federation", field="peer")
        if self._members[receiver].state in ("dead", "left"):
            raise NotConnected(f"{receiver} is {self._members[receiver].state}")
        cls = self._find(command)
        terms = command_terms(cls)
        if terms.audience == "run":
            raise Denied(f"{command} travels inside the runs of its algorithm", field="command")
        if terms.audience == "local" and sender != receiver:
            raise Denied(f"{command} is for each device alone", field="command")
        payload = encoded(parameters, terms.max_payload_bytes)
        context = CallContext(
            receiver, sender, lambda: self._members, _Port(self, receiver, sender, command), []
        )
        with trio.move_on_after(terms.timeout_s):
            return await answer_call(lambda: command_kind(cls), payload, context)
        raise TimedOut(f"the handler of {command} did not end in time")

    async def _spread(self, sender: PeerId, command: str, parameters: Mapping[str, Message]) -> Reached:
        cls = self._find(command)
        if command_terms(cls).audience != "members":
            raise Denied(f"{command} is for one device at a time, or for runs", field="command")
        check_size(parameters, 64 * 1024, "the broadcast")
        context = CallContext(sender, sender, lambda: self._members, _Port(self, sender, sender, command), [])
        await answer_call(
            lambda: command_kind(cls), arrays.encode(dict(parameters)), context, only_check=True
        )
        alive = [peer for peer in self.peer_ids if self._members[peer].state in ("alive", "suspect")]
        for peer in alive:
            try:
                await self._deliver(sender, peer, command, parameters)
            except FeddError as error:
                self.events.append(LoggedEvent(self.peer_ids.index(peer), sender, command, "", error=error))
        return Reached(tuple(alive), tuple(peer for peer in self.peer_ids if peer not in alive))

    def _find(self, command: str) -> type[Any]:
        if command not in self._classes:
            near = nearest(command, self._classes)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(self._classes))}"
            raise NotFound(f"there is no command {command!r} here", hint=hint, field="command")
        return self._classes[command]


class _Port:
    """`fedd.worker.command_context.CommandPort` of one call on one node."""

    def __init__(self, commands: Commands, node: PeerId, sender: PeerId, command: str) -> None:
        self._commands = commands
        self._node = node
        self._sender = sender
        self._command = command

    async def ask(self, peer: PeerId, command: str, parameters: bytes) -> bytes:
        """Send a command."""
        given = arrays.decode(parameters, MAX_COMMAND_BYTES)
        return await self._commands._deliver(self._node, peer, command, given)

    async def spread(self, command: str, parameters: bytes) -> bytes:
        """Broadcast a command."""
        given = arrays.decode(parameters, MAX_COMMAND_BYTES)
        reached = await self._commands._spread(self._node, command, given)
        return encode_value({"delivered": list(reached.delivered), "missing": list(reached.missing)})

    async def steer(self, what: str, fields: bytes) -> bytes:
        """Note that a run was started or stopped, or tell of them."""
        given = arrays.decode(fields, MAX_COMMAND_BYTES)
        runs = self._commands.runs
        if what == "start":
            node = self._commands.peer_ids.index(self._node)
            runs.append(StartedRun(f"{len(runs) + 1:040x}", node, self._sender, **given))
            return encode_value(runs[-1].run_id)
        if what == "stop":
            self._stop(given["run_id"])
        known = [[run.run_id, run.algorithm, run.state] for run in runs]
        return encode_value({"runs": known, "inputs": self._commands.inputs}.get(what))

    def _stop(self, run_id: str) -> None:
        found = [run for run in self._commands.runs if run_id and run.run_id.startswith(run_id)]
        if len(found) != 1:
            raise NotFound(f"there is no run {run_id!r}, or there are several", field="run_id")
        if found[0].state != "running":
            raise Conflict(f"the run {run_id[:8]} has ended already")
        found[0].state = "stopped"

    def event(self, text: str, fields: Fields) -> None:
        """Write a line into the node's event log."""
        node = self._commands.peer_ids.index(self._node)
        self._commands.events.append(LoggedEvent(node, self._sender, self._command, text, dict(fields)))


def _run(function: Any, *arguments: Any) -> Any:
    """Run to the end on virtual time."""
    return trio.run(function, *arguments, clock=trio.testing.MockClock(autojump_threshold=0))
