"""Members that run an algorithm together, over a simulated network on virtual time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

import trio
import trio.testing

from fedd.api.algorithm import Algorithm
from fedd.api.errors import FeddError, InvalidParameter, TimedOut
from fedd.api.types import Message, PeerId
from fedd.core import topology as graphs
from fedd.core.graph import Graph
from fedd.core.rounds import Action, Completed, Payload, Rounds, Send
from fedd.testing.learners import Input, data_of, lend
from fedd.worker import arrays
from fedd.worker.context import Context, Round, RunStart, run_algorithm

Reach: TypeAlias = Literal["none", "one", "some", "all"] | Sequence[int]
"""Which neighbours a dying node's last message reaches: by word (the first, every second) or by index."""


@dataclass(frozen=True)
class Kill:
    """Node number `node` dies when it sends the message of exchange `round` (counted from 0)."""

    node: int
    round: int
    reaches: Reach = "none"


@dataclass(frozen=True)
class DroppedPeer:
    """A member that left the run before its end, as one node saw it."""

    peer_id: PeerId
    round: int
    reason: str


@dataclass(frozen=True)
class NodeResult:
    """How the run ended on one node. `error` is None where it ended well; a killed node has one too."""

    node: int
    peer_id: PeerId
    value: Message
    contributors: tuple[PeerId, ...]
    dropped: tuple[DroppedPeer, ...]
    rounds: int
    residual: float | None
    agreed: bool
    error: FeddError | None
    killed: bool
    metrics: Mapping[str, float | int | str | bool]


@dataclass(frozen=True)
class Federation:
    """Members, the graph between them, and what goes wrong.

    `nodes` is a number (peer ids are then node-00, node-01, ...) or sorted peer ids. `topology` is a name
    as for `fedctl run`, a Graph, edges as pairs of indices, or None for the default. `latency_s` is one
    number or a range to draw from, `loss` the probability that a message needs another `retransmit_s`.
    Death is noticed after `detection_s` to 1.5 times that, by each neighbour at its own time. `quorum` is a
    majority when None. A node still running after `deadline_s` of virtual time ends with TimedOut.

    Raises InvalidParameter for values that make no sense.
    """

    nodes: int | Sequence[PeerId]
    topology: str | Graph | Sequence[tuple[int, int]] | None = None
    seed: int = 0
    latency_s: float | tuple[float, float] = 0.001
    loss: float = 0.0
    kills: Sequence[Kill] = ()
    detection_s: float = 3.0
    retransmit_s: float = 0.2
    quorum: int | None = None
    max_payload_bytes: int = 16 * 1024 * 1024  # as a daemon's [limits] without configuration
    deadline_s: float = 86400.0
    graph: Graph = field(init=False, repr=False)

    def __post_init__(self) -> None:
        low, high = self._latency()
        if not 0 <= low <= high or not 0 <= self.loss < 1 or self.detection_s <= 0 or self.retransmit_s <= 0:
            raise InvalidParameter(
                f"latency {self.latency_s}, loss {self.loss}, detection {self.detection_s}, "
                f"retransmit {self.retransmit_s} are not times and a probability below 1"
            )
        names = (
            tuple(f"node-{index:02d}" for index in range(self.nodes))
            if isinstance(self.nodes, int)
            else tuple(self.nodes)
        )
        object.__setattr__(self, "graph", self._graph(names))
        killed = [kill.node for kill in self.kills]
        for kill in self.kills:
            if not 0 <= kill.node < len(names) or kill.round < 0 or killed.count(kill.node) > 1:
                raise InvalidParameter(f"{kill} names no node, no round, or a node twice", field="kills")

    @property
    def peer_ids(self) -> tuple[PeerId, ...]:
        """The members, sorted; node number i is the i-th."""
        return self.graph.members

    def run(self, algorithm: Algorithm, inputs: Sequence[Input]) -> list[NodeResult]:
        """Run to the end on every node and return their results, in the order of the nodes.

        `inputs` has one value a node, or a learner a node (see `Device`). Must be called from a plain
        function, not from inside an event loop. Raises InvalidParameter when there are more or fewer inputs
        than nodes.
        """
        if len(inputs) != len(self.peer_ids):
            raise InvalidParameter(
                f"{len(inputs)} inputs for {len(self.peer_ids)} nodes", field="inputs", hint="give one a node"
            )
        simulation = _Simulation(self, algorithm, inputs)
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(simulation.run, clock=clock)
        return simulation.results()

    def _latency(self) -> tuple[float, float]:
        return self.latency_s if isinstance(self.latency_s, tuple) else (self.latency_s, self.latency_s)

    def _graph(self, names: tuple[PeerId, ...]) -> Graph:
        match self.topology:
            case Graph():
                return self.topology
            case None:
                return graphs.build(graphs.default_topology(len(names)), names, self.seed)
            case str():
                return graphs.build(self.topology, names, self.seed)
            case _:
                edges = frozenset((names[min(pair)], names[max(pair)]) for pair in self.topology)
                return Graph(names, edges)


class _Node:
    """One member: its side of the rounds, and the port that its context sees."""

    def __init__(self, simulation: _Simulation, index: int) -> None:
        federation = simulation.federation
        self.simulation = simulation
        self.index = index
        self.peer_id = federation.peer_ids[index]
        self.rounds = Rounds(federation.graph.neighbors(self.peer_id), federation.max_payload_bytes)
        self.kill = next((kill for kill in federation.kills if kill.node == index), None)
        self.scope = trio.CancelScope()
        self.ended = False
        self.killed = False
        self.error: FeddError | None = None
        self.value: Message = None
        self.completed: Completed | None = None
        self.wake = trio.Event()
        self.reasons: dict[PeerId, str] = {}  # every verdict so far
        self.untold: dict[PeerId, str] = {}  # about members that are no neighbours
        self.dropped: list[DroppedPeer] = []
        majority = len(federation.peer_ids) // 2 + 1
        start = RunStart(
            run_id="test",
            me=self.peer_id,
            graph=federation.graph,
            epoch=1,
            seed=federation.seed,
            quorum=majority if federation.quorum is None else federation.quorum,
            max_payload_bytes=federation.max_payload_bytes,
        )
        given = simulation.inputs[index]
        self.context = Context(start, self, data_of(given))
        self.given = given

    async def run(self, algorithm: Algorithm) -> None:
        """Run the algorithm to its end, however that comes."""
        with self.scope:
            try:
                await lend(self.given, self.context)
                outcome = await run_algorithm(algorithm, self.context)
                self.value = arrays.decode(
                    arrays.encode(outcome.value), self.simulation.federation.max_payload_bytes
                )
            except FeddError as error:
                self.error = error
        if self.killed:
            self.error = FeddError(f"{self.peer_id} was killed in exchange {self.rounds.round}")
        elif self.scope.cancelled_caught:
            waiting = ", ".join(self.rounds.waiting_for) or "nobody"
            self.error = TimedOut(
                f"{self.peer_id} did not end; it is in exchange {self.rounds.round} and waits for {waiting}"
            )
        self.ended = True
        self.simulation.node_ended(self)

    async def exchange(self, tag: str, payloads: Mapping[PeerId, Payload]) -> Round:
        """`fedd.worker.context.Port`."""
        if self.kill is not None and self.kill.round == self.rounds.round:
            await self._die(tag, payloads)
        self.wake = trio.Event()
        self.perform(self.rounds.begin(tag, payloads))
        await self.wake.wait()
        completed, self.completed = self.completed, None
        if completed is None:
            raise RuntimeError("woken without a round")
        finished = {peer for peer, reason in completed.gone.items() if reason == "finished"}
        gone = {peer: reason for peer, reason in completed.gone.items() if peer not in finished}
        gone.update(self.untold)
        self.untold.clear()
        self.dropped += [DroppedPeer(peer, completed.round, gone[peer]) for peer in sorted(gone)]
        return Round(
            completed.messages, gone, finished=tuple(sorted(finished)), other_tags=completed.other_tags
        )

    def report(self, metrics: Mapping[str, float | int | str | bool]) -> None:
        """`fedd.worker.context.Port`; the context keeps them."""

    def perform(self, actions: Sequence[Action]) -> None:
        """Do what the rounds say."""
        for action in actions:
            match action:
                case Send():
                    self.simulation.send(self, action)
                case Completed():
                    self.completed = action
                    self.wake.set()

    def judge(self, peer: PeerId, reason: str) -> None:
        """Membership's verdict arrives: this member is out of the run, or finished."""
        if self.ended or peer in self.reasons:
            return
        self.reasons[peer] = reason
        if peer in self.rounds.neighbors:
            self.perform(self.rounds.release(peer, reason))
        elif reason != "finished":
            self.untold[peer] = reason

    async def _die(self, tag: str, payloads: Mapping[PeerId, Payload]) -> None:
        near = list(self.rounds.neighbors)
        reaches = self.kill.reaches if self.kill is not None else ()
        peer_ids = self.simulation.federation.peer_ids
        if isinstance(reaches, str):
            reached = {"none": near[:0], "one": near[:1], "some": near[::2], "all": near}[reaches]
        else:
            reached = [peer for peer in near if peer_ids.index(peer) in reaches]
        for peer in reached:
            self.simulation.send(self, Send(peer, self.rounds.round, tag, payloads[peer]))
        self.killed = True
        self.scope.cancel()
        await trio.sleep_forever()


class _Simulation:
    """The network and the failure detector: events in order of virtual time, whatever order tasks run in."""

    def __init__(self, federation: Federation, algorithm: Algorithm, inputs: Sequence[Input]) -> None:
        self.federation = federation
        self.algorithm = algorithm
        self.inputs = inputs
        self.nodes: dict[PeerId, _Node] = {}
        self._events: list[tuple[float, tuple[int, ...], Callable[[], None]]] = []
        self._wake = trio.Event()
        self._last_delivery: dict[tuple[PeerId, PeerId], float] = {}

    async def run(self) -> None:
        """Run all nodes to their ends."""
        self.nodes = {peer: _Node(self, index) for index, peer in enumerate(self.federation.peer_ids)}
        async with trio.open_nursery() as nursery:
            for node in self.nodes.values():
                node.scope.deadline = self.federation.deadline_s + trio.current_time()
                nursery.start_soon(node.run, self.algorithm)
            await self._deliver()

    def results(self) -> list[NodeResult]:
        """What became of every node."""
        return [self._result(node) for node in self.nodes.values()]

    def send(self, sender: _Node, send: Send) -> None:
        """Deliver a message after its latency, behind all earlier ones of that link."""
        receiver = self.nodes[send.peer]
        at = self._arrival(sender, receiver, send.round)
        key = (0, send.round, sender.index, receiver.index)
        self._schedule(at, key, partial(self._receive, receiver, sender.peer_id, send))

    def node_ended(self, node: _Node) -> None:
        """Let the others know: a death by its silence, all else as the last thing on every link."""
        verdicts = self._deaths(node) if node.killed else self._last_words(node)
        for other, at, reason in verdicts:
            self._schedule(at, (1, 0, node.index, other.index), partial(other.judge, node.peer_id, reason))
        self._wake.set()

    def _deaths(self, dead: _Node) -> list[tuple[_Node, float, str]]:
        """Each neighbour notices at its own time; the first one's word spreads to the others."""
        near = self.federation.graph.neighbors(dead.peer_id)
        times: dict[PeerId, float] = {}
        for peer in near:
            draw = random.Random(f"{self.federation.seed}/death/{dead.index}/{peer}").random()
            times[peer] = trio.current_time() + self.federation.detection_s * (1 + draw / 2)
        first = min(times.values(), default=trio.current_time() + self.federation.detection_s)
        told = first + self.federation._latency()[0]
        return [(other, times.get(other.peer_id, told), "dead") for other in self._others(dead)]

    def _last_words(self, node: _Node) -> list[tuple[_Node, float, str]]:
        """A node that ends says so behind its last message on every link."""
        reason = "finished" if node.error is None else f"left: {node.error.detail}"
        return [(other, self._arrival(node, other, -1), reason) for other in self._others(node)]

    def _others(self, node: _Node) -> list[_Node]:
        return [other for other in self.nodes.values() if other is not node]

    def _receive(self, receiver: _Node, sender: PeerId, send: Send) -> None:
        if not receiver.ended:
            receiver.perform(receiver.rounds.receive(sender, send.round, send.tag, send.payload))

    def _arrival(self, sender: _Node, receiver: _Node, round: int) -> float:
        low, high = self.federation._latency()
        delay = low
        if high > low or self.federation.loss:
            draw = random.Random(f"{self.federation.seed}/link/{sender.index}/{receiver.index}/{round}")
            delay = draw.uniform(low, high)
            while draw.random() < self.federation.loss:
                delay += self.federation.retransmit_s
        link = (sender.peer_id, receiver.peer_id)
        at = max(trio.current_time() + delay, self._last_delivery.get(link, 0.0))
        self._last_delivery[link] = at
        return at

    def _schedule(self, at: float, key: tuple[int, ...], happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, key, happens))
        self._wake.set()

    async def _deliver(self) -> None:
        while not all(node.ended for node in self.nodes.values()):
            self._wake = trio.Event()
            with trio.move_on_at(self._events[0][0] if self._events else float("inf")):
                await self._wake.wait()
            while self._events and self._events[0][0] <= trio.current_time():
                heapq.heappop(self._events)[2]()

    def _result(self, node: _Node) -> NodeResult:
        contributors: tuple[PeerId, ...] = ()
        residual, agreed = None, False
        if node.error is None:
            outcome = node.context.outcome(None)
            contributors, residual, agreed = outcome.contributors, outcome.residual, outcome.agreed
        return NodeResult(
            node=node.index,
            peer_id=node.peer_id,
            value=node.value,
            contributors=contributors,
            dropped=tuple(node.dropped),
            rounds=node.context.round,
            residual=residual,
            agreed=agreed,
            error=node.error,
            killed=node.killed,
            metrics=dict(node.context.metrics),
        )
