"""Members that run an algorithm together, over a simulated network on virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import trio
import trio.testing

from fedd.api.algorithm import Algorithm
from fedd.api.errors import InvalidParameter
from fedd.api.types import PeerId
from fedd.core import topology as graphs
from fedd.core.graph import Graph
from fedd.core.run_terms import CONTRACTS
from fedd.testing.learners import Input
from fedd.testing.outcomes import NodeResult
from fedd.testing.simulation import Simulation

Reach: TypeAlias = Literal["none", "one", "some", "all"] | Sequence[int]
"""Which neighbours a dying node's last message reaches: by word (the first, every second) or by index."""


@dataclass(frozen=True)
class Kill:
    """Node number `node` dies when it sends the message of exchange `round` (counted from 0)."""

    node: int
    round: int
    reaches: Reach = "none"


@dataclass(frozen=True)
class Restart:
    """Node number `node`, which is killed, is back `after_s` later with what it had on disk."""

    node: int
    after_s: float = 10.0


@dataclass(frozen=True)
class Join:
    """Node number `node` is no member at first; it asks to be let in when exchange `round` begins."""

    node: int
    round: int


@dataclass(frozen=True)
class Federation:
    """Members, the graph between them, and what goes wrong.

    `nodes` is a number (peer ids are then node-00, node-01, ...) or sorted peer ids. `topology` is a name
    as for `fedctl run`, a Graph, edges as pairs of indices, or None for the default. `latency_s` is one
    number or a range to draw from, `loss` the probability that a message needs another `retransmit_s`.
    `drop` is the probability that a neighbour's message of an exchange never comes, as over datagrams: for
    algorithms whose `bears_loss` is true, no daemon's stream does so.
    Death is noticed after `detection_s` to 1.5 times that, by each neighbour at its own time. `quorum` is a
    majority of those who are members from the beginning when None, `contract` the algorithm's own. `joins`
    come late, `restarts` come back: both are let in when the algorithm is `joinable`; when all have been
    killed, those that are back begin another epoch as soon as they are a quorum. A node still running after
    `deadline_s` of virtual time ends with TimedOut.

    Raises InvalidParameter for values that make no sense.
    """

    nodes: int | Sequence[PeerId]
    topology: str | Graph | Sequence[tuple[int, int]] | None = None
    seed: int = 0
    latency_s: float | tuple[float, float] = 0.001
    loss: float = 0.0
    drop: float = 0.0
    kills: Sequence[Kill] = ()
    joins: Sequence[Join] = ()
    restarts: Sequence[Restart] = ()
    contract: str | None = None
    detection_s: float = 3.0
    retransmit_s: float = 0.2
    quorum: int | None = None
    max_payload_bytes: int = 16 * 1024 * 1024  # as a daemon's [limits] without configuration
    deadline_s: float = 86400.0
    graph: Graph = field(init=False, repr=False)

    def __post_init__(self) -> None:
        low, high = self.latencies
        if not 0 <= low <= high or not 0 <= self.loss < 1 or self.detection_s <= 0 or self.retransmit_s <= 0:
            raise InvalidParameter(
                f"latency {self.latency_s}, loss {self.loss}, detection {self.detection_s}, "
                f"retransmit {self.retransmit_s} are not times and a probability below 1"
            )
        if not 0 <= self.drop < 1:
            raise InvalidParameter(f"drop is no probability below 1: {self.drop}", field="drop")
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
        self._check_comings(len(names), killed)

    def _check_comings(self, nodes: int, killed: Sequence[int]) -> None:
        late = [join.node for join in self.joins]
        for join in self.joins:
            if (
                not 0 <= join.node < nodes
                or join.round < 0
                or late.count(join.node) > 1
                or nodes == len(late)
            ):
                raise InvalidParameter(f"{join} names no node, no round, or a node twice", field="joins")
        for restart in self.restarts:
            if restart.node not in killed or restart.after_s <= 0:
                raise InvalidParameter(f"{restart} names a node that is not killed", field="restarts")
        if self.contract is not None and self.contract not in CONTRACTS:
            raise InvalidParameter(
                f"there is no contract {self.contract!r:.40}",
                hint=f"known: {', '.join(CONTRACTS)}",
                field="contract",
            )

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
        if self.drop and not getattr(algorithm, "bears_loss", False):
            raise InvalidParameter(
                f"{algorithm.name} relies on every message of an exchange",
                hint="leave out drop",
                field="drop",
            )
        simulation = Simulation(self, algorithm, inputs)
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(simulation.run, clock=clock)
        return simulation.results()

    @property
    def latencies(self) -> tuple[float, float]:
        """The range of `latency_s`."""
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
