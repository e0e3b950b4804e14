"""Thousands of membership cores on one heap of events: joins, deaths, partitions, pauses and healing.

The network and the signatures are played: a message travels 5 to 60 ms and arrives in order, a record is
looked up where a real node would check its signature. Everything else is the code that runs in the daemon.
The same arguments give the same history.
"""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeAlias

from core.simulated_sizes import SIZES

from fedd.api.errors import ProtocolError
from fedd.core.membership import Membership
from fedd.core.membership_types import Changed, Close, Dial, PresenceTiming, Send
from fedd.core.presence_messages import Message
from fedd.core.records import Record, Row

# Events are put in order a slot of time at once: to sort a few at once costs least.
SLOTS_PER_S = 2000
DIAL_TIMEOUT_S = 5.0
HOPS_TO_DIAL = 3


# When, in which order among those of one time, what, and with what.
Event: TypeAlias = tuple[float, int, Callable[..., None], tuple[Any, ...]]


class Wire:
    """A link between two nodes; either end may have given it up while the other does not know."""

    __slots__ = ("ends", "held", "latency_s")

    def __init__(self, one: Node, other: Node, latency_s: float) -> None:
        self.ends = (one, other)
        # Always the same, so that nothing overtakes what was sent before.
        self.latency_s = latency_s
        self.held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []


class Node:
    """One core with its links: deaf and mute while paused, gone when killed."""

    __slots__ = (
        "alive",
        "backlog",
        "core",
        "dialable",
        "epoch",
        "paused_until",
        "peer",
        "sees",
        "sent_bytes",
        "sent_messages",
        "side",
        "sim",
        "timer_at",
        "wires",
    )

    def __init__(self, sim: Simulation, peer: str, *, dialable: bool) -> None:
        self.sim = sim
        self.peer = peer
        self.dialable = dialable
        self.side = 0
        self.epoch = 0
        self.alive = False
        self.paused_until = 0.0
        self.wires: dict[str, Wire] = {}
        self.backlog: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.timer_at = float("inf")
        self.sees = 0
        self.sent_messages = self.sent_bytes = 0
        self.core: Membership

    def start(self) -> None:
        sim = self.sim
        self.epoch += 1
        self.alive = True
        self.wires, self.backlog, self.sees = {}, [], 0
        self.core = Membership(
            Record(self.peer, self.epoch, 0, addresses=(f"/at/{self.peer}",) if self.dialable else ()),
            seal=sim.seal,
            open_row=sim.open_row,
            rng=random.Random(f"{sim.seed} {self.peer} {self.epoch}"),
            now=sim.now,
            timing=sim.timing,
        )
        self.timer_at = float("inf")
        self.perform([])

    def perform(self, actions: Iterable[Any]) -> None:
        """Do what the core asks for, and call it again when it wants to be called."""
        sim, wires = self.sim, self.wires
        last, size = None, 0
        for action in actions:
            kind = type(action)
            if kind is Send:
                peer, message = action
                wire = wires.get(peer)
                if wire is not None:
                    if message is not last:
                        # The same often goes to many.
                        last, size = message, SIZES[type(message)](message)
                    self.sent_messages += 1
                    self.sent_bytes += size
                    sim.send(wire, self, message)
            elif kind is Changed:
                change = action.change
                self.sees += (change.new == "alive") - (change.old == "alive")
                if change.new == "dead":
                    sim.told_dead(self, change.peer_id)
            elif kind is Dial:
                sim.at(0.0, sim.dial, self, action.peer)
            elif kind is Close:
                self.close(action.peer, None)
        due = self.core.next_deadline()
        if due < self.timer_at:
            self.timer_at = due
            sim.schedule(due, self.tick, due)

    def tick(self, at: float) -> None:
        if at != self.timer_at or not self.alive:
            return
        sim = self.sim
        if sim.now < self.paused_until:
            sim.schedule(self.paused_until, self.tick, at)
            return
        self.timer_at = float("inf")
        # What was heard since then may have moved it.
        due = self.core.next_deadline()
        if due <= sim.now:
            self.perform(self.core.handle_timeout(sim.now))
        else:
            self.perform(())

    def take(self, wire: Wire, sender: Node, message: Message) -> None:
        """As `Simulation.arrive` with what comes most."""
        if not self.alive:
            return
        sim = self.sim
        if sim.now < self.paused_until:
            self.backlog.append((Node.take, (wire, sender, message)))
        elif self.wires.get(sender.peer) is wire:
            actions = self.core.receive(sender.peer, message, sim.now)
            if actions:
                self.perform(actions)
                return
            due = self.core.next_deadline()
            if due < self.timer_at:
                self.timer_at = due
                sim.schedule(due, self.tick, due)

    def close(self, peer: str, reason: str | None) -> None:
        wire = self.wires.pop(peer, None)
        if wire is not None:
            self.sim.carry(wire, self, Node.lose, reason)

    def lose(self, wire: Wire, sender: Node, reason: Any) -> None:
        if self.wires.get(sender.peer) is wire:
            del self.wires[sender.peer]
            self.perform(self.core.link_down(sender.peer, reason, self.sim.now))

    def link(self, wire: Wire, other: Node) -> None:
        if self.alive and self.wires.setdefault(other.peer, wire) is wire:
            needed = other.core.is_pinned(self.peer)
            self.perform(self.core.link_up(other.peer, needed, self.sim.now))


class Simulation:
    """The network, the clock, and what is seen."""

    def __init__(
        self,
        seed: int = 1,
        *,
        latency_s: tuple[float, float] = (0.005, 0.06),
        timing: PresenceTiming | None = None,
    ) -> None:
        self.seed = seed
        self.now = 0.0
        self.rng = random.Random(seed)
        self.latency_s = latency_s
        self.timing = timing or PresenceTiming.lan()
        self.nodes: dict[str, Node] = {}
        self.events = 0
        self.watched: set[str] = set()
        self.detected: list[float] = []
        self.false_deaths = 0
        # The events of the present slot, sorted; those of later slots as they come; a heap of these slots.
        self._present: list[Event] = []
        self._present_slot = -1
        self._later: dict[int, list[Event]] = {}
        self._slots: list[int] = []
        self._order = itertools.count()
        self._records: dict[bytes, Record] = {}
        self._parted = False
        self._wires: list[Wire] = []

    # -- signatures, played

    def seal(self, record: Record) -> Record:
        sealed = replace(record, sealed=f"{record.id} {record.epoch} {next(self._order)}".encode())
        self._records[sealed.sealed] = sealed
        return sealed

    def open_row(self, row: Row) -> Record:
        record = self._records.get(row.sealed)
        if record is None or record.stamp != row.stamp:
            raise ProtocolError(f"{row.id} never said that")
        return record

    # -- time

    def schedule(self, when: float, call: Callable[..., None], *args: Any) -> None:
        self.expect((when if when > self.now else self.now, next(self._order), call, args))

    def expect(self, event: Event) -> None:
        slot = int(event[0] * SLOTS_PER_S)
        if slot <= self._present_slot:
            insort(self._present, event)
        elif (events := self._later.get(slot)) is not None:
            events.append(event)
        else:
            self._later[slot] = [event]
            heapq.heappush(self._slots, slot)

    def at(self, after_s: float, call: Callable[..., None], *args: Any) -> None:
        self.schedule(self.now + after_s, call, *args)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        last_slot = int(until * SLOTS_PER_S)
        events = 0
        while True:
            present = self._present
            done = 0
            # What is added meanwhile is put behind what is being done.
            for at, _, call, args in present:
                if at > until:
                    break
                self.now = at
                done += 1
                call(*args)
            events += done
            if done < len(present):
                del present[:done]
                break
            present.clear()
            if not self._slots or self._slots[0] > last_slot:
                break
            self._present_slot = heapq.heappop(self._slots)
            self._present = self._later.pop(self._present_slot)
            self._present.sort()
        self.events += events
        self.now = until

    def run_until(self, condition: Callable[[], bool], within_s: float, step_s: float = 0.1) -> float:
        """The seconds that it took; TimeoutError when it took longer than `within_s`."""
        start = self.now
        while not condition():
            if self.now - start >= within_s:
                raise TimeoutError(f"{condition} did not hold within {within_s} s")
            self.run(step_s)
        return self.now - start

    # -- the network

    def send(self, wire: Wire, sender: Node, message: Message) -> None:
        """As `carry` with what comes most."""
        one, other = wire.ends
        receiver = other if sender is one else one
        if self._parted and sender.side != receiver.side:
            wire.held.append((Node.take, (receiver, wire, sender, message)))
            return
        at = self.now + wire.latency_s
        event = (at, next(self._order), Node.take, (receiver, wire, sender, message))
        # As `expect`.
        events = self._later.get(int(at * SLOTS_PER_S))
        if events is not None:
            events.append(event)
        else:
            self.expect(event)

    def carry(self, wire: Wire, sender: Node, call: Callable[..., None], what: Any) -> None:
        """To the other end, in order; what a cut holds up goes on when it is mended, as TCP does it."""
        one, other = wire.ends
        receiver = other if sender is one else one
        if self._parted and sender.side != receiver.side:
            wire.held.append((call, (receiver, wire, sender, what)))
        else:
            self.at(wire.latency_s, self.arrive, receiver, call, wire, sender, what)

    def arrive(self, receiver: Node, call: Callable[..., None], *args: Any) -> None:
        if not receiver.alive:
            return
        if self.now < receiver.paused_until:
            receiver.backlog.append((call, args))
        else:
            call(receiver, *args)

    def dial(self, node: Node, peer: str) -> None:
        """Connection and handshake take three hops to the far end; its first word takes another."""
        other = self.nodes.get(peer)
        latency_s = self.rng.uniform(*self.latency_s)
        if other is None:
            self.at(DIAL_TIMEOUT_S, self.dialled, node, peer)
        else:
            self.at(HOPS_TO_DIAL * latency_s, self.knock, node, other, latency_s, self.now)

    def knock(self, node: Node, other: Node, latency_s: float, began: float) -> None:
        if not node.alive:
            return
        cut = self._parted and node.side != other.side
        if not other.alive or not other.dialable or cut or self.now < other.paused_until:
            self.schedule(began + DIAL_TIMEOUT_S, self.dialled, node, other.peer)
        elif node.peer in other.wires or other.peer in node.wires:
            self.schedule(self.now + latency_s, self.dialled, node, other.peer)
        else:
            wire = Wire(node, other, latency_s)
            self._wires.append(wire)
            self.at(latency_s, self.arrive, node, Node.link, wire, other)
            other.link(wire, node)

    def dialled(self, node: Node, peer: str) -> None:
        """A dial is over; what it was for may stand all the same."""
        if node.alive and peer not in node.wires:
            node.perform(node.core.dial_failed(peer, self.now))

    # -- what befalls nodes

    def add(self, peer: str, boots: Iterable[str], *, dialable: bool = True) -> None:
        node = self.nodes[peer] = Node(self, peer, dialable=dialable)
        node.start()
        for boot in boots:
            if boot != peer:
                node.perform(node.core.hint(boot, (f"/at/{boot}",), self.now))

    def kill(self, peer: str, *, fin: bool) -> None:
        """End a process: its links close, or with `fin` False it is as if its cable were pulled."""
        node = self.nodes[peer]
        node.alive = False
        if fin:
            for other in list(node.wires):
                node.close(other, "closed")

    def pause(self, peer: str, seconds: float) -> None:
        """As SIGSTOP: time passes, nothing is handled, what arrives waits."""
        node = self.nodes[peer]
        node.paused_until = self.now + seconds
        self.schedule(node.paused_until, self.wake, node)

    def wake(self, node: Node) -> None:
        backlog, node.backlog = node.backlog, []
        for call, args in backlog:
            self.arrive(node, call, *args)

    def part(self, side_of: Callable[[str], int]) -> None:
        """Cut the network in two: nothing passes between different sides."""
        self._parted = True
        for peer, node in self.nodes.items():
            node.side = side_of(peer)

    def mend(self) -> None:
        self._parted = False
        for wire in self._wires:
            held, wire.held = wire.held, []
            for call, args in held:
                self.at(wire.latency_s, self.arrive, args[0], call, *args[1:])

    # -- what is seen

    def told_dead(self, observer: Node, peer: str) -> None:
        if peer in self.watched:
            self.detected.append(self.now)
        node = self.nodes[peer]
        if node.alive and node.side == observer.side and self.now >= node.paused_until:
            self.false_deaths += 1

    def living(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.alive]

    def full_view(self) -> bool:
        """Whether every living node sees all others alive, and nobody else."""
        living = self.living()
        return all(node.sees == len(living) - 1 for node in living)

    def degrees(self) -> list[int]:
        return sorted(len(node.core.links) for node in self.living())

    def watch(self, *peers: str) -> float:
        """Begin to note who is called dead when; the present time."""
        self.watched, self.detected = set(peers), []
        return self.now
