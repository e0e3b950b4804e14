"""A run's worker as the run sees it: its messages checked, its silence judged, its rounds paced.

A worker is waited for without end only as long as it goes on: silence while it has the ball ends this
node's part (`stall_timeout_s`), and nobody else's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import trio

from fedd.api.errors import FeddError, PluginFailed, ProtocolError
from fedd.api.types import PeerId
from fedd.core.history import Row, read_rows
from fedd.core.pieces import Arrived, Payload
from fedd.core.pipe import Frame
from fedd.host.run_limits import RunLimits
from fedd.host.worker_process import WorkerProcess

_ROUNDS_REMEMBERED = 33
"""For the median that a stall is measured by: enough to forget one odd round."""


class WorkerOwner(Protocol):
    """The run's node, as its worker sees it. All methods may raise FeddError: the worker is then killed."""

    def on_exchange(self, number: int, tag: str, payloads: Mapping[PeerId, Payload]) -> None:
        """The algorithm begins an exchange."""
        ...

    def on_report(self, metrics: Mapping[str, Any], rows: Sequence[Row]) -> None:
        """The algorithm reports: the newest of each metric, and all of them by round."""
        ...

    def on_mail(self, header: Mapping[str, Any], body: list[memoryview]) -> None:
        """The algorithm sends or has read messages outside the exchanges."""
        ...

    def on_cut(self, peer: PeerId, reason: str) -> None:
        """The algorithm cannot use what this neighbour sent."""
        ...

    def on_sign(self, data: Payload) -> None:
        """The algorithm wants this node's signature; the answer goes by `deliver_aside`."""
        ...

    def on_checkpoint(self, state: Payload) -> None:
        """The algorithm wants this state kept on disk; `saved` is to be called when it is."""
        ...

    def on_result(self, header: Mapping[str, Any], payload: Payload) -> None:
        """The algorithm returned."""
        ...

    def on_failed(self, code: str, detail: str, hint: str) -> None:
        """The algorithm failed, its process ended, or it is silent for too long."""
        ...

    def on_worker_gone(self) -> None:
        """The process is no more; called once, last."""
        ...


class WorkerSeat:
    """Where one run's worker sits. Rounds go in by `deliver`, its messages come out to the owner."""

    def __init__(
        self, owner: WorkerOwner, limits: RunLimits, pace_s: float, clock: Callable[[], float]
    ) -> None:
        self._owner = owner
        self._limits = limits
        self._pace_s = pace_s
        self._clock = clock
        self._process: WorkerProcess | None = None
        self._starting = trio.CancelScope()
        self._ended = trio.Event()
        self._started = self._serving = False
        self._busy_since: float | None = clock()
        self._heard_at = clock()
        self._began_at = clock()
        self._step_times: deque[float] = deque(maxlen=_ROUNDS_REMEMBERED)
        self._held: tuple[float, dict[str, Any], Sequence[Arrived]] | None = None
        self._held_news = trio.Event()
        self._early: list[tuple[dict[str, Any], list[Payload]]] | None = []
        """What came for the worker before its start message went out; None afterwards."""
        self._aside = 0
        """Frames that went to the worker outside the rounds."""
        self._waits_for_mail = False
        self._epoch: Mapping[str, Any] | None = None
        """How the present epoch begins, when it is not the first that this worker sees."""
        self._entries = 0
        self._awaited_entry: int | None = None
        """Until the worker says that it has entered so many epochs, what it sends is of an earlier one."""

    async def run(
        self,
        get_worker: Callable[[], Awaitable[tuple[WorkerProcess, Mapping[str, Any]]]],
        start: Mapping[str, Any],
        state: Payload | None = None,
    ) -> None:
        """Start the worker, with the state of an earlier one, and serve it. Raises no FeddError."""
        try:
            with self._starting:
                self._process, more = await get_worker()
            if self._process is not None:
                await self._serve(self._process, {**start, **(self._epoch or {}), **more}, state)
        except FeddError as error:
            self._owner.on_failed(error.code, error.detail, error.hint)
        finally:
            self._ended.set()
            self._owner.on_worker_gone()

    async def _serve(self, process: WorkerProcess, start: dict[str, Any], state: Payload | None) -> None:
        process.send(start, [] if state is None else [state])
        self._serving = True
        self._turn()
        self._deliver_early()
        how = ""
        failure: FeddError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._kill_after_the_end, process)
            if self._pace_s:
                nursery.start_soon(self._deliver_paced)
            try:
                how = await process.run(self._on_frame)
            except FeddError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if not self._ended.is_set():
            raise PluginFailed(f"its worker process {how} in the middle of the run", hint=process.last_line)

    def _deliver_early(self) -> None:
        early, self._early = self._early or [], None
        for header_and_body in early:
            self.deliver_aside(*header_and_body)

    def begin_epoch(self, start: Mapping[str, Any]) -> None:
        """The run goes on in another epoch; `start` is what is new in the worker's start message."""
        self._epoch = start
        self._held = None
        self._early = []
        if self._serving and self._process is not None and not self._ended.is_set():
            self._entries += 1
            self._awaited_entry = self._entries
            self._process.send({**start, "kind": "epoch", "entry": self._entries})
            self._turn()

    def saved(self) -> None:
        """The last checkpoint is on disk, or cannot be written: the worker may send the next."""
        if self._process is not None:
            self._process.send({"kind": "saved"})

    async def _kill_after_the_end(self, process: WorkerProcess) -> None:
        await self._ended.wait()
        await trio.sleep(self._limits.grace_s)
        process.kill()

    async def _deliver_paced(self) -> None:
        while True:
            await self._held_news.wait()
            self._held_news = trio.Event()
            held = self._held
            if held is not None:
                at, header, body = held
                await trio.sleep_until(at)
                if self._held is held:  # and not of an epoch that is over
                    self._held = None
                    self._deliver_now(header, body)

    def deliver(self, header: dict[str, Any], body: Sequence[Arrived]) -> None:
        """Give the worker its completed round, not before the run's pace allows."""
        if self._pace_s:
            self._held = (self._began_at + self._pace_s, header, body)
            self._held_news.set()
        else:
            self._deliver_now(header, body)

    def deliver_aside(self, header: dict[str, Any], body: list[Payload]) -> None:
        """Give the worker a message from outside the rounds, now or as soon as it was started."""
        if self._early is not None:
            self._early.append((header, body))
        elif self._process is not None and not self._ended.is_set():
            self._aside += 1
            if self._waits_for_mail:
                self._turn()
            self._process.send(header, body)

    @property
    def waits(self) -> bool:
        """Whether the worker waits for others."""
        return self._busy_since is None

    def end(self, stop_reason: str) -> None:
        """The run has ended here. A worker that did not return itself is told why, then killed."""
        self._ended.set()
        self._starting.cancel()
        self._busy_since = None
        if self._process is not None and stop_reason:
            self._process.send({"kind": "stop", "reason": stop_reason})

    def forgive(self, paused_s: float) -> None:
        """The daemon itself was paused for so long, and the worker probably with it."""
        self._heard_at += paused_s
        if self._busy_since is not None:
            self._busy_since += paused_s

    def check_stall(self) -> None:
        """Fail the run on this node when its worker has been silent for too long."""
        if self._busy_since is None:
            return
        limits = self._limits
        times = sorted(self._step_times)
        typical = times[len(times) // 2] if times else 0.0
        limit = max(limits.stall_timeout_s, limits.stall_factor * typical)
        if not self._started:
            limit = max(limit, limits.startup_timeout_s)
        now = self._clock()
        # a report is a sign of life, but no worker reports its way through more than so many limits
        if now - self._heard_at > limit or now - self._busy_since > limit * limits.stall_factor:
            self._owner.on_failed(
                PluginFailed.code,
                f"stall: the algorithm did not go on for {limit:g} s",
                "raise stall_timeout_s in [limits] if its steps take that long",
            )

    def _deliver_now(self, header: dict[str, Any], body: Sequence[Arrived]) -> None:
        self._turn()
        if self._process is not None:
            self._process.send(header, body)

    def _turn(self) -> None:
        """It is the worker's turn."""
        self._waits_for_mail = False
        self._busy_since = self._heard_at = self._clock()

    def _on_frame(self, frame: Frame) -> None:
        if self._ended.is_set():
            return
        header = frame.header
        kind = header.get("kind")
        if self._awaited_entry is not None and kind not in ("report", "checkpoint", "failed"):
            if kind == "epoch" and header.get("entry") == self._awaited_entry:
                self._awaited_entry = None
                self._aside = 0
                self._turn()
                self._deliver_early()
            return
        match kind:
            case "exchange":
                self._on_exchange(header, frame.body)
            case "report":
                metrics = header.get("metrics")
                self._heard_at = self._clock()
                rows = read_rows(frame.body[0]) if frame.body else []
                self._owner.on_report(metrics if isinstance(metrics, dict) else {}, rows)
            case "mail" | "read" | "listen":
                self._started = True
                self._owner.on_mail(header, frame.body)
            case "wait":
                self._on_wait(header.get("seen"))
            case "cut":
                self._owner.on_cut(str(header.get("peer")), str(header.get("reason")))
            case "sign" if len(frame.body) == 1:
                self._owner.on_sign(frame.body[0])
            case "checkpoint" if len(frame.body) == 1:
                self._owner.on_checkpoint(frame.body[0])
            case "result" if len(frame.body) == 1:
                self._busy_since = None
                self._owner.on_result(header, frame.body[0])
            case "failed":
                code, detail, hint = (str(header.get(key) or "")[:1000] for key in ("code", "detail", "hint"))
                self._owner.on_failed(code or PluginFailed.code, detail or "the algorithm failed", hint)
            case "ready":
                self._heard_at = self._clock()
            case _:
                raise ProtocolError(f"its worker sent a malformed message {kind!r:.40}")

    def _on_wait(self, seen: object) -> None:
        """The algorithm waits for a message outside the rounds; not if one is on its way to it already."""
        self._started = True
        if seen != self._aside:
            return
        if self._busy_since is not None:
            self._step_times.append(self._clock() - self._busy_since)
        self._busy_since = None
        self._waits_for_mail = True

    def _on_exchange(self, header: Mapping[str, Any], body: list[memoryview]) -> None:
        number, to, tag = header.get("round"), header.get("to"), header.get("tag")
        if not (isinstance(number, int) and isinstance(to, list) and isinstance(tag, str)):
            raise ProtocolError("its worker sent a malformed exchange")
        messages = body * len(to) if header.get("same") else body
        if len(messages) != len(to):
            raise ProtocolError(f"its worker sent {len(body)} messages for {len(to)} neighbours")
        self._started = True
        now = self._began_at = self._clock()
        if self._busy_since is not None:
            self._step_times.append(now - self._busy_since)
        self._busy_since = None
        self._owner.on_exchange(number, tag, dict(zip(to, messages, strict=True)))
