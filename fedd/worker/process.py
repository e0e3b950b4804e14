"""One run in a process of its own: frames from the daemon drive an algorithm, over one socket."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import trio

from fedd.api.algorithm import Algorithm
from fedd.api.errors import FeddError, Stopped
from fedd.api.types import Message
from fedd.core.graph import Graph
from fedd.core.pipe import Frame
from fedd.worker import arrays, prediction
from fedd.worker.context import Context, Outcome, Payload, RunStart, run_algorithm
from fedd.worker.failures import plugin_failure
from fedd.worker.inputs import read_input
from fedd.worker.learner import LearnerSource, learner_source, rng_name
from fedd.worker.orphan import daemon_is_gone, end_group, end_with_the_daemon
from fedd.worker.parameters import build
from fedd.worker.pipe import DaemonGone, Pipe
from fedd.worker.plugins import find_algorithm


async def serve(sock: socket.socket) -> None:
    """Do one run over `sock` and return when its last frame is written."""
    pipe = Pipe(sock)
    try:
        await pipe.send({"kind": "ready"})
        algorithm: Algorithm | None = None
        device = _Device()
        while (frame := await pipe.receive()) is not None:
            header = frame.header
            if header["kind"] == "stop":
                return
            algorithm = algorithm or _algorithm(header)
            if header["kind"] == "start":
                await _run(pipe, algorithm, frame, device)
                return
            if header["kind"] == "predict":
                await _predict(pipe, algorithm, header, device)
                continue
            learner_source(header.get("input"), None)  # its options; its data comes with the start
            await pipe.send({"kind": "checked"})
    except FeddError as error:
        await pipe.send_failure(error)


class _Device:
    """What this device brings to all epochs of a run, read when first asked for: a source may come but once.

    `aggregators` are those that its owner allows.
    """

    def __init__(self) -> None:
        self.data: Message = None
        self.learner: LearnerSource | None = None
        self.aggregators: Mapping[str, str] | None = None
        self._read = False
        self._failure: FeddError | None = None

    def read(self, header: Mapping[str, Any]) -> tuple[Message, LearnerSource | None]:
        """The input and the learner that a message names. Raises the same each time: InvalidMessage, or
        PluginFailed for what is nobody's message, as too little memory."""
        if not self._read:
            self._read = True
            try:
                self.data = read_input(header.get("input"))
                self.learner = learner_source(header.get("input"), self.data)
                self.aggregators = header.get("aggregators")
            except FeddError as error:
                self._failure = error
            except (
                Exception
            ) as error:  # a prediction goes on without, and a run must not take it for no input
                self._failure = plugin_failure(error)
        if self._failure is not None:
            raise self._failure
        return self.data, self.learner


async def _predict(pipe: Pipe, algorithm: Algorithm, header: dict[str, Any], device: _Device) -> None:
    """Answer what the algorithm foresees; raises what it refuses."""
    start = _run_start(header, None)
    said = await prediction.of_algorithm(
        algorithm, start, lambda: device.read(header), header.get("aggregators")
    )
    graph = prediction.of_graph(start.graph) if said or header.get("graph") else {}
    await pipe.send({"kind": "predicted", "prediction": {**graph, **said}})


async def _run(pipe: Pipe, algorithm: Algorithm, frame: Frame, device: _Device) -> None:
    header = frame.header
    device.read(header)
    pipe.state = frame.body[0] if frame.body else None
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.watch, scope)
            await _all_epochs(pipe, algorithm, header, device)
            nursery.cancel_scope.cancel()
    if scope.cancelled_caught:
        await pipe.send_failure(pipe.end or Stopped("the run was stopped"))


async def _all_epochs(pipe: Pipe, algorithm: Algorithm, header: dict[str, Any], device: _Device) -> None:
    """Run the algorithm in each epoch until it fails or no other epoch can come."""
    following: dict[str, Any] | None = header
    while following is not None:
        with trio.CancelScope() as turn:
            pipe.begin_epoch(turn)
            context = Context(
                _run_start(following, pipe.state), pipe, device.data, aggregators=device.aggregators
            )
            try:
                if following is not header:
                    await pipe.enter_epoch(following["entry"])
                outcome = await _to_the_end(pipe, algorithm, context, device.learner)
                if outcome is None:
                    return
                if not pipe.epoch_is_over:
                    await pipe.send_result(outcome)
            except DaemonGone:
                return
        following = await pipe.next_epoch() if following.get("more") else None


async def _to_the_end(
    pipe: Pipe, algorithm: Algorithm, context: Context, source: LearnerSource | None
) -> Outcome | None:
    """Run the algorithm; None when it failed and that was said.

    Inside the nursery, so that no exception comes out as a group.
    """
    try:
        if source is not None:
            pipe.at_work = lambda: True
            lent = await source.lend(context.rng(rng_name(context.epoch)))
            pipe.at_work = lambda: lent.at_work
            context.lend(lent)
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


def _run_start(header: dict[str, Any], state: Payload | None) -> RunStart:
    members = tuple(header["members"])
    return RunStart(
        run_id=header["run_id"],
        me=header["me"],
        graph=Graph.read(members, header),
        epoch=header["epoch"],
        seed=header["seed"],
        quorum=header["quorum"],
        max_payload_bytes=header["max_payload_bytes"],
        round=header.get("base_round", 0),
        restored=state,
        newcomers=tuple(header.get("newcomers") or ()),
        federation=header.get("federation", ""),
        initiator=header.get("initiator", ""),
    )


def run(descriptor: int) -> None:
    """The worker's main program: one run over the socket with this descriptor."""
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    end_with_the_daemon(descriptor)
    trio.run(serve, sock)
    if daemon_is_gone(descriptor, wait=False):
        end_group()
