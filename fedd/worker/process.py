"""One run in a process of its own: frames from the daemon drive an algorithm, over one socket."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trio

from fedd.api.algorithm import Algorithm
from fedd.api.errors import Dropped, FeddError, ProtocolError, QuorumLost, Stopped
from fedd.core.graph import Graph
from fedd.core.pipe import Frame, PipeDecoder, encode_frame
from fedd.worker import arrays
from fedd.worker.context import Context, Outcome, Round, RunStart, run_algorithm
from fedd.worker.failures import plugin_failure
from fedd.worker.inputs import read_input
from fedd.worker.learner import LearnerSource, learner_source, rng_name
from fedd.worker.metrics import Metric
from fedd.worker.orphan import daemon_is_gone, end_group, end_with_the_daemon
from fedd.worker.parameters import build
from fedd.worker.plugins import find_algorithm
from fedd.worker.reports import Reports

if TYPE_CHECKING:
    from fedd.worker.context import Payload

MAX_FRAME_BYTES = 1 << 30
"""A round of 16 neighbours with 64 MiB each; the daemon has checked every payload before."""
REPORT_INTERVAL_S = 0.1
"""Metrics are shown to people."""
STOP_GRACE_S = 2.0
"""An algorithm that awaits something else than an exchange is cancelled this long after a stop."""
LOOK_S = 0.25
"""How often a stop is looked for while an algorithm is not in an exchange."""
_JOIN_BYTES = 64 * 1024
_RECEIVE_BYTES = 256 * 1024


class _DaemonGone(Stopped):
    """The other end of the socket is closed."""

    def __init__(self) -> None:
        super().__init__("the daemon is gone")


class Pipe:
    """The socket to the daemon: frames out, frames in, and the port of the run's context."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decoder = PipeDecoder(MAX_FRAME_BYTES)
        self._frames: list[Frame] = []
        self._round = 0
        self._exchanging = False
        self._scope: trio.CancelScope | None = None
        self._completed: Round | None = None
        self._end: FeddError | None = None
        self._reports = Reports()
        self._reported_at = -REPORT_INTERVAL_S

    async def send(self, header: dict[str, Any], body: list[Payload] | None = None) -> None:
        """Write one frame, before it the metrics that are due."""
        buffers = encode_frame(header, body or ())
        now = trio.current_time()
        if self._reports and now - self._reported_at >= REPORT_INTERVAL_S:
            self._reported_at = now
            buffers[:0] = self._reports.take()
        if sum(map(len, buffers)) <= _JOIN_BYTES:
            buffers = [b"".join(buffers)]
        for buffer in buffers:
            await self._write(memoryview(buffer))

    async def _write(self, left: memoryview) -> None:
        """Write at once if there is room: trio's own streams pass through the scheduler for every call."""
        while left:
            try:
                left = left[self._sock.send(left) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock.fileno())
            except OSError:
                raise _DaemonGone from None

    async def receive(self) -> Frame | None:
        """The next frame, None when the daemon has closed the socket."""
        while not self._frames:
            await trio.lowlevel.wait_readable(self._sock.fileno())
            try:
                data = self._sock.recv(_RECEIVE_BYTES)
            except OSError:
                return None
            if not data:
                return None
            self._frames = self._decoder.receive_data(data)
        return self._frames.pop(0)

    async def watch(self, scope: trio.CancelScope) -> None:
        """Take the daemon's frames while the algorithm is between exchanges; cancel `scope` at their end.

        In an exchange the algorithm's own task reads: another one would cost each round a switch of tasks.
        """
        self._scope = scope
        frames, self._frames = self._frames, []
        for frame in frames:
            self._take(frame)
        while not isinstance(self._end, _DaemonGone | ProtocolError):
            await trio.sleep(LOOK_S)
            if not self._exchanging:
                self._read_now()
        scope.cancel()

    def _read_now(self) -> None:
        """Take what is there, if anything is."""
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            for frame in self._decoder.receive_data(data):
                self._take(frame)
        except ProtocolError as error:
            self._end = error
        if not data:
            self._end = self._end or _DaemonGone()

    def _take(self, frame: Frame) -> None:
        header = frame.header
        if header["kind"] == "round":
            self._completed = self._read_round(frame)
        elif header["kind"] == "stop":
            self._end = self._end or _end(str(header.get("reason") or "stopped"))
            if self._scope is not None:
                self._scope.deadline = trio.current_time() + STOP_GRACE_S

    async def exchange(self, tag: str, payloads: Mapping[Any, Payload]) -> Round:
        """Hand one payload for each neighbour to the daemon, wait for the completed round."""
        if self._end is not None:  # whatever has arrived since is of no use
            raise self._end
        body = list(payloads.values())
        same = len(body) > 1 and all(payload is body[0] for payload in body)
        header = {"kind": "exchange", "round": self._round, "tag": tag, "to": [*payloads], "same": same}
        await self.send(header, body[:1] if same else body)
        self._exchanging = True
        try:
            while self._completed is None:
                if self._end is not None:
                    raise self._end
                await trio.lowlevel.wait_readable(self._sock.fileno())
                self._read_now()
        finally:
            self._exchanging = False
        completed, self._completed = self._completed, None
        self._round += 1
        return completed

    def report(self, metrics: Mapping[str, Metric]) -> None:
        """Keep the metrics for the next frame."""
        self._reports.note(self._round, metrics)

    async def send_result(self, outcome: Outcome) -> None:
        """The last frame of a run that ended well."""
        value = arrays.encode(outcome.value)
        header = {
            "kind": "result",
            "contributors": list(outcome.contributors),
            "residual": outcome.residual,
            "rounds": outcome.rounds,
            "agreed": outcome.agreed,
        }
        self._reported_at = -REPORT_INTERVAL_S
        await self.send(header, [value])

    async def send_failure(self, error: FeddError) -> None:
        """The last frame of a run that did not; a daemon that is gone misses nothing."""
        header = {
            "kind": "failed",
            "code": error.code,
            "detail": error.detail[:4000],
            "hint": error.hint[:4000],
        }
        if error.field:
            header["field"] = error.field
        self._reported_at = -REPORT_INTERVAL_S
        with contextlib.suppress(_DaemonGone):
            await self.send(header)

    def _read_round(self, frame: Frame) -> Round:
        header = frame.header
        if header["round"] != self._round:
            raise ProtocolError(f"the daemon completed round {header['round']}, this is {self._round}")
        return Round(
            messages=dict(zip(header["from"], frame.body, strict=True)),
            gone=dict(header.get("gone") or ()),
            cut=tuple(header.get("cut") or ()),
            finished=tuple(header.get("finished") or ()),
            other_tags=header.get("tags") or {},
        )


def _end(reason: str) -> FeddError:
    """What a stopped algorithm's exchange raises."""
    if reason.startswith("dropped"):
        return Dropped(
            "the other members declared this node dead and went on without it",
            hint="its link was silent for too long; start the run again when the link is stable",
        )
    if reason.startswith("quorum"):
        return QuorumLost(reason)
    return Stopped("the run was stopped" if reason == "stopped" else f"the run was stopped: {reason}")


async def serve(sock: socket.socket) -> None:
    """Do one run over `sock` and return when its last frame is written."""
    pipe = Pipe(sock)
    try:
        await pipe.send({"kind": "ready"})
        algorithm: Algorithm | None = None
        while (frame := await pipe.receive()) is not None:
            header = frame.header
            if header["kind"] == "stop":
                return
            algorithm = algorithm or _algorithm(header)
            if header["kind"] == "start":
                await _run(pipe, algorithm, header)
                return
            await pipe.send({"kind": "checked"})
    except FeddError as error:
        await pipe.send_failure(error)


async def _run(pipe: Pipe, algorithm: Algorithm, header: dict[str, Any]) -> None:
    start = _run_start(header)
    data = read_input(header.get("input"))
    source = learner_source(header.get("input"), data)
    context = Context(start, pipe, data)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.watch, scope)
            outcome = await _to_the_end(pipe, algorithm, context, source)
            nursery.cancel_scope.cancel()
    if scope.cancelled_caught:
        await pipe.send_failure(pipe._end or Stopped("the run was stopped"))
    elif outcome is not None:
        await pipe.send_result(outcome)


async def _to_the_end(
    pipe: Pipe, algorithm: Algorithm, context: Context, source: LearnerSource | None
) -> Outcome | None:
    """Run the algorithm; None when it failed and that was said.

    Inside the nursery, so that no exception comes out as a group.
    """
    try:
        if source is not None:
            context.lend(await source.lend(context.rng(rng_name(context.epoch))))
        outcome = await run_algorithm(algorithm, context)
        arrays.encode(outcome.value)
    except FeddError as error:
        await pipe.send_failure(error)
    except (SystemExit, KeyboardInterrupt) as error:
        await pipe.send_failure(plugin_failure(error))
    else:
        return outcome
    return None


def _algorithm(header: dict[str, Any]) -> Algorithm:
    """Import the plugin and build the algorithm. Raises FeddError whatever the plugin does."""
    try:
        return build(find_algorithm(header["plugin"], header["algorithm"]), header.get("parameters") or {})
    except FeddError:
        raise
    except (Exception, SystemExit) as error:
        raise plugin_failure(error) from error


def _run_start(header: dict[str, Any]) -> RunStart:
    members = tuple(header["members"])
    return RunStart(
        run_id=header["run_id"],
        me=header["me"],
        graph=Graph.read(members, header),
        epoch=header["epoch"],
        seed=header["seed"],
        quorum=header["quorum"],
        max_payload_bytes=header["max_payload_bytes"],
    )


def run(descriptor: int) -> None:
    """The worker's main program: one run over the socket with this descriptor."""
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    end_with_the_daemon(descriptor)
    trio.run(serve, sock)
    if daemon_is_gone(descriptor, wait=False):
        end_group()
