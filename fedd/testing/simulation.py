"""The network and the failure detector of a simulated federation: on virtual time, in one order."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from fedd.api.errors import Dropped, NotConnected, Refused
from fedd.api.types import PeerId
from fedd.core.epochs import (
    CLOSING_TAG,
    FIRST,
    Mark,
    Sleepers,
    epoch_graph,
)
from fedd.core.graph import Graph
from fedd.core.mail import Item, Receipt
from fedd.core.rounds import Send
from fedd.testing.learners import Input
from fedd.testing.node import Epoch, Node
from fedd.testing.outcomes import NodeResult
from fedd.worker.terms import terms

if TYPE_CHECKING:
    from fedd.api.algorithm import Algorithm
    from fedd.testing.federation import Federation


class Simulation:
    """The network and the failure detector: events in order of virtual time, whatever order tasks run in."""

    def __init__(self, federation: Federation, algorithm: Algorithm, inputs: Sequence[Input]) -> None:
        self.federation = federation
        self.algorithm = algorithm
        self.inputs = inputs
        own = terms(type(algorithm))
        self.contract = federation.contract or own.contract_of(algorithm)
        self.joinable = own.joinable
        late = {federation.peer_ids[join.node] for join in federation.joins}
        first = tuple(peer for peer in federation.peer_ids if peer not in late)
        majority = len(first) // 2 + 1
        self.quorum = majority if federation.quorum is None else federation.quorum
        graph = federation.graph if not late else self._graph(first)
        self._first = Epoch(FIRST, graph, 0, ())
        self.nodes: dict[PeerId, Node] = {}
        self._joins = {join.node: join.round for join in federation.joins}
        self._asleep: dict[PeerId, Sleepers] = {}
        self._events: list[tuple[float, tuple[int, ...], int, Callable[[], None]]] = []
        self._scheduled = 0
        self._wake = trio.Event()
        self._mail_sent: dict[tuple[int, int], int] = {}
        self._last_delivery: dict[tuple[PeerId, PeerId], float] = {}

    async def run(self) -> None:
        """Run all nodes to their ends."""
        self.nodes = {
            peer: Node(self, index, self._first) for index, peer in enumerate(self.federation.peer_ids)
        }
        async with trio.open_nursery() as nursery:
            for node in self.nodes.values():
                node.scope.deadline = self._deadline
                nursery.start_soon(node.run)
            await self._deliver()

    @property
    def _deadline(self) -> float:
        return self.federation.deadline_s

    def _graph(self, members: Sequence[PeerId]) -> Graph:
        topology = self.federation.topology
        if isinstance(topology, str) or topology is None:
            from fedd.core.topology import default_topology

            name = topology or default_topology(len(members))
            return epoch_graph(name, members, self.federation.seed)[1]
        graph = self.federation.graph
        kept = Graph(tuple(members), frozenset(edge for edge in graph.edges if {*edge} <= {*members}))
        if kept.is_connected() and not (graph.directed or graph.weights):
            return kept
        return epoch_graph("", members, self.federation.seed)[1]

    def results(self) -> list[NodeResult]:
        """What became of every node."""
        return [self._result(node) for node in self.nodes.values()]

    # ---- messages ------------------------------------------------------------------------

    def send(self, sender: Node, send: Send) -> None:
        """Deliver a message after its latency, behind all earlier ones of that link."""
        receiver = self.nodes[send.peer]
        at = self._arrival(sender, receiver, send.round)
        key = (0, send.round, sender.index, receiver.index)
        self.schedule(at, key, partial(self._receive, receiver, sender.peer_id, sender.epoch, send))

    def _receive(self, receiver: Node, sender: PeerId, epoch: Epoch, send: Send) -> None:
        if receiver.killed or receiver.ended:
            return
        receiver.hear(epoch)  # as a stream begins with the newest epoch that its sender knows
        if receiver.epoch is epoch and receiver.in_run:
            if send.tag == CLOSING_TAG:  # its algorithm has returned, and reads no letters
                receiver.mail.depart(sender, "finished", "finished")
            receiver.perform(receiver.rounds.receive(sender, send.round, send.tag, send.payload))
        elif not receiver.in_run:  # a stream that it closed, and that is renewed when it is in that epoch
            receiver.missed.append((epoch, partial(self._receive, receiver, sender, epoch, send)))

    def send_mail(self, sender: Node, peer: PeerId, number: int, receipt: Receipt, item: Item | None) -> None:
        """Deliver an item or a receipt as `send` does."""
        receiver = self.nodes[peer]
        link = (sender.index, receiver.index)
        sequence = self._mail_sent[link] = self._mail_sent.get(link, 0) + 1
        at = self._arrival(sender, receiver, f"mail/{sequence}")
        happens = partial(self._receive_mail, receiver, sender.peer_id, sender.epoch, number, receipt, item)
        self.schedule(at, (0, -1, sequence, *link), happens)  # before the last word of the same moment

    def _receive_mail(
        self,
        receiver: Node,
        sender: PeerId,
        epoch: Epoch,
        number: int,
        receipt: Receipt,
        item: Item | None,
    ) -> None:
        if receiver.killed or receiver.ended:
            return
        receiver.hear(epoch)
        if receiver.epoch is epoch and receiver.in_run:
            receiver.mail.arrive(sender, number, receipt, item)
        elif not receiver.in_run:
            again = partial(self._receive_mail, receiver, sender, epoch, number, receipt, item)
            receiver.missed.append((epoch, again))

    def announce(
        self, proposer: Node, number: int, members: tuple[PeerId, ...], newcomers: tuple[PeerId, ...]
    ) -> None:
        """An epoch is proposed: whoever proposes is in it at once, the others hear of it a moment later."""
        digest = hashlib.sha256(f"{number} {members} {proposer.peer_id}".encode()).digest()
        lost = {peer: dropped.reason for peer, dropped in proposer.dropped.items()}
        epoch = Epoch(Mark(number, digest), self._graph(members), proposer.round, newcomers, lost)
        for other in self._others(proposer):
            at = trio.current_time() + self._latency(f"epoch/{number}/{proposer.index}/{other.index}")
            self.schedule(at, (2, number, proposer.index, other.index), partial(other.hear, epoch))
        proposer.hear(epoch)

    def tell_cut(self, node: Node, peer: PeerId, reason: str) -> None:
        """A device has cut an edge of its own: everybody in its epoch hears of it a moment later."""

        def happens(other: Node, epoch: Epoch) -> None:
            if other.epoch is epoch:
                other.hear_cut(node.peer_id, peer, reason)

        for other in self._others(node):
            at = trio.current_time() + self._latency(f"cut/{node.index}/{peer}/{other.index}")
            key = (1, -1, node.index, other.index)  # before the last word of the same moment
            self.schedule(at, key, partial(happens, other, node.epoch))

    # ---- who comes -----------------------------------------------------------------------

    def reached(self, node: Node, round: int) -> None:
        """A node begins an exchange: is it time for a late member to ask to be let in?"""
        for index, at in list(self._joins.items()):
            if round >= at:
                del self._joins[index]
                joiner = self.nodes[self.federation.peer_ids[index]]
                self.schedule(
                    trio.current_time(), (3, 0, node.index, index), partial(self.ask_in, joiner, node)
                )

    def ask_in(self, asking: Node, sponsor: Node | None = None) -> None:
        """A late or a returning node asks a member of the run; with none running it waits for the others."""
        if asking.ended or asking.killed or asking.in_run:
            return
        running = [node for node in self.nodes.values() if node.running and node is not asking]
        sponsor = sponsor if sponsor is not None and sponsor.running else next(iter(running), None)
        if sponsor is not None:
            refusal = sponsor.let_in(asking.peer_id)
            if refusal:
                asking.end(Refused(f"not let in: {refusal}"))
            return
        if any(node.tells and node.error is None for node in self.nodes.values()):
            asking.end(Dropped("the others finished without this node"))
        elif asking.state is None:
            asking.end(NotConnected("nobody is left in the run"))
        elif sum(not node.ended for node in self.nodes.values()) - len(self._joins) < self.quorum:
            asking.end(Dropped("the others have ended, and too few are left"))
        else:
            self._sleep(asking)

    def _sleep(self, asking: Node) -> None:
        now = trio.current_time()
        mine = self._asleep[asking.peer_id] = Sleepers(
            asking.peer_id, asking.epoch.graph.members, self.quorum
        )
        mine.hear(asking.peer_id, asking.epoch.mark.number, now)
        for peer, other in self._asleep.items():
            if self.nodes[peer].in_run:
                continue
            other.hear(asking.peer_id, asking.epoch.mark.number, now)
            mine.hear(peer, self.nodes[peer].epoch.mark.number, now)
        for peer, sleeper in self._asleep.items():
            self.schedule(sleeper.due_at, (4, 0, asking.index, 0), partial(self._rise, peer))

    def _rise(self, peer: PeerId) -> None:
        sleeper, node = self._asleep.get(peer), self.nodes[peer]
        if sleeper is None or node.ended or node.in_run:
            return
        following = sleeper.resume(trio.current_time())
        if following is not None:
            self.announce(node, following.number, following.members, following.newcomers)

    async def restarted(self, node: Node) -> bool:
        """Whether a killed node is started again, which takes its time."""
        restart = next((each for each in self.federation.restarts if each.node == node.index), None)
        if restart is None or node.life > 1:
            return False
        with trio.CancelScope(deadline=self._deadline):
            await trio.sleep(restart.after_s)
        scope = trio.CancelScope(deadline=self._deadline)
        node.start_again(scope)
        for other in self._others(node):  # its membership looks at all others anew
            if other.killed:
                at = trio.current_time() + 1.5 * self.federation.detection_s
                happens = partial(node.judge, other.peer_id, "dead", other.life)
                self.schedule(at, (1, 0, other.index, node.index), happens)
        self.schedule(trio.current_time(), (3, 0, node.index, node.index), partial(self.ask_in, node))
        return True

    # ---- who goes ------------------------------------------------------------------------

    def node_ended(self, node: Node) -> None:
        """Let the others know: a death by its silence, all else as the last thing on every link."""
        if node.killed:
            for other, at in self._deaths(node):
                happens = partial(other.judge, node.peer_id, "dead", node.life)
                self.schedule(at, (1, 0, node.index, other.index), happens)
        else:
            node.tells = True
            for other in self._others(node):
                self._tell_end(node, other)
        self.look()

    def _tell_end(self, node: Node, other: Node) -> None:
        happens = (
            partial(other.hear_end, node.peer_id, node.finished_in or node.epoch.mark)
            if node.error is None
            else partial(other.judge, node.peer_id, f"left: {node.error.detail}", node.life)
        )
        at = self._arrival(node, other, -1)
        self.schedule(at, (1, 0, node.index, other.index), happens)

    def hear_the_ended(self, node: Node) -> None:
        """A node has entered an epoch: members that have ended answer its streams with their ends."""
        for peer in node.epoch.graph.members:
            if self.nodes[peer].tells:
                self._tell_end(self.nodes[peer], node)

    def _deaths(self, dead: Node) -> list[tuple[Node, float]]:
        """Each neighbour notices at its own time; the first one's word spreads to the others."""
        near = dead.epoch.graph.neighbors(dead.peer_id)
        times: dict[PeerId, float] = {}
        for peer in near:
            draw = random.Random(f"{self.federation.seed}/death/{dead.index}/{peer}").random()
            times[peer] = trio.current_time() + self.federation.detection_s * (1 + draw / 2)
        first = min(times.values(), default=trio.current_time() + self.federation.detection_s)
        told = first + self.federation.latencies[0]
        return [(other, times.get(other.peer_id, told)) for other in self._others(dead)]

    def _others(self, node: Node) -> Iterator[Node]:
        return (other for other in self.nodes.values() if other is not node)

    # ---- time ----------------------------------------------------------------------------

    def _latency(self, draw: str) -> float:
        low, high = self.federation.latencies
        return random.Random(f"{self.federation.seed}/{draw}").uniform(low, high)

    def _arrival(self, sender: Node, receiver: Node, what: int | str) -> float:
        low, high = self.federation.latencies
        delay = low
        if high > low or self.federation.loss:
            draw = random.Random(f"{self.federation.seed}/link/{sender.index}/{receiver.index}/{what}")
            delay = draw.uniform(low, high)
            while draw.random() < self.federation.loss:
                delay += self.federation.retransmit_s
        link = (sender.peer_id, receiver.peer_id)
        at = max(trio.current_time() + delay, self._last_delivery.get(link, 0.0))
        self._last_delivery[link] = at
        return at

    def schedule(self, at: float, key: tuple[int, ...], happens: Callable[[], None]) -> None:
        """Do something at a time; `key` orders what happens at the same one."""
        self._scheduled += 1
        heapq.heappush(self._events, (at, key, self._scheduled, happens))
        self._wake.set()

    def look(self) -> None:
        """Something has changed: look again whether all have ended."""
        late = [self.nodes[self.federation.peer_ids[index]] for index in self._joins]
        if all(node.ended or node in late for node in self.nodes.values()):
            for node in late:
                node.end(NotConnected("the run has ended"))
        for peer in list(self._asleep):
            self.ask_in(self.nodes[peer])
        self._wake.set()

    async def _deliver(self) -> None:
        while not all(node.ended for node in self.nodes.values()):
            self._wake = trio.Event()
            with trio.move_on_at(self._events[0][0] if self._events else float("inf")):
                await self._wake.wait()
            while self._events and self._events[0][0] <= trio.current_time():
                heapq.heappop(self._events)[3]()

    def _result(self, node: Node) -> NodeResult:
        contributors: tuple[PeerId, ...] = ()
        residual, agreed = None, False
        if node.error is None and node.outcome is not None:
            contributors, residual = node.outcome.contributors, node.outcome.residual
            agreed = node.outcome.agreed
        return NodeResult(
            node=node.index,
            peer_id=node.peer_id,
            value=node.value if node.error is None else None,
            contributors=contributors,
            dropped=tuple(node.dropped[peer] for peer in sorted(node.dropped)),
            rounds=node.round,
            residual=residual,
            agreed=agreed,
            error=node.error,
            killed=node.killed,
            metrics=dict(node.metrics),
            epoch=(node.finished_in if node.error is None and node.finished_in else node.epoch.mark).number,
            joined=tuple(node.joined[peer] for peer in sorted(node.joined)),
        )
