"""Whole nodes in one trio run on virtual time: real links, presence, runs; workers played by coroutines."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
from stores import MemoryStore
from waiting import until

from fedd.api.errors import FeddError, InvalidParameter, TimedOut
from fedd.core.certificates import ADMIN, MEMBER, federation_id, issue_certificate, make_chain
from fedd.core.codec import encode
from fedd.core.graph import Graph
from fedd.core.identity import PrivateKey
from fedd.core.mail import Item, MailKind
from fedd.core.pipe import Frame
from fedd.host.inputs import Inputs
from fedd.host.plugins import PluginRegistry
from fedd.host.policy import Policy
from fedd.host.run_limits import RunLimits
from fedd.host.run_proposer import RunRequest
from fedd.host.runs import Runs
from fedd.net.events import EventLog
from fedd.net.federation import FederationIdentity
from fedd.net.memory import MemoryNetwork
from fedd.net.presence import Presence
from fedd.net.relay import Relay
from fedd.net.swarm import Swarm
from fedd.worker.context import Context, Round, RunStart, run_algorithm
from fedd.worker.signing import is_signed_by

ROOT = PrivateKey.from_seed(b"R" * 32)


def parameter(name: str, kind: str, default: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "default": default, "help": f"the {name}", "choices": None, **more}


def document(*names: str, distribution: str = "fedd", version: str = "0.1.0") -> bytes:
    """What an inspector says of one plugin with these algorithms."""
    parameters = [parameter("iterations", "int", 100), parameter("tolerance", "float", 1e-12)]
    algorithms = [{"name": name, "doc": f"{name}.", "parameters": parameters} for name in names]
    plugin = {"name": "plugin", "value": "x", "distribution": distribution, "version": version, "error": None,
              "algorithms": algorithms}  # fmt: skip
    return json.dumps({"format": 1, "plugins": [plugin]}).encode()


class Crash(Exception):
    """The played worker's process ends in the middle."""


Script = Callable[["PlayedWorker", dict[str, Any]], Awaitable[None]]


class PlayedWorker:
    """A WorkerProcess whose other end is a coroutine, `script(worker, start message)`."""

    def __init__(self, script: Script) -> None:
        self.last_line = ""
        self.stops: list[str] = []
        self.rounds: list[dict[str, Any]] = []
        self.aside = 0
        self.signatures: list[bytes] = []
        self.state: bytes | None = None
        """The checkpoint that the start message brought."""
        self._script = script
        self._send, self._inbox = trio.open_memory_channel[Frame](1000)
        self._on_frame: Callable[[Frame], None] | None = None
        self._scope = trio.CancelScope()

    # what the daemon calls

    def send(self, header: dict[str, Any], body: Any = ()) -> None:
        if header["kind"] == "stop":
            self.stops.append(header["reason"])
        if header["kind"] == "round":
            self.rounds.append(header)
        self._send.send_nowait(Frame(header, [memoryview(part) for part in body]))

    async def run(self, on_frame: Callable[[Frame], None]) -> str:
        self._on_frame = on_frame
        with self._scope:
            try:
                start = await self._inbox.receive()
                self.state = bytes(start.body[0]) if start.body else None
                self.emit({"kind": "ready"})
                await self._script(self, start.header)
            except Crash:
                return "was killed by SIGSEGV"
            return "ended with status 0"
        return "was killed by SIGKILL"

    def kill(self) -> None:
        self._scope.cancel()

    async def aclose(self) -> None:
        self.kill()

    # what the script calls

    def emit(self, header: dict[str, Any], body: list[bytes] | None = None) -> None:
        assert self._on_frame is not None
        self._on_frame(Frame(header, [memoryview(part) for part in body or []]))

    async def hear(self) -> Frame:
        return await self._inbox.receive()

    async def exchange(self, tag: str, payloads: Mapping[str, bytes | memoryview]) -> Round:
        """The worker's port, as `fedd.worker.port.Port` wants it."""
        self.emit(
            {"kind": "exchange", "round": len(self.rounds), "tag": tag, "to": list(payloads), "same": False},
            [bytes(payload) for payload in payloads.values()],
        )
        while (frame := await self._heard()).header["kind"] != "round":
            pass
        header = frame.header
        return Round(
            dict(zip(header["from"], frame.body, strict=True)),
            dict(header["gone"]),
            cut=tuple(header.get("cut", ())),
            finished=tuple(header.get("finished", ())),
            other_tags=header.get("tags", {}),
        )

    async def _heard(self) -> Frame:
        """The next frame; what comes outside the rounds has gone to the sink."""
        frame = await self.hear()
        header = frame.header
        match header["kind"]:
            case "stop":
                raise FeddError(header["reason"])
            case "mail":
                item = Item(MailKind(header["what"]), header["ref"], header["tag"], frame.body[0])
                self.sink.on_mail(header["from"], item)
            case "room":
                self.sink.on_room(header["to"], header["count"], header["bytes"])
            case "left":
                self.sink.on_left(header["peer"], header["reason"], header["how"])
            case "signature":
                self.signatures.append(bytes(frame.body[0]))
        self.aside += header["kind"] in ("mail", "room", "left", "signature")
        return frame

    def attach(self, sink: Any) -> None:
        self.sink = sink

    async def listen(self) -> None:
        self.emit({"kind": "listen"})

    async def post(self, peer: str, item: Item) -> None:
        self.answer(peer, item)

    def answer(self, peer: str, item: Item) -> None:
        header = {"kind": "mail", "to": peer, "what": int(item.kind), "ref": item.ref, "tag": item.tag}
        self.emit(header, [bytes(item.payload)])

    def read(self, peer: str, letters: int, size: int) -> None:
        self.emit({"kind": "read", "from": peer, "letters": letters, "bytes": size})

    async def wait(self, ready: Callable[[], bool]) -> None:
        while not ready():
            self.emit({"kind": "wait", "seen": self.aside})
            await self._heard()

    async def sign(self, data: bytes) -> bytes:
        self.emit({"kind": "sign"}, [data])
        while not self.signatures:
            await self._heard()
        return self.signatures.pop(0)

    def verify(self, peer: str, signed: bytes, signature: bytes) -> bool:
        return is_signed_by(peer, signed, signature)

    def report(self, metrics: Mapping[str, Any]) -> None:
        self.emit({"kind": "report", "metrics": dict(metrics)})


def context(worker: PlayedWorker, start: dict[str, Any]) -> Context:
    members = tuple(start["members"])
    graph = Graph(members, frozenset((members[a], members[b]) for a, b in start["edges"]))
    begin = RunStart(start["run_id"], start["me"], graph, start["epoch"], start["seed"], start["quorum"],
                     start["max_payload_bytes"], federation=start.get("federation", ""))  # fmt: skip
    return Context(begin, worker, start["input"].get("value"))


async def finish(worker: PlayedWorker, ctx: Context, value: Any) -> None:
    outcome = ctx.outcome(value)
    header = {"kind": "result", "contributors": list(outcome.contributors), "residual": outcome.residual,
              "rounds": outcome.rounds, "agreed": outcome.agreed}  # fmt: skip
    worker.emit(header, [encode(value)])


class Mean:
    """The exact mean over the survivors, by the ledger."""

    async def run(self, ctx: Context) -> Any:
        agreement = await ctx.ledger(ctx.input).agree(tolerance=1e-12, iterations=500)
        return float(agreement.value)


async def mean(worker: PlayedWorker, start: dict[str, Any]) -> None:
    await play(worker, start, Mean())


async def play(worker: PlayedWorker, start: dict[str, Any], algorithm: Any) -> None:
    """Run an algorithm as the real worker does."""
    ctx = context(worker, start)
    try:
        outcome = await run_algorithm(algorithm, ctx)
    except FeddError as error:
        worker.emit({"kind": "failed", "code": error.code, "detail": error.detail, "hint": error.hint})
    else:
        await finish(worker, ctx, outcome.value)


def rounds_of(count: int) -> Script:
    """An algorithm of `count` exchanges of its round number; its value is [sorted senders] of each round."""

    async def script(worker: PlayedWorker, start: dict[str, Any]) -> None:
        class Counting:
            async def run(self, ctx: Context) -> Any:
                heard = []
                for number in range(count):
                    answers = await ctx.exchange(number)
                    assert set(answers.values()) <= {number}
                    heard.append(len(answers))
                return heard

        await play(worker, start, Counting())

    return script


@dataclass
class PlayedSeat:
    process: PlayedWorker
    input: dict[str, Any]

    def start_fields(self, proposal: Any) -> dict[str, Any]:
        return {"algorithm": proposal.algorithm, "input": self.input}

    async def check(self, proposal: Any) -> None:
        if proposal.parameters["iterations"] == 0:
            raise InvalidParameter("iterations must be at least 1, not 0", field="iterations")

    async def predict(
        self, proposal: Any, members: Sequence[str], payload_bytes: int, *, graph: bool
    ) -> dict[str, Any]:
        match proposal.parameters["iterations"]:
            case 13:
                raise InvalidParameter("13 iterations bring no luck", field="iterations")
            case 14:
                raise TimedOut("not ready in 30 s")
            case 15:
                return {"step_bound": 0.5, "members": len(members), "graph": graph}
        return {}

    async def aclose(self) -> None:
        await self.process.aclose()


@dataclass
class PlayedWorkers:
    """Where a node's runs get their workers: `script` plays the next ones."""

    inputs: Inputs
    script: Script = mean
    made: list[PlayedWorker] = field(default_factory=list)

    async def prepare(self, proposal: Any) -> PlayedSeat:
        described: dict[str, Any] = {"kind": "none"}
        if proposal.input:
            handle = await self.inputs.open(proposal.input)
            described = handle.description
        worker = PlayedWorker(self.script)
        self.made.append(worker)
        return PlayedSeat(worker, described)


class Node:
    """One device with everything but a control socket."""

    def __init__(self, number: int, network: MemoryNetwork, federation: str, limits: RunLimits) -> None:
        self.number = number
        self.name = f"n{number}"
        self.network = network
        self.federation = federation
        self.limits = limits
        self.key = PrivateKey.from_seed(bytes([number + 1]) * 32)
        self.store = MemoryStore()
        self.document = document("mean")
        self.script: Script = mean
        self.policy = Policy()
        self.inputs = Inputs({"x": {"value": float(number * number)}}, self.store)
        self.scope: trio.CancelScope | None = None
        self.listen = f"/memory/{number + 1}"

    @property
    def id(self) -> str:
        return self.key.peer_id

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        self.is_down = False
        try:
            await self._run(task_status)
        finally:
            self.is_down = True

    async def _run(self, task_status: Any) -> None:
        with trio.CancelScope() as self.scope:
            async with trio.open_nursery() as nursery:
                self.swarm = Swarm(self.key, network=self.network)
                self.presence = Presence(
                    self.swarm, self.key, self.store, name=self.name, rng=random.Random(self.number)
                )
                self.relay = Relay(self.swarm, self.presence)
                self.registry = PluginRegistry(self.policy, self._inspect)
                self.workers = PlayedWorkers(self.inputs, self.script)
                self.events = EventLog()
                self.runs = Runs(
                    self.swarm, self.presence, self.relay, self.registry, self.inputs, self.key, self.store,
                    "/nowhere", policy=self.policy, limits=self.limits, events=self.events,
                    workers=self.workers, write=at_once,
                )  # fmt: skip
                await nursery.start(self.swarm.run)
                if self.listen:
                    await self.swarm.listen(self.listen)
                self.enter()
                await nursery.start(self.presence.run)
                await nursery.start(self.relay.run)
                await nursery.start(self.runs.run)
                await self.registry.load()
                task_status.started()
                await trio.sleep_forever()

    async def _inspect(self) -> bytes:
        return self.document

    def enter(self) -> None:
        certificate = issue_certificate(
            ROOT,
            federation=self.federation,
            name="plant",
            peer_id=self.id,
            serial=self.number,
            roles=(MEMBER, ADMIN),
        )
        chain = make_chain(certificate)
        self.presence.enter(FederationIdentity("plant", self.federation, ROOT.public_key, chain, True))

    def kill(self) -> None:
        """End everything at once, as the kernel ends a process."""
        assert self.scope is not None
        self.scope.cancel()

    @property
    def links(self) -> list[Any]:
        return [connection.wire for connection in self.swarm.connections.values()]

    def link_to(self, other: Node) -> Any:
        return self.swarm.connections[other.id].wire

    async def result(self, run_id: str, within_s: float = 120.0) -> dict[str, Any]:
        """The result on this node, once it has one."""
        await until(lambda: run_id in {run["run_id"] for run in self.runs.summaries()}, within_s)
        with trio.fail_after(within_s):
            async for item in self.runs.watch(run_id):
                last = item
        assert last["kind"] == "result"
        return last

    def round_of(self, run_id: str) -> int:
        return int(self.runs.get(run_id)["rounds"])


async def at_once(write: Callable[[], str]) -> str:
    """Without a thread: virtual time would run on while it works."""
    return write()


@asynccontextmanager
async def world(
    count: int,
    limits: RunLimits | None = None,
    prepare: Callable[[list[Node]], None] | None = None,
    undialable: int = 0,
) -> AsyncIterator[list[Node]]:
    """`count` nodes of one federation, all linked with all but the last ones, which listen nowhere."""
    network = MemoryNetwork(0.002)
    federation = federation_id(ROOT.public_key)
    nodes = [Node(number, network, federation, limits or RunLimits()) for number in range(count)]
    dialable = count - undialable
    for node in nodes[dialable:]:
        node.listen = ""
    if prepare is not None:
        prepare(nodes)
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.run)
        for node in nodes:
            for other in nodes[: min(node.number, dialable)]:
                node.presence.pin(other.id, [other.swarm.addresses[0]])
        everybody = {node.id for node in nodes}
        await until(
            lambda: all(
                everybody == {member.peer_id for member in node.presence.members() if member.state == "alive"}
                and len(node.swarm.connections) == (count - 1 if node.number < dialable else dialable)
                for node in nodes
            )
        )
        yield nodes
        nursery.cancel_scope.cancel()


def request(**more: Any) -> RunRequest:
    fields: dict[str, Any] = {"algorithm": "mean", "parameters": {}, "input": "x"}
    return RunRequest(**{**fields, **more})


async def silence_until_dead(nodes: list[Node], index: int) -> None:
    """Hold back all that one node says and hears until all others call it dead, then let it through."""
    wires = nodes[index].links
    for wire in wires:
        wire.hold()
    others = [node for node in nodes if node is not nodes[index]]
    await until(lambda: all(node.presence.state_of(nodes[index].id) == "dead" for node in others))
    for wire in wires:
        wire.release()
