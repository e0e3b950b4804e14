"""One plugin host process and the calls in it: watched, and the one to blame for its end named."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from fedd.api.errors import FeddError, PluginFailed, ProtocolError, TimedOut, Unhealthy
from fedd.core import codec
from fedd.core.command_events import MAX_EVENTS
from fedd.core.command_messages import encode_error
from fedd.core.pipe import Frame
from fedd.host.command_call import RELOADED, Call, HostTimes, Outside, Page
from fedd.net.alarm import Alarm

if TYPE_CHECKING:
    from fedd.host.worker_process import WorkerProcess

MAX_ASKS = 64
"""Questions of all handlers that are under way."""
_LOOK_S = 0.2
"""How often a process with calls in it is looked at; most are over by then."""


class Session:
    """One plugin host process and the calls in it."""

    def __init__(
        self,
        process: WorkerProcess,
        page: Page,
        outside: Outside,
        times: HostTimes,
        on_end: Callable[[Session, Call | None], None],
    ) -> None:
        self.how = ""
        """How it ended, as the end of a sentence."""
        self._process = process
        self._page = page
        self._outside = outside
        self._times = times
        self._on_end = on_end
        self._calls: dict[int, Call] = {}
        self._asks = 0
        self._ready_at: float | None = None
        self._dead = False
        self._started_at = trio.current_time()
        self._members_due = True
        self._blamed = 0
        self._seen = (0, 0, 0)
        self._seen_at = self._started_at
        self._next_look = Alarm()
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Serve the process to its end. Raises no FeddError."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._watch)
            try:
                how = await self._process.run(self._take)
                self.how = self.how or how
            except FeddError as error:
                self.how = f"made the plugin host send nonsense: {error.detail}"
                for call in self._calls.values():
                    call.begun = True  # that it had may have been said in the nonsense
            finally:
                self._dead = True
                self._settle()
                self._page.close()
            nursery.cancel_scope.cancel()

    def kill(self, blamed: int, how: str) -> None:
        """End the process at once, because of this call (0: because of nobody)."""
        if not self.how:
            self._blamed, self.how = blamed, how
            self._process.kill()

    def members_changed(self) -> None:
        """Tell the handlers at work, if there are any; else the next call will."""
        self._members_due = True
        if self._calls:
            self._tell_members()

    async def serve(self, number: int, call: Call) -> None:
        """Have a call handled; afterwards its answer, error or `lost` is set."""
        if self._dead:
            call.lost = True
            return
        self._calls[number] = call
        call.sent_at = trio.current_time()
        if math.isinf(self._next_look.due):
            self._seen_at = call.sent_at
            self._next_look.set(call.sent_at + _LOOK_S)
        if self._members_due:
            self._tell_members()
        info = call.info
        header = {
            "kind": "call",
            "call": number,
            "plugin": info.plugin,
            "command": info.name,
            "sender": call.sender,
            "only_check": call.only_check,
        }
        self._process.send(header, [call.parameters])
        try:
            await call.began.wait()
            if not call.ended.is_set():  # most answers say both: to wait for what is there takes a turn
                with trio.move_on_after(info.timeout_s):
                    await call.ended.wait()
        finally:
            if not call.ended.is_set():
                call.overdue_since = trio.current_time()
                self._process.send({"kind": "cancel", "call": number})
        if not call.ended.is_set():
            await call.ended.wait()

    def _tell_members(self) -> None:
        self._members_due = False
        members = codec.encode(self._outside.members())
        self._process.send({"kind": "members", "me": self._outside.me}, [members])

    # ---- what the process says -------------------------------------------------------------

    def _take(self, frame: Frame) -> None:
        header, body = frame.header, frame.body
        number = header.get("call")
        call = self._calls.get(number) if isinstance(number, int) else None
        match header.get("kind"):
            case "ready":
                self._ready_at = trio.current_time()
            case "began" if call is not None:
                call.begin()
            case "answer" if call is not None and len(body) == 1:
                call.answer = body[0]
                del self._calls[header["call"]]
                call.end()
            case "event" if call is not None:
                call.events += 1  # the plugin host refuses more, and what comes nevertheless is dropped
                text, fields = header.get("text"), header.get("fields")
                if isinstance(text, str) and isinstance(fields, dict) and call.events <= MAX_EVENTS:
                    self._outside.event(call, text, fields)
            case "ask" if call is not None and len(body) == 1:
                self._answer_later(call, header, body[0])
            case kind if kind not in ("began", "event", "ask", "answer"):
                raise ProtocolError(f"a message {kind!r:.40} of no known kind")

    def _answer_later(self, call: Call, header: Mapping[str, Any], parameters: memoryview) -> None:
        number, peer, command = header.get("ask"), header.get("peer"), header.get("command")
        ask: Callable[[], Awaitable[bytes]]
        if isinstance(what := header.get("runs"), str):
            ask = partial(self._outside.steer, call.sender, what, parameters)
        elif isinstance(peer, str | None) and isinstance(command, str):
            ask = partial(self._outside.ask, peer, command, parameters)
        else:
            raise ProtocolError("a malformed question")
        if not isinstance(number, int):
            raise ProtocolError("a question without a number")
        if self._nursery is not None:
            self._nursery.start_soon(self._answer, call, number, ask)

    async def _answer(self, call: Call, number: int, ask: Callable[[], Awaitable[bytes]]) -> None:
        with trio.CancelScope() as scope:
            call.asks.add(scope)
            self._asks += 1
            try:
                if self._asks > MAX_ASKS:
                    raise Unhealthy(
                        f"handlers here wait for {MAX_ASKS} answers already", hint="try again later"
                    )
                answer = await ask()
            except FeddError as error:
                answer = encode_error(error)
            finally:
                self._asks -= 1
                call.asks.discard(scope)
            self._process.send({"kind": "answer", "ask": number}, [answer])

    # ---- what it does not say --------------------------------------------------------------

    async def _watch(self) -> None:
        """Judge the process as long as it has calls."""
        while True:
            await self._next_look.wait()
            self._next_look.set(trio.current_time() + _LOOK_S if self._calls else math.inf)
            self._judge(trio.current_time())

    def _judge(self, now: float) -> None:
        times = self._times
        if self._ready_at is None:
            if now - self._started_at > times.start_s:
                self.kill(0, f"did not start within {times.start_s:g} s")
            return
        seen = self._page.read()
        at_work, _, importing = seen
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        elif not importing and at_work in self._calls:
            self._calls[at_work].begin()  # it has not come to say so in all this time
        overdue = {n: call for n, call in self._calls.items() if call.overdue_since is not None}
        waiting = [n for n, call in self._calls.items() if not call.begun and n != at_work]
        held_s = now - self._seen_at
        if (
            at_work
            and held_s > (times.import_s if importing else times.block_s)
            and (waiting or overdue or importing)
        ):
            doing = "did not finish to import" if importing else "kept the plugin host to itself"
            self.kill(at_work, f"{doing} for {held_s:.1f} s")
            return
        for number, call in overdue.items():
            if call.overdue_since is not None and now - call.overdue_since > times.grace_s:
                self.kill(number, f"did not end {times.grace_s:g} s after it was cancelled")
                return
        if any(now - max(self._calls[n].sent_at, self._ready_at) > times.start_s for n in waiting):
            self.kill(0, f"began nothing for {times.start_s:g} s")

    def _settle(self) -> None:
        """Name the call to blame, if there is one, and tell every call that is left."""
        at_work = self._blamed or self._page.read()[0]
        blamed = self._calls.get(at_work)
        plugins = {call.info.plugin for call in self._calls.values()}
        if blamed is None and self.how != RELOADED and len(plugins) == 1:
            begun = [call for call in self._calls.values() if call.begun]
            blamed = begun[0] if begun else None
        self._on_end(self, blamed)
        for call in self._calls.values():
            call.error = self._verdict(call, blamed)
            call.lost = call.error is None
            call.end()
        self._calls.clear()

    def _verdict(self, call: Call, blamed: Call | None) -> FeddError | None:
        """What a call that the process did not answer ends with; None when it can go to another process."""
        name = call.info.name
        if call is blamed:
            if call.overdue_since is not None:
                return TimedOut(
                    f"the handler of {name} did not end within {call.info.timeout_s:g} s and was killed",
                    hint=f"it {self.how}",
                )
            return PluginFailed(f"the handler of {name} {self.how}", hint=self._process.last_line)
        if not call.begun:
            return None
        why = f"a handler of the plugin {blamed.info.plugin} {self.how}" if blamed else f"it {self.how}"
        return PluginFailed(
            f"the plugin host ended while {name} was being handled: {why}",
            hint=f"{name} may have been done or not; send it again if that does no harm",
        )
