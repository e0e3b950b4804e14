"""Many membership cores on one heap of events: virtual time, with latency, cuts, pauses and deaths."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from core.broadcast_world import cheap_keys

from fedd.api.errors import ProtocolError
from fedd.core.broadcast import Broadcasts
from fedd.core.broadcast_messages import BroadcastMessage
from fedd.core.broadcast_types import BroadcastAction, Deliver, Gap
from fedd.core.membership import Membership
from fedd.core.membership_types import Action, Changed, Close, Dial, Notice, Persist, PresenceTiming, Send
from fedd.core.presence_messages import Message
from fedd.core.records import Record, Row
from fedd.core.verdicts import MemberChange, State

LAN = PresenceTiming.lan()


class Node:
    """One core with its links; deaf and mute while paused, gone when killed."""

    def __init__(self, bench: Bench, peer: str, *, dialable: bool = True) -> None:
        self.bench = bench
        self.peer = peer
        self.dialable = dialable
        self.epoch = 0
        self.links: dict[str, int] = {}
        self.changes: list[tuple[float, MemberChange]] = []
        self.notices: list[tuple[float, str]] = []
        self.versions: dict[str, list[Any]] = {}
        self.alive = False
        self.paused_until = float("-inf")
        self.timer = 0
        self.backlog: list[Callable[[], None]] = []
        self.sent = 0
        self.casts: Broadcasts | None = None
        self.heard: list[Deliver | Gap] = []
        self.cast_timer = 0

    def start(self, known: tuple[Record, ...] = ()) -> None:
        self.epoch += 1
        self.alive = True
        self.paused_until = float("-inf")
        self.backlog, self.links, self.versions = [], {}, {}
        mine = Record(self.peer, self.epoch, 0, addresses=(f"/at/{self.peer}",) if self.dialable else ())
        self.core = Membership(
            mine,
            seal=self.bench.seal,
            open_row=self.bench.open_row,
            rng=random.Random(f"{self.bench.seed} {self.peer} {self.epoch}"),
            now=self.bench.now,
            timing=self.bench.timing,
            known=known,
        )
        if self.bench.broadcasts:
            self.heard = []
            self.casts = Broadcasts(
                self.peer,
                self.epoch,
                keys=cheap_keys(self.peer),
                certified=lambda peer: peer in self.core.records,
                rtt_of=lambda peer: 0.02,
                neighbours_of=lambda peer: self.core.edges.adjacent(peer),
                links_version=lambda: self.core.edges_version,
                rng=random.Random(f"{self.bench.seed} {self.peer} {self.epoch} casts"),
                now=self.bench.now,
            )
        self.perform([])

    def cast(self, call: Callable[[Broadcasts, float], Iterable[BroadcastAction]]) -> None:
        """Let something happen to this node's broadcasts, if it has any."""
        if self.casts is None:
            return
        for action in call(self.casts, self.bench.now):
            match action:
                case Send(peer, message):
                    self.bench.send(self, peer, message)
                case Deliver() | Gap():
                    self.heard.append(action)
        self.cast_timer += 1
        timer = self.cast_timer
        self.bench.at(self.casts.next_deadline(), lambda: self.cast_tick(timer))

    def cast_tick(self, timer: int) -> None:
        if timer == self.cast_timer:
            self.run(lambda: self.cast(Broadcasts.handle_timeout))

    def receive(self, peer: str, message: Message) -> None:
        if isinstance(message, BroadcastMessage):
            self.cast(lambda casts, now: casts.receive(peer, message, now))
        else:
            self.perform(self.core.receive(peer, message, self.bench.now))

    def run(self, call: Callable[[], None]) -> None:
        """Let something happen to this node, after its pause if it is in one."""
        if not self.alive:
            return
        if self.bench.now < self.paused_until:
            self.backlog.append(call)
        else:
            call()

    def perform(self, actions: list[Action]) -> None:
        bench = self.bench
        for action in actions:
            match action:
                case Send(peer, message):
                    bench.send(self, peer, message)
                case Dial(peer, _):
                    bench.dial(self, peer)
                case Close(peer, _):
                    bench.close(self, peer)
                case Persist(epoch):
                    self.epoch = epoch
                    if self.casts is not None:
                        self.casts.begin_epoch(epoch, bench.now)
                case Changed(change):
                    self.changes.append((bench.now, change))
                case Notice(kind):
                    self.notices.append((bench.now, kind))
        for peer, record in self.core.records.items():
            seen = self.versions.setdefault(peer, [])
            if not seen or seen[-1] != record.stamp:
                seen.append(record.stamp)
        self.timer += 1
        timer = self.timer
        bench.at(self.core.next_deadline(), lambda: self.tick(timer))

    def tick(self, timer: int) -> None:
        if timer == self.timer:
            self.run(lambda: self.perform(self.core.handle_timeout(self.bench.now)))

    def wake(self) -> None:
        backlog, self.backlog = self.backlog, []
        for call in backlog:
            self.run(call)

    def states(self) -> dict[str, State | None]:
        return {peer: self.core.state_of(peer) for peer in self.bench.nodes if peer != self.peer}


class Bench:
    """The network and the clock."""

    def __init__(
        self,
        seed: int = 0,
        latency_s: tuple[float, float] = (0.001, 0.02),
        *,
        timing: PresenceTiming = LAN,
        broadcasts: bool = False,
    ) -> None:
        self.timing = timing
        self.broadcasts = broadcasts
        self.seed = seed
        self.now = 0.0
        self.rng = random.Random(seed)
        self.latency_s = latency_s
        self.nodes: dict[str, Node] = {}
        self.cut: set[frozenset[str]] = set()
        self.refused: set[str] = set()
        self.registry: dict[tuple[str, bytes], Record] = {}
        self.messages = 0
        self.established: dict[int, float] = {}
        self.healed_at: dict[frozenset[str], float] = {}
        self._held: dict[frozenset[str], list[Callable[[], None]]] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._fifo: dict[tuple[str, str], float] = {}
        self._link_ids = itertools.count(1)

    def seal(self, record: Record) -> Record:
        sealed = replace(record, sealed=f"{record.stamp} {next(self._order)}".encode())
        self.registry[record.id, sealed.sealed] = sealed
        return sealed

    def open_row(self, row: Row) -> Record:
        record = self.registry.get((row.id, row.sealed))
        if record is None or record.stamp != row.stamp:
            raise ProtocolError("forged")
        return record

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(when, self.now), next(self._order), call))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        events, before = 0, -1.0
        while self._heap and self._heap[0][0] <= until:
            self.now, _, call = heapq.heappop(self._heap)
            events = events + 1 if self.now == before else 0
            before = self.now
            assert events < 50_000, "time stands still: a deadline that nothing moves"
            call()
        self.now = until

    def run_until(self, condition: Callable[[], bool], within_s: float, step_s: float = 0.05) -> float:
        start = self.now
        while not condition():
            assert self.now - start < within_s, f"not within {within_s} s"
            self.run(step_s)
        return self.now - start

    def add(self, *peers: str, boot: str | None = None, dialable: bool = True) -> None:
        for peer in peers:
            node = self.nodes[peer] = Node(self, peer, dialable=dialable)
            node.start()
            if boot is not None and boot != peer:
                node.perform(node.core.hint(boot, (f"/at/{boot}",), self.now))

    def is_cut(self, a: str, b: str) -> bool:
        return frozenset((a, b)) in self.cut

    def travel(self, a: str, b: str) -> float:
        """When what `a` sends now reaches `b`: in order."""
        at = max(self.now + self.rng.uniform(*self.latency_s), self._fifo.get((a, b), 0.0))
        self._fifo[a, b] = at
        return at

    def send(self, node: Node, peer: str, message: Message) -> None:
        self.messages += 1
        node.sent += 1
        link = node.links.get(peer)
        if link is None:
            return
        other = self.nodes[peer]

        def arrive() -> None:
            if other.links.get(node.peer) == link:
                other.receive(node.peer, message)

        self.carry(node.peer, peer, lambda: other.run(arrive))

    def carry(self, a: str, b: str, call: Callable[[], None]) -> None:
        """As TCP does: in order, and what a cut holds up is sent again when it is healed."""
        if self.is_cut(a, b):
            self._held.setdefault(frozenset((a, b)), []).append(lambda: self.carry(a, b, call))
        else:
            self.at(self.travel(a, b), call)

    def sever(self, a: str, b: str) -> None:
        self.cut.add(frozenset((a, b)))

    def mend(self, a: str, b: str) -> None:
        pair = frozenset((a, b))
        self.cut.discard(pair)
        self.healed_at[pair] = self.now
        for call in self._held.pop(pair, []):
            call()

    def dial(self, node: Node, peer: str) -> None:
        other = self.nodes.get(peer)
        start = (node.epoch, self.now)

        def failed() -> None:
            node.perform(node.core.dial_failed(peer, self.now))

        def arrive() -> None:
            assert other is not None
            if not other.alive or not other.dialable or peer in self.refused:
                self.at(self.travel(peer, node.peer), lambda: node.run(failed))
            elif self.is_cut(node.peer, peer) or self.now < other.paused_until:
                self.at(start[1] + 5.0, lambda: node.run(failed))
            else:
                self.link(node, other)

        if other is None:
            self.at(self.now + 5.0, lambda: node.run(failed))
        else:
            self.at(self.now + 2 * self.rng.uniform(*self.latency_s), arrive)

    def link(self, node: Node, other: Node) -> None:
        link = next(self._link_ids)
        self.established[link] = self.now
        for end, far in ((other, node), (node, other)):

            def up(end: Node = end, far: Node = far) -> None:
                end.links[far.peer] = link
                end.perform(end.core.link_up(far.peer, far.core.is_pinned(end.peer), self.now))
                if end.links.get(far.peer) == link:
                    end.cast(lambda casts, now: casts.link_up(far.peer, now))

            self.at(
                self.travel(far.peer, end.peer) if end is node else self.now,
                lambda up=up, end=end: end.run(up),
            )

    def close(self, node: Node, peer: str, reason: Any = None) -> None:
        """The stream ends: the other end learns it after what was sent before."""
        link = node.links.pop(peer, None)
        other = self.nodes[peer]

        def arrive() -> None:
            if other.links.get(node.peer) == link:
                del other.links[node.peer]
                other.cast(lambda casts, now: casts.link_down(node.peer, now))
                other.perform(other.core.link_down(node.peer, reason, self.now))

        if link is not None:
            if node.alive:
                node.cast(lambda casts, now: casts.link_down(peer, now))
            self.carry(node.peer, peer, lambda: other.run(arrive))

    # -- faults

    def kill(self, peer: str, *, fin: bool = True) -> None:
        node = self.nodes[peer]
        node.alive = False
        for other in list(node.links):
            if fin:
                self.close(node, other, "closed")

    def restart(self, peer: str, known: tuple[Record, ...] = ()) -> None:
        self.nodes[peer].start(known)

    def leave(self, peer: str) -> None:
        node = self.nodes[peer]
        node.perform(node.core.leave(self.now))
        self.at(self.now + 0.5, lambda: setattr(node, "alive", False))

    def pause(self, peer: str, seconds: float) -> None:
        node = self.nodes[peer]
        node.paused_until = max(node.paused_until, self.now + seconds)
        self.at(node.paused_until, node.wake)

    # -- observations

    def stable_since(self, a: Node, b: Node) -> float:
        """Since when the link between two nodes has worked without a break; infinite when it does not."""
        link = a.links.get(b.peer)
        if link is None or b.links.get(a.peer) != link or not (a.alive and b.alive):
            return float("inf")
        if self.is_cut(a.peer, b.peer) or self.now < max(a.paused_until, b.paused_until):
            return float("inf")
        healed = self.healed_at.get(frozenset((a.peer, b.peer)), 0.0)
        return max(self.established[link], a.paused_until, b.paused_until, healed)

    def path_since(self, a: Node, b: Node) -> float:
        """The earliest time since which some path of links between the two has worked throughout."""
        best = {a.peer: float("-inf")}
        todo = [(float("-inf"), a.peer)]
        while todo:
            since, peer = heapq.heappop(todo)
            for other in self.nodes[peer].links:
                reached = max(since, self.stable_since(self.nodes[peer], self.nodes[other]))
                if reached < best.get(other, float("inf")):
                    best[other] = reached
                    heapq.heappush(todo, (reached, other))
        return best.get(b.peer, float("inf"))

    def living(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.alive]

    def all_alive(self) -> bool:
        living = {node.peer for node in self.living()}
        return all(node.states()[peer] == "alive" for node in self.living() for peer in living - {node.peer})

    def everybody_says(self, peer: str, state: State) -> bool:
        return all(node.core.state_of(peer) == state for node in self.living() if node.peer != peer)

    def changes(self, *states: State) -> list[tuple[float, str, MemberChange]]:
        return sorted(
            (
                (at, node.peer, change)
                for node in self.nodes.values()
                for at, change in node.changes
                if change.new in states
            ),
            key=lambda item: (item[0], item[1]),
        )


def federation(size: int, seed: int = 0, *, settle_s: float = 5.0, timing: PresenceTiming = LAN) -> Bench:
    """A bench with `size` members that all see each other."""
    bench = Bench(seed, timing=timing)
    names = [f"p{index:02d}" for index in range(size)]
    bench.add(*names, boot=names[0])
    bench.run_until(bench.all_alive, 10.0)
    bench.run(settle_s)
    for node in bench.nodes.values():
        node.changes.clear()
    return bench
