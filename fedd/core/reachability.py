"""Who is reachable over edges that both ends list, kept current change by change."""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping
from collections.abc import Set as AbstractSet
from typing import TypeAlias

from fedd.api.types import PeerId
from fedd.core.records import Record

# Whether each of some hangs from the root, in the end.
_Known: TypeAlias = dict[PeerId, bool]
_NONE: frozenset[PeerId] = frozenset()
# In place of a parent, neither an id: the tree edge to it is gone; the root has none.
_CUT: PeerId = ""
_NOBODY: PeerId = "/"


class TwoSidedEdges:
    """The undirected graph of edges that both ends list, and a tree of those who are reachable in it.

    Requiring both ends (OSPF's bidirectionality check, RFC 2328 section 16.1) means that no member can attach
    itself, or anybody else, to a peer that does not hear it.

    The tree hangs from `root`. An edge outside it may go without consequence; one that joins two reachable
    members may come without. Where a tree edge has gone, the part below is hung from another edge, and only
    where there is none is it lost. So a change costs what it changes, not the size of the graph (the idea of
    incremental shortest path first, McQuillan, Richer and Rosen 1980, without distances).
    """

    __slots__ = ("_parent", "_records", "muted")

    def __init__(self, root: PeerId, records: Mapping[PeerId, Record]) -> None:
        self._records = records
        self._parent: dict[PeerId, PeerId] = {root: _NOBODY}
        self.muted: set[PeerId] = set()
        """Whose record is there and counts for nothing."""

    @property
    def reachable(self) -> KeysView[PeerId]:
        """Everybody connected with the root, itself included, at the last `update`."""
        return self._parent.keys()

    def adjacent(self, peer: PeerId) -> AbstractSet[PeerId]:
        """Those that list `peer` and are listed by it."""
        return set(self._adjacent(peer))

    def degree(self, peer: PeerId) -> int:
        """How many edges `peer` has."""
        return len(self._adjacent(peer))

    def update(
        self, before: Mapping[PeerId, Record | None]
    ) -> tuple[set[PeerId], list[PeerId], list[PeerId]]:
        """Bring `reachable` up to date; whom the changes concern, who has come to be in it, who is no longer.

        `before` holds what counted at the last update of all whose record has been replaced since, or taken
        away, or muted; None is nothing.
        """
        concerned, cut, outside, added = self._changes(before)
        # Whether each of those that changed was reachable before.
        was: dict[PeerId, bool] = {}
        if cut:
            self._mend(cut, was)
        parent = self._parent
        for peer in outside:
            if peer not in parent:
                self._join(peer, was)
        for one, other in added:
            if other not in parent and one in parent and self._is_edge(one, other):
                self._grow(one, other, was)
        gained = [peer for peer, before in was.items() if not before and peer in self._parent]
        lost = [peer for peer, before in was.items() if before and peer not in self._parent]
        return concerned, gained, lost

    def _changes(
        self, replaced: Mapping[PeerId, Record | None]
    ) -> tuple[set[PeerId], list[PeerId], list[PeerId], list[tuple[PeerId, PeerId]]]:
        """Whom it concerns, whose tree edge has gone, who may be reached now, and what edges may lead there.

        An edge that has come between two of the reachable needs no look: should either be cut off, then
        whoever searches for another way finds it.
        """
        parent, records, muted = self._parent, self._records, self.muted
        concerned: set[PeerId] = set()
        cut: dict[PeerId, None] = {}
        outside: list[PeerId] = []
        added: list[tuple[PeerId, PeerId]] = []
        for peer, held in replaced.items():
            record = records.get(peer)
            inside = peer in parent
            if not inside:
                concerned.add(peer)
                outside.append(peer)
            if record is None or peer in muted:
                new: Iterable[PeerId] = ()
                gone: Iterable[PeerId] = held.edges if held is not None else ()
            elif held is None:
                new, gone = record.edges, ()
                concerned.add(peer)
                concerned.update(record.lost)
            else:
                said = record.since(held)
                new, gone = said.new, said.gone
                if said.concerns:
                    concerned.update(said.concerns)
            if not inside:
                continue
            if gone:
                above = parent[peer]
                for other in gone:
                    if other == above:
                        cut[peer] = None
                    elif parent.get(other) == peer:
                        cut[other] = None
            for other in new:
                if other not in parent:
                    added.append((peer, other))
        return concerned, list(cut), outside, added

    def _listed(self, peer: PeerId) -> frozenset[PeerId]:
        record = self._records.get(peer)
        return record.edges if record is not None and peer not in self.muted else _NONE

    def _is_edge(self, one: PeerId, other: PeerId) -> bool:
        return other in self._listed(one) and one in self._listed(other)

    def _adjacent(self, peer: PeerId) -> list[PeerId]:
        theirs, muted = self._records.get, self.muted
        return [
            other
            for other in self._listed(peer)
            if (back := theirs(other)) is not None
            and peer in back.edges
            and other != peer
            and other not in muted
        ]

    def _mend(self, waiting: list[PeerId], was: dict[PeerId, bool]) -> None:
        """Hang each of those `waiting`, who lost their tree edge, from another, or let it go."""
        parent = self._parent
        for peer in waiting:
            parent[peer] = _CUT
        # Who was found to hang from the root, and who was not: the latter may since.
        known: _Known = {_NOBODY: True, _CUT: False}
        waiting = [peer for peer in waiting if not self._hang(peer, known)]
        if waiting:
            known = {peer: True for peer, hangs in known.items() if hangs}
            known[_CUT] = False
        for peer in waiting:
            if parent.get(peer) == _CUT:
                self._search(peer, known, was)

    def _hang(self, peer: PeerId, known: _Known) -> bool:
        """Hang `peer` from a neighbour that hangs from the root, if one is found."""
        for other in self._listed(peer):
            # One by one: the first that is looked at often will do.
            hangs = known.get(other)
            if hangs is False or peer not in self._listed(other):
                continue
            if hangs or self._is_rooted(other, known):
                self._parent[peer] = other
                return True
        return False

    def _is_rooted(self, peer: PeerId, known: _Known) -> bool:
        """Whether the way up from `peer` leads to the root; noted for all on it."""
        parent = self._parent
        path = []
        at = peer
        while (hangs := known.get(at)) is None:
            path.append(at)
            at = parent.get(at, _CUT)
        for passed in path:
            known[passed] = hangs
        return hangs

    def _search(self, start: PeerId, known: _Known, was: dict[PeerId, bool]) -> None:
        """Look through all that `start` is connected with for somebody who hangs from the root.

        `known` are those of whom it is known that they do.
        """
        parent, theirs, muted = self._parent, self._records.get, self.muted
        came_from: dict[PeerId, PeerId | None] = {start: None}
        todo = [start]
        for peer in todo:
            for other in self._listed(peer):
                if other in came_from:
                    continue
                back = theirs(other)
                if back is None or peer not in back.edges or other in muted:
                    continue
                at = other
                while at not in known and at not in came_from:
                    at = parent.get(at, _CUT)
                if known.get(at):
                    known[other] = True
                    self._turn(peer, other, came_from, was)
                    return
                came_from[other] = peer
                todo.append(other)
        for peer in todo:
            if peer in parent:
                was.setdefault(peer, True)
                del parent[peer]

    def _turn(
        self,
        peer: PeerId,
        above: PeerId,
        came_from: dict[PeerId, PeerId | None],
        was: dict[PeerId, bool],
    ) -> None:
        """Hang `peer` from `above`, and the way back to where the search began below it."""
        at: PeerId | None = peer
        new = []
        while at is not None:
            if at not in self._parent:
                was.setdefault(at, False)
                new.append(at)
            self._parent[at] = above
            above, at = at, came_from[at]
        for at in new:
            for other in self._listed(at):
                if other not in self._parent and at in self._listed(other):
                    self._grow(at, other, was)

    def _join(self, peer: PeerId, was: dict[PeerId, bool]) -> None:
        """Take `peer` into the tree by the first of its edges that leads there, if one does."""
        parent = self._parent
        for other in self._listed(peer):
            if other in parent and peer in self._listed(other) and other != peer:
                self._grow(other, peer, was)
                return

    def _grow(self, above: PeerId, peer: PeerId, was: dict[PeerId, bool]) -> None:
        """Take `peer`, and all that it brings, into the tree."""
        parent = self._parent
        parent[peer] = above
        todo = [peer]
        for peer in todo:
            was.setdefault(peer, False)
            for other in self._listed(peer):
                # Most are in the tree, so this is asked first.
                if other not in parent and peer in self._listed(other):
                    parent[other] = peer
                    todo.append(other)
