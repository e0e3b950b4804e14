"""Who takes part beside one node in an epoch of a run: neighbours, their weights, who is out, the quorum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from fedd.api.errors import QuorumLost
from fedd.api.types import PeerId
from fedd.core.graph import Graph
from fedd.core.mixing import neighbor_weights
from fedd.worker.port import Round


class Neighborhood:
    """One node's. It changes between exchanges only."""

    def __init__(self, me: PeerId, graph: Graph, quorum: int) -> None:
        self._me = me
        self._graph = graph
        self._quorum = quorum
        self._weights: Mapping[PeerId, float] | None = None
        self._leave_callbacks: list[Callable[[PeerId, str], None]] = []
        self.present = graph.neighbors(me)
        """The neighbours of the next exchange, sorted."""
        self.gone: dict[PeerId, str] = {}
        """The members that are out of the run, with the reason."""
        self.finished: set[PeerId] = set()
        self.late: set[PeerId] = set()
        """Neighbours no more by a word that came between exchanges: the rounds learn it in the next one."""
        self.refused: set[PeerId] = set()
        """Neighbours that this node itself has cut off: what had come of theirs is not looked at."""

    def weights(self, round: int) -> Mapping[PeerId, float]:
        """Neighbours still in the run, sorted, with the graph's weights."""
        if self._weights is None:
            weights = neighbor_weights(self._graph, self._me, self.present, self.gone, round=round)
            self._weights = MappingProxyType(weights)
        return self._weights

    def turn(self) -> None:
        """An exchange was made: in a graph with a period the next one has other weights."""
        if self._graph.period > 1:
            self._weights = None

    def on_leave(self, callback: Callable[[PeerId, str], None]) -> None:
        """Call `callback(peer, reason)` for every member that falls out of the run."""
        self._leave_callbacks.append(callback)

    def part_from(self, completed: Round) -> None:
        """Some members take no part any more, or are no neighbours. Raises QuorumLost when few are left."""
        gone = {peer: why for peer, why in completed.gone.items() if peer not in self.gone}
        left = {*completed.gone, *completed.cut, *completed.finished}
        self.gone.update(gone)
        self.finished.update(completed.finished)
        self.present = tuple(peer for peer in self.present if peer not in left)
        self._weights = None
        for peer in sorted(gone):
            for callback in self._leave_callbacks:
                callback(peer, gone[peer])
        if len(self.component()) < self._quorum:
            raise self._quorum_lost()

    def part_late(self, peer: PeerId, reason: str, how: str) -> None:
        """The same, told between two exchanges; `how` is gone, finished or cut."""
        if peer in self.present:
            self.late.add(peer)
        match how:
            case "gone":
                self.part_from(Round({}, gone={peer: reason}))
            case "finished":
                self.part_from(Round({}, finished=(peer,)))
            case _:
                self.part_from(Round({}, cut=(peer,)))

    def component(self) -> tuple[PeerId, ...]:
        """The members that this node can still reach."""
        return tuple(sorted(self._graph.reachable(self._me, without=self.gone)))

    def heard(self) -> tuple[PeerId, ...]:
        """Those of them whose messages were not refused here."""
        return tuple(peer for peer in self.component() if peer not in self.refused)

    def _quorum_lost(self) -> QuorumLost:
        lost = ", ".join(f"{peer} ({reason})" for peer, reason in sorted(self.gone.items()))
        return QuorumLost(
            f"{len(self.component())} of {len(self._graph.members)} members are left, "
            f"the quorum is {self._quorum}",
            hint=f"out: {lost}",
        )
