"""What a call lends to a command, over whatever carries its questions.

The same class works in the plugin host process, where the daemon is at the other end of a pipe, and in
`fedd.testing`: a `CommandPort` hides the difference.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from fedd.api.command import Command, KnownRun, Member, Reached
from fedd.api.errors import FeddError, InvalidMessage, InvalidParameter
from fedd.api.types import Message, PeerId
from fedd.core.codec import MAX_DEPTH
from fedd.core.command_events import MAX_EVENT_CHARS, MAX_EVENT_FIELDS, MAX_EVENTS, RESERVED_FIELDS
from fedd.core.command_messages import MAX_ANSWER_OVERHEAD_BYTES, encode_value, read_answer, read_parameters
from fedd.worker import arrays
from fedd.worker.failures import plugin_failure
from fedd.worker.parameters import MAX_COMMAND_BYTES, CommandKind, build_command

MAX_STEERING_BYTES = 64 * 1024
"""Of a run's parameters, as of a proposal: they go to every member."""

Answer = bytes | memoryview
Fields = Mapping[str, bool | int | float | str]


class CommandPort(Protocol):
    """What carries a call's questions to the daemon."""

    async def ask(self, peer: PeerId, command: str, parameters: bytes) -> Answer:
        """Send a command; returns the answer's bytes."""
        ...

    async def spread(self, command: str, parameters: bytes) -> Answer:
        """Broadcast a command; returns an answer whose value is {delivered, missing}."""
        ...

    async def steer(self, what: str, fields: bytes) -> Answer:
        """Have the daemon do something about runs: `what` is start, stop, runs or inputs."""
        ...

    def event(self, text: str, fields: Fields) -> None:
        """Write a line into the event log."""
        ...


@dataclass(frozen=True)
class CallContext:
    """`fedd.api.CommandContext` over a port. `lookup` gives the members as they are now."""

    me: PeerId
    sender: PeerId
    lookup: Callable[[], Mapping[PeerId, Member]]
    port: CommandPort
    written: list[str]
    """The texts of this call's events so far."""

    @property
    def members(self) -> Mapping[PeerId, Member]:
        """Everyone known, sorted by peer id."""
        return self.lookup()

    async def send(self, peer: PeerId, command: str, /, **parameters: Message) -> Message:
        """Send a command to a member and return its handler's answer."""
        answer = await self.port.ask(peer, command, encoded(parameters, MAX_COMMAND_BYTES))
        value: Message = arrays.from_wire(read_answer(answer, MAX_COMMAND_BYTES))
        return value

    async def broadcast(self, command: str, /, **parameters: Message) -> Reached:
        """Send a command to every member."""
        answer = await self.port.spread(command, encoded(parameters, MAX_COMMAND_BYTES))
        value = read_answer(answer, MAX_COMMAND_BYTES)
        return Reached(tuple(value["delivered"]), tuple(value["missing"]))

    async def start_run(
        self,
        algorithm: str,
        parameters: Mapping[str, bool | int | float | str],
        *,
        input: str = "",
        topology: str = "",
        quorum: str = "",
    ) -> str:
        """Propose a run to all members that are alive, and return its id."""
        about = {"algorithm": algorithm, "input": input, "topology": topology, "quorum": quorum}
        return str(await self._steer("start", {**about, "parameters": dict(parameters)}))

    async def stop_run(self, run_id: str) -> None:
        """Stop a run on all its members."""
        await self._steer("stop", {"run_id": run_id})

    async def runs(self) -> tuple[KnownRun, ...]:
        """The runs that this node knows."""
        return tuple(KnownRun(*run) for run in await self._steer("runs", {}))

    async def inputs(self) -> Mapping[str, str]:
        """The names of this device's inputs, and the learner of each."""
        return dict(await self._steer("inputs", {}))

    async def _steer(self, what: str, fields: Mapping[str, Any]) -> Any:
        answer = await self.port.steer(what, encoded(fields, MAX_STEERING_BYTES))
        return read_answer(answer, MAX_COMMAND_BYTES)

    def event(self, text: str, /, **fields: bool | int | float | str) -> None:
        """Write a line into the event log."""
        if not isinstance(text, str) or len(text) > MAX_EVENT_CHARS:
            raise InvalidParameter(f"an event's text has up to {MAX_EVENT_CHARS} characters", field="text")
        if len(fields) > MAX_EVENT_FIELDS or len(self.written) >= MAX_EVENTS:
            raise InvalidParameter(f"a call writes up to {MAX_EVENTS} events of {MAX_EVENT_FIELDS} fields")
        for name, value in fields.items():
            if name in RESERVED_FIELDS:
                raise InvalidParameter(f"the event log itself writes {name!r}", field=name)
            if not isinstance(value, bool | int | float | str):
                raise InvalidParameter(f"{name} must be a number or a text, not {value!r:.80}", field=name)
            if isinstance(value, str) and len(value) > MAX_EVENT_CHARS:
                raise InvalidParameter(f"{name} has more than {MAX_EVENT_CHARS} characters", field=name)
        self.written.append(text)
        self.port.event(text, fields)


Finder = Callable[[], CommandKind]
_ANY = (Exception, SystemExit, KeyboardInterrupt, BaseExceptionGroup)
"""What a plugin may raise: all but what ends a task."""


async def answer_call(
    find: Finder, parameters: Answer, context: CallContext, *, only_check: bool = False
) -> bytes:
    """Build the command and let it handle its message, unless `only_check`; the answer's bytes.

    Raises FeddError: what the handler raised is PluginFailed, with the place in the plugin as its hint.
    """
    try:
        kind = find()
        values = arrays.from_wire(read_parameters(parameters, MAX_COMMAND_BYTES))
        command = build_command(kind, values)
    except FeddError:
        raise
    except _ANY as error:
        raise plugin_failure(error) from error
    if only_check:
        return encode_value(None)
    if kind.terms.event_text:
        fields = {each.name: getattr(command, each.name) for each in kind.parameters}
        context.event(fields.pop(kind.terms.event_text), **fields)
        return encode_value(None)
    most = kind.terms.max_payload_bytes
    value = await _handled(cast(Command, command).handle(context))
    check_size(value, most, "its answer")
    data = encode_value(arrays.to_wire(value))
    if len(data) > most + MAX_ANSWER_OVERHEAD_BYTES:
        raise InvalidMessage(f"its answer has {len(data)} bytes, more than the {most} it declares")
    return data


async def _handled(handling: Awaitable[Message]) -> Message:
    try:
        return await handling
    except FeddError:
        raise
    except _ANY as error:
        raise plugin_failure(error) from error


def encoded(parameters: Mapping[str, Any], max_bytes: int) -> bytes:
    """Parameters as they travel. Raises InvalidMessage when they cannot or are too large."""
    check_size(parameters, max_bytes, "the parameters")
    return arrays.encode(dict(parameters))


def check_size(value: Any, max_bytes: int, what: str) -> None:
    """Raise InvalidMessage for a value larger than `max_bytes`, before anything is made of it.

    Counts what arrays, bytes and texts hold and a byte for each other item: less than it takes encoded.
    """
    left = max_bytes
    level = [value]
    for _ in range(MAX_DEPTH + 2):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, str | bytes | bytearray | memoryview):
                left -= len(item)
            elif hasattr(item, "nbytes"):  # a NumPy array, without loading NumPy to ask
                left -= item.nbytes
            elif isinstance(item, dict):
                inner += [*item, *item.values()]
            elif isinstance(item, list | tuple):
                inner += item
        left -= len(level)
        if left + 1 < 0:
            raise InvalidMessage(f"{what} would have more than {max_bytes} bytes", hint="send less at a time")
        level = inner
    if level:
        raise InvalidMessage(f"{what} nests deeper than {MAX_DEPTH}")
