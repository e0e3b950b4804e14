"""The plugin host: one process for the commands of all plugins, steered by frames over one socket.

From the daemon: `members` (who is there), `call`, `cancel`, `answer` (to a question of a handler). To the
daemon: `ready`, `began` (unless the answer comes along), `answer` (of a call), `ask` (send, broadcast,
something about runs), `event`. Calls run beside each other in one event loop; which of them is at work at
this moment stands in a page of memory that the daemon shares, so that it knows whom to blame for a process
that hangs or dies.
"""

from __future__ import annotations

import itertools
import mmap
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from itertools import islice
from typing import Any

import trio

from fedd.api.command import Member
from fedd.api.errors import FeddError, TimedOut, Unhealthy
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.core.command_messages import encode_error
from fedd.core.pipe import BUFFERS_AT_ONCE, Frame, PipeDecoder, drop_written, encode_frame
from fedd.worker.command_context import Answer, CallContext, Fields, answer_call
from fedd.worker.orphan import daemon_is_gone, end_group, end_with_the_daemon
from fedd.worker.parameters import CommandKind, command_kind
from fedd.worker.plugins import find_command

MAX_FRAME_BYTES = 17 * 1024 * 1024
"""The parameters of one call, and what goes with them."""
MAX_ASKS = 8
"""Questions of one call that are under way: a handler that sends to a hundred members does so in turns."""
_RECEIVE_BYTES = 256 * 1024

PAGE_BYTES = 24
PAGE = struct.Struct("<QQQ")
"""The call at work (0: none), steps begun so far, and 1 while its plugin is being imported."""

_CALL: ContextVar[int] = ContextVar("call", default=0)


class Gauge(trio.abc.Instrument):
    """Writes into the shared page which call's task is being stepped, and has sent what the step said."""

    def __init__(self, page: mmap.mmap) -> None:
        self._page = page
        self._steps = 0
        self.send: Callable[[], None] = lambda: None
        """Called after each step."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task goes on."""
        call = task.context.get(_CALL, 0)
        if call:
            self._steps += 1
            PAGE.pack_into(self._page, 0, call, self._steps, 0)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """It waits again, or has ended. Should another step end the process, this one's words are said."""
        self.send()
        if task.context.get(_CALL, 0):
            PAGE.pack_into(self._page, 0, 0, self._steps, 0)

    def importing(self, call: int, now: bool) -> None:
        """The call's plugin is being imported, which may take longer than a step."""
        PAGE.pack_into(self._page, 0, call, self._steps, int(now))


class PluginHost:
    """Calls in, answers out."""

    def __init__(self, sock: socket.socket, gauge: Gauge) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._gauge = gauge
        gauge.send = self._send_said
        self._decoder = PipeDecoder(MAX_FRAME_BYTES)
        # Without bound of its own: the daemon bounds the calls, MAX_ASKS and MAX_EVENTS what each may say.
        self._unsent: deque[memoryview] = deque()
        self._waits_for_room = False
        self._more_to_send = trio.Event()
        self._me: PeerId = ""
        self._members: dict[PeerId, Member] = {}
        self._scopes: dict[int, trio.CancelScope] = {}
        self._asked: dict[int, _Question] = {}
        self._numbers = itertools.count(1)
        self._kinds: dict[tuple[str, str], CommandKind] = {}
        # Which call has begun in this step (0: none). That it did goes without saying when it ends in it too.
        self._beginning = 0

    async def run(self) -> None:
        """Serve until the daemon closes the socket."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_when_possible)
            self.say({"kind": "ready"})
            while data := await self._receive():
                for frame in self._decoder.receive_data(data):
                    self._take(frame, nursery)
            nursery.cancel_scope.cancel()

    def say(self, header: dict[str, Any], *body: Answer) -> None:
        """Send a frame to the daemon after this step, or as soon as there is room then.

        What a handler says in one step, most often all that it says, wakes the daemon once. Of one that never
        ends its step the page tells.
        """
        self._unsent.append(memoryview(b"".join(encode_frame(header, body))))

    def _send_said(self) -> None:
        if self._beginning:
            call, self._beginning = self._beginning, 0
            self.say({"kind": "began", "call": call})
        if self._unsent and not self._waits_for_room:
            self._write()
            if self._unsent:
                self._waits_for_room = True
                self._more_to_send.set()

    def _write(self) -> None:
        try:
            while self._unsent:
                drop_written(self._unsent, self._sock.sendmsg(list(islice(self._unsent, BUFFERS_AT_ONCE))))
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()  # the daemon is gone, as the reading side sees

    async def _write_when_possible(self) -> None:
        while True:
            await self._more_to_send.wait()
            self._more_to_send = trio.Event()
            while self._unsent:
                await trio.lowlevel.wait_writable(self._sock.fileno())
                self._write()
            self._waits_for_room = False

    async def _receive(self) -> bytes:
        """What the daemon says next, nothing at its end."""
        await trio.lowlevel.wait_readable(self._sock.fileno())
        try:
            return self._sock.recv(_RECEIVE_BYTES)
        except OSError:
            return b""

    def members(self) -> Mapping[PeerId, Member]:
        """Everyone known, sorted by peer id."""
        return self._members

    def _take(self, frame: Frame, nursery: trio.Nursery) -> None:
        header = frame.header
        match header["kind"]:
            case "members":
                self._me = header["me"]
                found = codec.decode(frame.body[0], max_bytes=MAX_FRAME_BYTES)
                self._members = {peer: Member(peer, name, state) for peer, name, state in found}
            case "call":
                nursery.start_soon(self._serve, header, frame.body[0])
            case "cancel":
                if (scope := self._scopes.get(header["call"])) is not None:
                    scope.cancel()
            case "answer":
                if (question := self._asked.pop(header["ask"], None)) is not None:
                    question.answer = frame.body[0]
                    question.answered.set()

    async def _serve(self, header: dict[str, Any], parameters: memoryview) -> None:
        call = header["call"]
        _CALL.set(call)
        self._gauge.importing(call, False)  # this very step began before the call was known
        port = _Port(self, call)
        context = CallContext(self._me, header["sender"], self.members, port, [])
        with trio.CancelScope() as scope:
            self._scopes[call] = scope
            try:
                answer = await answer_call(
                    lambda: self._find(header), parameters, context, only_check=header["only_check"]
                )
            except FeddError as error:
                answer = encode_error(error)
        del self._scopes[call]
        if scope.cancel_called:
            answer = encode_error(TimedOut(f"the handler of {header['command']} did not end in time"))
        if self._beginning == call:
            self._beginning = 0
        self.say({"kind": "answer", "call": call}, answer)

    def _find(self, header: dict[str, Any]) -> CommandKind:
        """What the command is, its plugin imported when it is needed for the first time."""
        key = (header["plugin"], header["command"])
        call = header["call"]
        if key in self._kinds:
            self._beginning = call
            return self._kinds[key]
        self._gauge.importing(call, True)
        command = find_command(*key)
        self._gauge.importing(call, False)
        self._beginning = call
        kind = self._kinds[key] = command_kind(command)
        return kind

    async def ask(self, header: dict[str, Any], parameters: bytes) -> Answer:
        """Put a handler's question to the daemon and wait for the answer."""
        number = next(self._numbers)
        question = _Question()
        self._asked[number] = question
        try:
            self.say({**header, "kind": "ask", "ask": number}, parameters)
            await question.answered.wait()
        finally:
            self._asked.pop(number, None)
        return question.answer


class _Question:
    """One question on its way."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: Answer = b""


class _Port:
    """One call's `CommandPort`."""

    def __init__(self, host: PluginHost, call: int) -> None:
        self._host = host
        self._call = call
        self._under_way = 0

    async def ask(self, peer: PeerId, command: str, parameters: bytes) -> Answer:
        """Send a command."""
        return await self._ask({"call": self._call, "peer": peer, "command": command}, parameters)

    async def spread(self, command: str, parameters: bytes) -> Answer:
        """Broadcast a command."""
        return await self._ask({"call": self._call, "peer": None, "command": command}, parameters)

    async def steer(self, what: str, fields: bytes) -> Answer:
        """Have the daemon do something about runs."""
        return await self._ask({"call": self._call, "runs": what}, fields)

    def event(self, text: str, fields: Fields) -> None:
        """Write a line into the event log."""
        self._host.say({"kind": "event", "call": self._call, "text": text, "fields": dict(fields)})

    async def _ask(self, header: dict[str, Any], parameters: bytes) -> Answer:
        if self._under_way >= MAX_ASKS:
            raise Unhealthy(f"this call waits for {MAX_ASKS} answers already", hint="send to fewer at a time")
        self._under_way += 1
        try:
            return await self._host.ask(header, parameters)
        finally:
            self._under_way -= 1


async def _serve(sock: socket.socket, page: mmap.mmap) -> None:
    gauge = Gauge(page)
    trio.lowlevel.add_instrument(gauge)
    await PluginHost(sock, gauge).run()


def run(page_descriptor: int, descriptor: int) -> None:
    """The plugin host's main program: `page_descriptor` is the shared page, `descriptor` the socket."""
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    end_with_the_daemon(descriptor)
    page = mmap.mmap(page_descriptor, PAGE_BYTES)
    trio.run(_serve, sock, page)
    if daemon_is_gone(descriptor, wait=False):
        end_group()
