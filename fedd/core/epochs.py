"""When a run's members change: which epoch counts, who proposes the next one, and what a result is worth.

Inside an epoch a run's members and graph are fixed. This machine decides, on each node for itself, when the
next one is due. Any member may propose it, so nobody's death is in the way; so that usually one does, the
member of the lowest id does at once, the next one `PATIENCE_S` later, and so on. Two that do at the same
time hurt nobody: epochs are ordered by (number, digest), and everywhere the larger one counts.

Nobody ends in an epoch before everybody is done with it: whoever's algorithm has returned keeps its result
and makes `closing_rounds` empty exchanges more. Whoever gets through them knows that every member
was done. So the word of one that has ended, "I finished in epoch E", lets all others end with the
result that they keep of E, although some of them may have begun a later epoch meanwhile.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from dataclasses import field
from typing import TYPE_CHECKING, NamedTuple

from fedd.api.errors import FeddError
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.run_terms import RESTART

if TYPE_CHECKING:
    from fedd.core.graph import Graph

PATIENCE_S = 2.0
"""How much later each next member proposes: longer than it takes to tell everybody about an epoch."""

SETTLE_S = 5.0
"""After a power cut: how long nobody else has come back before those who are there go on without the others.
Boards of one kind start within some seconds of each other."""

MAX_EPOCHS = 10_000
"""One a second for hours. Who claims more wants to be the largest for ever."""

MAX_KEPT = 8
"""Results of epochs, until somebody's end says which counts: that word is under way for seconds."""

CLOSING_TAG = "fedd.close"


class Mark(NamedTuple):
    """Which epoch: they are ordered by these two, and the larger counts."""

    number: int
    digest: bytes


FIRST = Mark(1, b"")
"""The epoch that a run begins with; its digest is of no use, there are no two of it."""


@dataclass(frozen=True)
class Next:
    """Propose this epoch; `newcomers` are those of `members` who come, or come back, with it.

    A device that was restarted begins with an epoch of which it is a newcomer: it has lost its place in all
    others.
    """

    number: int
    members: tuple[PeerId, ...]
    newcomers: tuple[PeerId, ...]


class News(enum.Enum):
    """What an epoch that somebody told of means for this node."""

    KNOWN = "it is the present one"
    STALE = "its teller must be told the present one"
    ENTER = "it is the present one from now on"
    EXCLUDED = "the others go on without this node"


class End(enum.Enum):
    """What it means that another member has finished in some epoch."""

    NEIGHBOR = "it takes part no longer, its last messages count"
    COMMIT = "everybody was done: this node ends with the result that it keeps"
    EXCLUDED = "the others finished without this node"


def closing_rounds(graph: Graph, contract: str) -> int:
    """How many empty exchanges after the algorithm's end prove that every member is done.

    News crosses the graph in its diameter. With contract `restart` a death ends the epoch, so the
    graph stays what it is; else deaths may lengthen its paths, up to all members in a row.
    """
    members = len(graph.members)
    if 2 * len(graph.edges) == members * (members - 1):
        return min(1, members - 1)
    return graph.diameter() if contract == RESTART else members - 1


def epoch_graph(topology: str, members: Collection[PeerId], seed: int) -> tuple[str, Graph]:
    """The graph of an epoch and its name: the run's topology, or the default if so many form no such graph.

    Raises InvalidParameter when there is no graph at all (no members).
    """
    from fedd.core.topology import build, default_topology  # here: only a device with runs needs graphs

    try:
        return topology, build(topology, members, seed)
    except FeddError:
        name = default_topology(len(members))
        return name, build(name, members, seed)


@dataclass
class Epochs:
    """One node's view of its run. `now` is monotonic time in seconds; nothing here waits.

    `members` are those of the present epoch, sorted. `joinable` says whether the algorithm can take in
    members that come later.
    """

    me: PeerId
    members: tuple[PeerId, ...]
    contract: str
    joinable: bool
    quorum: int
    mark: Mark = FIRST
    out: set[PeerId] = field(default_factory=set)
    """Members of this epoch that take part no longer, without having finished."""
    finished: set[PeerId] = field(default_factory=set)
    """Members of this epoch that have finished in it."""
    blamed: set[PeerId] = field(default_factory=set)
    """Those of `out` that sent this node what it cannot use."""
    waiting: set[PeerId] = field(default_factory=set)
    """Whom this node wants in the next epoch beside those who are in this one."""
    kept: tuple[Mark, ...] = ()
    """The last epochs that this node's algorithm ran to its end in: somebody may have finished in any."""
    _came: frozenset[PeerId] = frozenset()
    """The newcomers of this epoch."""
    _due_at: float | None = None

    @property
    def closes(self) -> bool:
        """Whether this run may have more than one epoch, so that its end is agreed upon."""
        return self.joinable or self.contract == RESTART

    @property
    def frozen(self) -> bool:
        """Whether this epoch cannot be finished any more: its rounds must not go on without the lost."""
        return self.contract == RESTART and bool(self.out) and not self.finished

    @property
    def present(self) -> tuple[PeerId, ...]:
        """The members of this epoch that still take part, sorted."""
        return tuple(peer for peer in self.members if peer not in self.out)

    @property
    def lost(self) -> bool:
        """Whether too few are left for another epoch."""
        return self.frozen and len(self.present) < self.quorum

    @property
    def due_at(self) -> float | None:
        """When `propose` is to be called, None as long as there is nothing to propose."""
        return self._due_at

    def lose(self, peer: PeerId, now: float, *, blamed: bool = False) -> None:
        """A member takes part no longer: it is dead, has left, or no path leads to it.

        `blamed`: this node alone says so, because of what it sent. Whoever blames more than one proposes
        later: among many who blame one and the one who blames them all, the many are heard first.
        """
        self.waiting.discard(peer)
        if peer in self.members and peer not in self.finished:
            self.out.add(peer)
            if blamed:
                self.blamed.add(peer)
            if self.frozen:
                turn = self.present.index(self.me) + len(self.members) * max(0, len(self.blamed) - 1)
                at = now + turn * PATIENCE_S
                self._due_at = at if blamed or self._due_at is None else min(self._due_at, at)

    def refusal(self, peer: PeerId) -> str:
        """Why this member cannot be let in, empty when it can."""
        if self.finished or self.mark in self.kept:
            return "the run is about to end"
        if not self.joinable and (self.contract != RESTART or peer not in self.present):
            return "its algorithm takes in nobody who comes later"
        if self.mark.number >= MAX_EPOCHS:
            return f"the run has had {MAX_EPOCHS} epochs"
        return ""

    def let_in(self, peers: Iterable[PeerId], now: float) -> None:
        """Propose, at once, an epoch with these members too; one that is in already begins anew with all."""
        self.waiting.update(peers)
        self._due_at = now

    def propose(self, now: float) -> Next | None:
        """The epoch to propose now, None when it is not time or there is no reason any more."""
        if self._due_at is None or now < self._due_at:
            return None
        self._due_at = None
        if self.finished or self.mark.number >= MAX_EPOCHS or not (self.frozen or self.waiting):
            return None
        members = tuple(sorted({*self.present, *self.waiting}))
        newcomers = tuple(peer for peer in members if peer not in self.members or peer in self.waiting)
        return Next(self.mark.number + 1, members, newcomers)

    def hear(
        self, mark: Mark, members: tuple[PeerId, ...], now: float, newcomers: Collection[PeerId] = ()
    ) -> News:
        """Somebody, or this node itself, tells of an epoch. ENTER has been done when this returns it.

        Who waits here and is a mere member of it was restarted after it was proposed, and waits on. So does
        who came with an epoch that this one of the same number outdoes, and does not come with it.
        """
        if mark == self.mark:
            return News.KNOWN
        if mark < self.mark:
            return News.STALE
        if self.me not in members:
            return News.EXCLUDED
        if mark.number == self.mark.number:
            self.waiting.update(self._came)
        self.mark, self.members, self._came = mark, members, frozenset(newcomers)
        self.out, self.finished, self.blamed = set(), set(), set()
        self.waiting.difference_update(newcomers)
        self._due_at = now + members.index(self.me) * PATIENCE_S if self.waiting else None
        return News.ENTER

    def keep(self) -> None:
        """This node's algorithm has returned in the present epoch; its result is kept for `hear_end`."""
        self.kept = (*self.kept, self.mark)[-MAX_KEPT:]

    def hear_end(self, peer: PeerId, mark: Mark) -> End:
        """A member, neighbour or not, has finished in the epoch `mark`."""
        if self.closes and mark in self.kept:
            return End.COMMIT
        if mark != self.mark:
            return End.EXCLUDED
        self.finished.add(peer)
        return End.NEIGHBOR


@dataclass
class Sleepers:
    """After a restart: who else is back with a checkpoint of this run, none of which goes on by itself.

    `members` are those of the last epoch that this node knew.
    """

    me: PeerId
    members: tuple[PeerId, ...]
    quorum: int
    asleep: dict[PeerId, int] = field(default_factory=dict)
    """Who is back, and the number of the last epoch that it knew."""
    _since: float = 0.0

    def hear(self, peer: PeerId, epoch: int, now: float) -> None:
        """This member (or this node itself) is back, and was in that epoch."""
        if peer not in self.asleep:
            self._since = now
        self.asleep[peer] = epoch

    def forget(self, peer: PeerId) -> None:
        """This member is away again, or takes part no longer."""
        self.asleep.pop(peer, None)

    @property
    def due_at(self) -> float:
        """When to call `resume`: at once when all are back, else when it seems that nobody else comes."""
        wait_s = 0.0 if self.asleep.keys() >= set(self.members) else SETTLE_S
        turn = sorted(self.asleep).index(self.me) if self.me in self.asleep else 0
        return self._since + wait_s + turn * PATIENCE_S

    def resume(self, now: float) -> Next | None:
        """The epoch to propose now, None when it is not time or too few are back."""
        number = max(self.asleep.values(), default=0) + 1
        if now < self.due_at or len(self.asleep) < self.quorum or self.me not in self.asleep:
            return None
        members = tuple(sorted(self.asleep))
        return Next(number, members, members)
