"""Ledgers in lock-step on a graph, without time, processes or threads: thousands of deaths in seconds."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedd.worker.ledger import LedgerCore, Verdict


@dataclass(frozen=True)
class Death:
    """`node` dies in exchange `round`, which reaches only `reaches`.

    `seen_at_once`: those whom its last message reaches know of the death when that exchange ends, else
    only in the next. `missed`: those whom its message of the exchange before did not reach either.
    """

    node: int
    round: int
    reaches: frozenset[int] = frozenset()
    seen_at_once: bool = False
    missed: frozenset[int] = frozenset()


@dataclass
class Lockstep:
    """All nodes of a run. `edges` are pairs of indices; nodes are called by their index as text."""

    edges: frozenset[frozenset[int]]
    starts: Sequence[np.ndarray]
    tolerance: float
    round: int = 0
    alive: set[int] = field(default_factory=set)
    nodes: list[LedgerCore] = field(default_factory=list)
    near: list[set[int]] = field(default_factory=list)
    decided: dict[int, tuple[int, Verdict]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.starts)
        self.alive = set(range(count))
        names = [name(index) for index in range(count)]
        self.near = [
            {other for edge in self.edges if index in edge for other in edge - {index}}
            for index in range(count)
        ]
        for index, start in enumerate(self.starts):
            core = LedgerCore(names[index], names, self.neighbors(index), start)
            core.begin_agreement()
            self.nodes.append(core)

    def neighbors(self, index: int) -> list[str]:
        return [name(other) for other in sorted(self.near[index])]

    def snapshot(self) -> Lockstep:
        return copy.deepcopy(self)

    def step(self, deaths: Iterable[Death] = ()) -> None:
        """One exchange of everybody who is alive and has not decided."""
        dying = {death.node: death for death in deaths if death.round == self.round}
        missing = {death.node: death.missed for death in deaths if death.round == self.round + 1}
        active = sorted(self.alive - self.decided.keys())
        sent = {index: self.nodes[index].messages(self.neighbors(index)) for index in active}
        for index in active:
            if index in dying:
                continue
            heard = {}
            for other in sorted(self.near[index]):
                message = sent.get(other, {}).get(name(index))
                lost = other in dying and index not in dying[other].reaches
                lost |= index in missing.get(other, ())
                if message is None or lost:
                    self.near[index].discard(other)
                    continue
                heard[name(other)] = message
                if other in dying and dying[other].seen_at_once:
                    self.near[index].discard(other)
            self.nodes[index].apply(heard, self.neighbors(index))
            verdict = self.nodes[index].close_window(self.tolerance)
            if verdict is not None and verdict.agreed:
                self.decided[index] = (self.round, verdict)
        self.alive -= dying.keys()
        self.round += 1

    def finish(self, deaths: Sequence[Death] = (), limit: int = 5000) -> None:
        while self.alive - self.decided.keys():
            assert self.round < limit, "no end"
            self.step(deaths)

    def components(self) -> list[set[int]]:
        """The survivors, by who can reach whom."""
        left = set(self.alive)
        found = []
        while left:
            component = {left.pop()}
            frontier = list(component)
            while frontier:
                here = frontier.pop()
                for other in list(left):
                    if frozenset({here, other}) in self.edges:
                        left.discard(other)
                        component.add(other)
                        frontier.append(other)
            found.append(component)
        return found

    def check(self, exact: float) -> None:
        """Every component decided in one exchange on one value: the mean over the contributors it names."""
        for component in self.components():
            decisions = {index: self.decided[index] for index in component}
            rounds = {decision[0] for decision in decisions.values()}
            values = {decision[1].value.tobytes() for decision in decisions.values()}
            origins = {decision[1].origins for decision in decisions.values()}
            assert len(rounds) == len(values) == len(origins) == 1, decisions
            members = [index for index in range(len(self.starts)) if origins.copy().pop() >> index & 1]
            assert component <= set(members)
            verdict = next(iter(decisions.values()))[1]
            mean = np.mean([self.starts[index] for index in members], axis=0).reshape(-1)
            scale = np.max(np.abs(self.starts), axis=0).reshape(-1)
            assert (np.abs(verdict.value - mean) <= exact * scale).all(), (members, verdict.value, mean)


def name(index: int) -> str:
    return f"{index:03d}"


def ring(count: int) -> frozenset[frozenset[int]]:
    return frozenset(frozenset({index, (index + 1) % count}) for index in range(count))


def line(count: int) -> frozenset[frozenset[int]]:
    return frozenset(frozenset({index, index + 1}) for index in range(count - 1))


def complete(count: int) -> frozenset[frozenset[int]]:
    return frozenset(frozenset({a, b}) for a in range(count) for b in range(a))


def irregular(count: int) -> frozenset[frozenset[int]]:
    """A ring with chords from node 0 and a leaf: degrees from 1 to about count / 2."""
    chords = {frozenset({0, other}) for other in range(2, count - 1, 2)}
    return frozenset(ring(count - 1) | chords | {frozenset({1, count - 1})})


def values(count: int, size: int = 1) -> list[np.ndarray]:
    """Start values such that no two sets of nodes have means that could be confused."""
    return [np.array([(index + 1) ** 2 + 0.1 * column for column in range(size)]) for index in range(count)]
