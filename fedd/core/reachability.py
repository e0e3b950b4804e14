"""Who is reachable over edges that both ends list, kept current change by change."""

from __future__ import annotations

from collections.abc import KeysView
from collections.abc import Set as AbstractSet
from typing import TypeAlias

from fedd.api.types import PeerId

_Peers: TypeAlias = set[PeerId]
_NONE: frozenset[PeerId] = frozenset()
# In place of a parent: the tree edge to it is gone.
_CUT: PeerId = ""


class TwoSidedEdges:
    """The undirected graph of edges that both ends list, and a tree of those who are reachable in it.

    Requiring both ends (OSPF's bidirectionality check, RFC 2328 section 16.1) means that no member can attach
    itself, or anybody else, to a peer that does not hear it.

    The tree hangs from `root`. An edge outside it may go without consequence; one that joins two reachable
    members may come without. Where a tree edge has gone, the part below is hung from another edge, and only
    where there is none is it lost. So a change costs what it changes, not the size of the graph (the idea of
    incremental shortest path first, McQuillan, Richer and Rosen 1980, without distances).
    """

    def __init__(self, root: PeerId) -> None:
        self._listed: dict[PeerId, frozenset[PeerId]] = {}
        self._parent: dict[PeerId, PeerId | None] = {root: None}
        # Since the last update: whose tree edge has gone, and which edges have come.
        self._cut: dict[PeerId, None] = {}
        self._added: list[tuple[PeerId, PeerId]] = []

    @property
    def reachable(self) -> KeysView[PeerId]:
        """Everybody connected with the root, itself included, at the last `update`."""
        return self._parent.keys()

    def set(self, peer: PeerId, neighbours: frozenset[PeerId]) -> None:
        """Replace what `peer` lists; unknown peers may be listed and count once they list back."""
        listed = self._listed
        before = listed.get(peer)
        listed[peer] = neighbours
        if not before:
            new: AbstractSet[PeerId] = neighbours
        else:
            new = neighbours - before
            # Nothing has gone if as many are new as there are more.
            if len(neighbours) - len(before) != len(new):
                parent = self._parent
                above = parent.get(peer)
                for other in before - neighbours:
                    if parent.get(other) == peer:
                        self._cut[other] = None
                    elif above == other:
                        self._cut[peer] = None
        for other in new:
            theirs = listed.get(other)
            if theirs is not None and peer in theirs:
                self._added.append((peer, other))

    def remove(self, peer: PeerId) -> None:
        """Forget `peer` and its edges."""
        self.set(peer, _NONE)
        del self._listed[peer]

    def adjacent(self, peer: PeerId) -> AbstractSet[PeerId]:
        """Those that list `peer` and are listed by it."""
        return set(self._adjacent(peer))

    def degree(self, peer: PeerId) -> int:
        """How many edges `peer` has."""
        return len(self._adjacent(peer))

    def update(self) -> tuple[list[PeerId], list[PeerId]]:
        """Bring `reachable` up to date; who has come to be in it, and who is no longer."""
        # Whether each of those that changed was reachable before.
        was: dict[PeerId, bool] = {}
        if self._cut:
            self._mend(was)
        parent = self._parent
        for one, other in self._added:
            if one in parent:
                if other not in parent and self._is_edge(one, other):
                    self._grow(one, other, was)
            elif other in parent and self._is_edge(one, other):
                self._grow(other, one, was)
        self._added.clear()
        gained = [peer for peer, before in was.items() if not before and peer in self._parent]
        lost = [peer for peer, before in was.items() if before and peer not in self._parent]
        return gained, lost

    def _is_edge(self, one: PeerId, other: PeerId) -> bool:
        return other in self._listed.get(one, _NONE) and one in self._listed.get(other, _NONE)

    def _adjacent(self, peer: PeerId) -> list[PeerId]:
        theirs = self._listed.get
        return [
            other
            for other in theirs(peer, _NONE)
            if (back := theirs(other)) is not None and peer in back and other != peer
        ]

    def _mend(self, was: dict[PeerId, bool]) -> None:
        """Hang what lost its tree edge from another, or let it go."""
        parent = self._parent
        waiting = list(self._cut)
        self._cut.clear()
        for peer in waiting:
            parent[peer] = _CUT
        # Whoever may be found to hang from the root in the course of this.
        rooted: _Peers = set()
        progress = True
        while waiting and progress:
            left = [peer for peer in waiting if not self._hang(peer, rooted)]
            progress = len(left) < len(waiting)
            waiting = left
        for peer in waiting:
            if parent.get(peer) == _CUT:
                self._search(peer, rooted, was)

    def _hang(self, peer: PeerId, rooted: _Peers) -> bool:
        """Hang `peer` from a neighbour that hangs from the root, if there is one."""
        listed = self._listed.get
        for other in listed(peer, _NONE):
            # One by one: the first that is looked at often will do.
            if (
                (back := listed(other)) is not None
                and peer in back
                and other != peer
                and self._is_rooted(other, rooted)
            ):
                self._parent[peer] = other
                return True
        return False

    def _is_rooted(self, peer: PeerId, rooted: _Peers) -> bool:
        parent = self._parent
        path = []
        at: PeerId | None = peer
        while at is not None and at not in rooted:
            path.append(at)
            at = parent.get(at, _CUT)
            if at == _CUT:
                return False
        rooted.update(path)
        return True

    def _search(self, start: PeerId, rooted: _Peers, was: dict[PeerId, bool]) -> None:
        """Look through all that `start` is connected with for somebody who hangs from the root."""
        parent = self._parent
        came_from: dict[PeerId, PeerId | None] = {start: None}
        todo = [start]
        for peer in todo:
            for other in self._adjacent(peer):
                if other in came_from:
                    continue
                if self._is_rooted(other, rooted):
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
            for other in self._adjacent(at):
                if other not in self._parent:
                    self._grow(at, other, was)

    def _grow(self, above: PeerId, peer: PeerId, was: dict[PeerId, bool]) -> None:
        """Take `peer`, and all that it brings, into the tree."""
        parent = self._parent
        parent[peer] = above
        todo = [peer]
        for peer in todo:
            was.setdefault(peer, False)
            for other in self._adjacent(peer):
                if other not in parent:
                    parent[other] = peer
                    todo.append(other)
