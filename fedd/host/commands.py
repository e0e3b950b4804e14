"""Commands: named messages that plugins handle, sent to one member or broadcast to all.

Every command has its protocol id `/fedd/command/NAME/VERSION`, all of which one handler serves here: what is
unknown, not allowed, malformed or too large is answered with an error that says so, and reaches no plugin.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import trio

from fedd.api.command import Reached
from fedd.api.errors import (
    Conflict,
    Denied,
    FeddError,
    InvalidMessage,
    NotConnected,
    NotFound,
    PluginFailed,
    ProtocolError,
    TimedOut,
)
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.command_messages import (
    BROADCAST_CHANNEL,
    COMMAND_PREFIX,
    MAX_ANSWER_OVERHEAD_BYTES,
    command_of,
    compatible,
    encode_broadcast,
    encode_error,
    encode_value,
    is_error,
    protocol_of,
    read_answer,
    read_broadcast,
    read_parameters,
)
from fedd.host.command_call import Call, HostTimes
from fedd.host.command_host import CommandHost, Spawn, spawn_host
from fedd.host.command_inbox import Inbox
from fedd.host.command_log import CommandLog
from fedd.host.command_turns import PATIENCE_S, Turns
from fedd.host.command_wire import READ_S, Memory, cancel_when_gone, converse, read_length, write
from fedd.host.plugin_schema import CommandInfo
from fedd.host.plugins import MAX_COMMAND_BYTES, PluginRegistry, check_command_parameters
from fedd.net.bounds import Bound

if TYPE_CHECKING:
    from trio_typing import TaskStatus

    from fedd.net.events import EventLog
    from fedd.net.presence import Presence
    from fedd.net.stream import Stream
    from fedd.net.swarm import Swarm

DEADLINE_S = 45.0
"""Of a sender: the longest wait for a turn, the longest handler, and the way there and back."""
MAX_BROADCAST_BYTES = 64 * 1024
"""What the ordered broadcast carries in one piece."""

Bytes = bytes | memoryview


class Spreader(Protocol):
    """The ordered broadcast (`fedd.net.broadcast.Broadcaster`) as commands use it."""

    def publish(self, channel: str, payload: bytes) -> object:
        """Broadcast; nobody is asked to confirm it. Raises Unhealthy beyond this node's allowance."""
        ...

    async def publish_and_wait(self, channel: str, payload: bytes, deadline_s: float) -> Any:
        """Broadcast; returns `delivered` and `missing`, tuples of peer ids."""
        ...

    def subscribe(self, channel: str, callback: Callable[[Any], None]) -> None:
        """Be called with each delivery (origin, payload) and each gap (origin, first, last)."""
        ...


class Steering(Protocol):
    """What handlers can do about runs (`fedd.host.command_runs.CommandRuns`)."""

    async def perform(self, sender: PeerId, what: str, fields: Mapping[str, Any]) -> Any:
        """Do it for the command of `sender`. Raises FeddError."""
        ...


class Commands:
    """Everything about commands on this node. `run` must be running for anything to happen.

    `reach` makes sure that there is a connection to a member, direct or relayed, within a time in seconds;
    `runs` is what handlers reach of the runs here.
    """

    def __init__(
        self,
        swarm: Swarm,
        presence: Presence,
        registry: PluginRegistry,
        events: EventLog,
        scratch: str,
        *,
        reach: Callable[[PeerId, float], Awaitable[object]],
        broadcaster: Spreader,
        runs: Steering,
        times: HostTimes | None = None,
        spawn: Spawn = spawn_host,
    ) -> None:
        self.me = swarm.peer_id
        self._swarm = swarm
        self._presence = presence
        self._registry = registry
        self._reach = reach
        self._broadcaster = broadcaster
        self._runs = runs
        self._host = CommandHost(scratch, self, times, spawn)
        self._turns = Turns(self.me)
        self._memory = Memory()
        self._inbox = Inbox(self._handle_broadcast, self._note_lost)
        self._nursery: trio.Nursery | None = None
        self._log = CommandLog(events, self._name)
        swarm.handle_family(COMMAND_PREFIX, self.serve)
        broadcaster.subscribe(BROADCAST_CHANNEL, self._take_broadcast)
        presence.subscribe(lambda change: self._host.members_changed())

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the plugin host and the broadcasts being handled, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._host.run)
            self._nursery = nursery
            task_status.started()

    def reload(self) -> None:
        """Plugins may have changed: the next call starts a new plugin host."""
        self._host.reload()

    def bounds(self) -> list[Bound]:
        """What commands may take of this node."""
        return [*self._turns.bounds(), *self._memory.bounds(), *self._inbox.bounds()]

    # ---- sending -------------------------------------------------------------------------

    async def send(
        self, peer: PeerId, command: str, parameters: Mapping[str, Any], deadline_s: float = DEADLINE_S
    ) -> Any:
        """Send a command to a member, or to this node itself; the handler's answer, arrays as ArrayView.

        `parameters` are typed, or texts as a user wrote them. Raises NotFound (command, member),
        InvalidParameter (field: the parameter), Denied, Conflict (versions), NotConnected, TimedOut,
        Unhealthy, or PluginFailed with what the handler raised; an error from afar begins with its name.
        """
        return read_answer(await self._send(peer, command, parameters, deadline_s), MAX_COMMAND_BYTES)

    async def broadcast(
        self,
        command: str,
        parameters: Mapping[str, Any],
        deadline_s: float = DEADLINE_S,
        *,
        wait: bool = True,
    ) -> Reached:
        """Send a command to every member, this node included; returns whose daemons have confirmed it.

        Without `wait` the others are not asked to, so that it costs them less, and only this node is named.
        Raises NotFound, InvalidParameter, Denied, InvalidMessage (beyond 64 KiB), Conflict, Unhealthy.
        """
        info = self._judge(command, "", self.me)
        if info.audience == "local":
            raise Denied(f"{command} is for this device alone", hint="send it to this node", field="command")
        _check_spreadable(info)
        typed = check_command_parameters(info, parameters)
        if not info.event_text:
            # What only the class can judge is judged here, before everybody would find it wanting. It takes
            # no turn: nothing is done, and a handler that broadcasts holds one already.
            checked = await self._host.call(info, self.me, codec.encode(typed), only_check=True)
            read_answer(checked, info.max_payload_bytes)
        payload = encode_broadcast(info.name, info.command_version, typed)
        if len(payload) > min(MAX_BROADCAST_BYTES, info.max_payload_bytes):
            raise InvalidMessage(
                f"the broadcast of {command} would have {len(payload)} bytes; {MAX_BROADCAST_BYTES} can go",
                hint="send large values to each member by itself",
            )
        if not wait:
            self._broadcaster.publish(BROADCAST_CHANNEL, payload)
            return Reached((self.me,), ())
        reached = await self._broadcaster.publish_and_wait(BROADCAST_CHANNEL, payload, deadline_s)
        return Reached(tuple(sorted({self.me, *reached.delivered})), tuple(sorted(reached.missing)))

    async def _send(
        self, peer: PeerId, command: str, parameters: Mapping[str, Any], deadline_s: float
    ) -> Bytes:
        if peer == self.me:
            return await self._handle(self._judge(command, "", self.me), self.me, parameters)
        name = self._name(peer)
        state = self._presence.state_of(peer)
        if state is None:
            raise NotFound(f"{peer} is no member of this federation", hint="see fedctl members", field="peer")
        if state in ("dead", "left"):
            raise NotConnected(f"{name} is {state}", hint="see fedctl members")
        version, most = "", MAX_COMMAND_BYTES
        if self._registry.has_command(command):  # else the peer may have what this node has not
            info = self._registry.command(command)
            _check_sendable(info)
            if info.audience == "local":
                raise Denied(f"{command} is for each device alone", field="command")
            parameters = check_command_parameters(info, parameters)
            version, most = info.command_version, info.max_payload_bytes
        request = codec.encode(dict(parameters))
        if len(request) > most:
            raise InvalidMessage(f"the parameters of {command} have {len(request)} bytes, more than {most}")
        try:
            with trio.fail_after(deadline_s):
                answer = await self._ask(peer, protocol_of(command, version), request, most, deadline_s)
        except trio.TooSlowError:
            raise TimedOut(f"{name} did not answer {command} within {deadline_s:g} s") from None
        return self._from_afar(name, answer, most)

    async def _ask(self, peer: PeerId, protocol: str, request: bytes, most: int, deadline_s: float) -> bytes:
        await self._reach(peer, deadline_s)
        stream = await self._swarm.open_stream(peer, protocol, deadline_s)
        try:
            answer = await converse(stream, request, most + MAX_ANSWER_OVERHEAD_BYTES)
            await stream.aclose()
        finally:
            stream.reset()  # does nothing to a stream that was closed
        return answer

    def _from_afar(self, name: str, answer: bytes, most: int) -> bytes:
        """The answer; raises its error with the name of the member that it comes from."""
        if is_error(answer):
            try:
                read_answer(answer, most)
            except FeddError as error:
                raise type(error)(f"{name}: {error.detail}", hint=error.hint, field=error.field) from None
        return answer

    # ---- handling ------------------------------------------------------------------------

    async def serve(self, stream: Stream) -> None:
        """Answer the command on a member's stream."""
        answer: Bytes = b""
        async with trio.open_nursery() as nursery:
            try:
                answer = await self._answer(stream, nursery)
            except FeddError as error:
                answer = encode_error(error)
            nursery.cancel_scope.cancel()
        if answer:  # else the sender is gone
            with trio.move_on_after(READ_S):
                await write(stream, answer)

    async def _answer(self, stream: Stream, nursery: trio.Nursery) -> Bytes:
        sender = stream.peer_id
        command, version = command_of(stream.protocol)
        with trio.move_on_after(PATIENCE_S):
            await self._registry.ready()
        info = self._judge(command, version, sender)
        length = await read_length(stream, info.max_payload_bytes)
        self._memory.take(sender, length)
        try:
            with trio.move_on_after(READ_S) as reading:
                data = await stream.receive_exactly(length)
            if reading.cancelled_caught:
                raise TimedOut(f"the parameters of {command} did not come within {READ_S:g} s")
            nursery.start_soon(cancel_when_gone, stream, nursery.cancel_scope.cancel)
            return await self._handle(info, sender, read_parameters(data, length))
        finally:
            self._memory.give_back(sender, length)

    def _judge(self, command: str, version: str, sender: PeerId) -> CommandInfo:
        """The command, if this sender may have it handled here.

        Raises NotFound naming the nearest, Conflict for another version, Denied by audience or policy,
        PluginFailed when its plugin is disabled.
        """
        info = self._registry.command(command)
        if not compatible(version, info.command_version):
            raise Conflict(
                f"{command} has the version {info.command_version} here, not {version:.40}",
                hint="install the same version of its plugin on both",
            )
        _check_sendable(info)
        if info.audience == "local" and sender != self.me:
            raise Denied(f"{command} is for that device alone", field="command")
        self._registry.policy.check_command(info.name, info.plugin, info.distribution)
        self._host.check(info.plugin)
        return info

    async def _handle(
        self,
        info: CommandInfo,
        sender: PeerId,
        parameters: Mapping[str, Any],
        patience_s: float | None = PATIENCE_S,
    ) -> Bytes:
        """Check the parameters, wait for a turn, have it handled; the answer's bytes, error or not."""
        typed = check_command_parameters(info, parameters)
        body = codec.encode(typed)
        if len(body) > info.max_payload_bytes + MAX_ANSWER_OVERHEAD_BYTES:
            raise InvalidMessage(
                f"the parameters of {info.name} have {len(body)} bytes, more than {info.max_payload_bytes}"
            )
        if info.event_text:
            self._log.write_notice(info, sender, typed)
            return encode_value(None)
        async with self._turns.turn(sender, patience_s):
            answer = await self._host.call(info, sender, body)
        if not is_error(answer):
            try:
                read_answer(answer, info.max_payload_bytes)
            except ProtocolError as error:
                raise PluginFailed(f"the handler of {info.name} answered nonsense: {error.detail}") from None
        return answer

    # ---- broadcasts ----------------------------------------------------------------------

    def _take_broadcast(self, arrived: Any) -> None:
        payload = getattr(arrived, "payload", None)
        if payload is None:
            count = arrived.last - arrived.first + 1
            self._log.not_handled("", arrived.origin, error=f"{count} broadcasts were missed")
        elif self._nursery is not None and not self._take_notice(arrived.origin, payload):
            self._inbox.put(self._nursery, arrived.origin, payload)

    def _take_notice(self, origin: PeerId, payload: bytes) -> bool:
        """Write a notice, unless something of its origin has to be done before; whether it was one."""
        if not self._registry.is_ready or self._inbox.is_waiting(origin):
            return False
        command = ""
        try:
            command, version, parameters = read_broadcast(payload, MAX_BROADCAST_BYTES)
            info = self._judge(command, version, origin)
            if not info.event_text:
                return False
            _check_spreadable(info)
            self._log.write_notice(info, origin, check_command_parameters(info, parameters))
        except FeddError as error:
            self._log.not_handled(command, origin, error=str(error))
        return True

    async def _handle_broadcast(self, origin: PeerId, payload: bytes) -> None:
        command = ""
        try:
            await self._registry.ready()
            command, version, parameters = read_broadcast(payload, MAX_BROADCAST_BYTES)
            info = self._judge(command, version, origin)
            _check_spreadable(info)
            read_answer(await self._handle(info, origin, parameters, None), info.max_payload_bytes)
        except FeddError as error:
            self._log.not_handled(command, origin, error=str(error))

    def _note_lost(self, origin: PeerId) -> None:
        self._log.not_handled("", origin, error="broadcasts were lost: their handlers are too far behind")

    # ---- what handlers reach: the plugin host's Outside ----------------------------------------

    def members(self) -> list[tuple[PeerId, str, str]]:
        """(peer id, name, state) of everyone known, sorted, this node included."""
        found = [(view.peer_id, view.name, view.state) for view in self._presence.members()]
        return sorted(found) or [(self.me, "", "alive")]

    async def ask(self, peer: PeerId | None, command: str, parameters: memoryview) -> bytes:
        """A handler sends a command, or broadcasts it when `peer` is None."""
        given = read_parameters(parameters, MAX_COMMAND_BYTES)
        if peer is not None:
            return bytes(await self._send(peer, command, given, DEADLINE_S))
        reached = await self.broadcast(command, given)
        return encode_value({"delivered": list(reached.delivered), "missing": list(reached.missing)})

    async def steer(self, sender: PeerId, what: str, fields: memoryview) -> bytes:
        """A handler starts, stops or lists runs."""
        return encode_value(
            await self._runs.perform(sender, what, read_parameters(fields, MAX_COMMAND_BYTES))
        )

    def event(self, call: Call, text: str, fields: Mapping[str, Any]) -> None:
        """A handler writes into the event log."""
        self._log.write(call.info, call.sender, text, fields)

    def trouble(self, plugin: str, error: str) -> None:
        """A plugin cost the plugin host its life."""
        self._log.trouble(plugin, error)

    def _name(self, peer: PeerId) -> str:
        return self._presence.name_of(peer) or peer


def _check_sendable(info: CommandInfo) -> None:
    """Raise Denied for a message of a run: outside of it there is nobody whom it could mean something to."""
    if info.audience == "run":
        raise Denied(
            f"{info.name} travels inside the runs of its algorithm, nobody can send it",
            hint=f"fedctl commands {info.name} says what it is for",
            field="command",
        )


def _check_spreadable(info: CommandInfo) -> None:
    """Raise Denied for a command that one member at a time is told, and not everybody at once."""
    if info.audience == "direct":
        raise Denied(
            f"{info.name} is for one member at a time",
            hint=f"fedctl send MEMBER {info.name}",
            field="command",
        )
