"""Averaging on directed graphs, over links that may lose messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedd.api import InvalidMessage, InvalidParameter, Message, NotConnected, PeerId, RunContext
from fedd_consensus.countdown import Countdown, needed_rounds
from fedd_consensus.flows import distance
from fedd_consensus.values import parts, received

if TYPE_CHECKING:
    from fedd.api import RunGraph
    from fedd.api.types import FloatArray

    Mass = tuple[FloatArray, float]

_LEAST_WEIGHT = 1e-9
"""A weight that a death left at nearly nothing, or below, divides nothing: the last estimate stays."""


async def push_sum(ctx: RunContext, start: FloatArray, tolerance: float, iterations: int) -> FloatArray:
    """Average with shares of a sum and of a weight, both kept as running totals.

    Update: node i keeps (s_i, w_i), at first (x_i(0), 1), divides both by 1 + its out-degree, keeps a share
    and adds one to the total for each who hears it; whoever hears a total takes what is new in it. The
    estimate is s_i / w_i. Message: the two totals sent to that neighbour so far. Rate: the second eigenvalue
    of the column-stochastic matrix of shares; on one-peer-exponential of 2^d members exact after d rounds.
    What a lost message held is in the next one. A death: who sent to the dead takes the total back, who heard
    from it gives the total back; the sums are again those of the survivors, who end at their mean. If the
    arcs between them no longer lead from everybody to everybody (a directed ring), the run fails. Weights of
    the topology do not count, its arcs do.

    Source: D. Kempe, A. Dobra, J. Gehrke, "Gossip-based computation of aggregate information", FOCS 2003;
    the totals: C. N. Hadjicostis, N. H. Vaidya, A. D. Dominguez-Garcia, "Robust distributed average
    consensus via exchange of running sums", IEEE Trans. Automatic Control 61 (2016).
    """
    countdown = Countdown(ctx, push_sum_rounds(ctx, tolerance), iterations)
    node = _Totals(start)
    ctx.on_leave(node.forget)
    reachable = 0

    def read(peer: PeerId, message: Message) -> Mass:
        total, weight = parts(message, 2)
        if type(weight) is not float or not np.isfinite(weight):
            raise InvalidMessage("it sent a total weight that is no number")
        return received(total, start.shape), weight

    while countdown.begin():
        if len(node.gone) > reachable:
            reachable = len(node.gone)
            _check_survivors(ctx, node.gone)
        before = node.estimate
        node.share(ctx.out_neighbors)
        answers = await ctx.exchange(lambda peer: [*node.sent(peer)], tag="push-sum", read=read)
        for peer, total in answers.items():
            node.take(peer, total)
        if countdown.shows:
            ctx.report(weight=node.weight, change=distance(node.estimate, before))
    return node.estimate


def push_sum_rounds(ctx: RunContext, tolerance: float) -> int | None:
    """How many rounds `push_sum` needs, None for a tolerance of 0.

    Raises InvalidParameter where it cannot be.
    """
    _refuse_unreachable(ctx)
    second, balanced = _second(ctx.graph) if tolerance else (0.0, True)
    # Where some hear more than they send, weights become as small as 1/n, and divide what is left.
    return needed_rounds(second, ctx.graph.period, tolerance if balanced else tolerance / len(ctx.members))


class _Totals:
    """The mass of one node, and the totals that went to and came from each neighbour."""

    def __init__(self, start: FloatArray) -> None:
        self._sum = start.copy()
        self.weight = 1.0
        self._sent: dict[PeerId, Mass] = {}
        self._heard: dict[PeerId, Mass] = {}
        self.gone: set[PeerId] = set()
        self._estimate = start

    @property
    def estimate(self) -> FloatArray:
        """s / w."""
        if self.weight > _LEAST_WEIGHT:
            self._estimate = self._sum / self.weight
        return self._estimate

    def share(self, receivers: tuple[PeerId, ...]) -> None:
        """Put a share on the way to each receiver."""
        parts = 1 + len(receivers)
        part, weight = self._sum / parts, self.weight / parts
        for peer in receivers:
            total, total_weight = self._sent.get(peer, (np.zeros_like(part), 0.0))
            self._sent[peer] = (total + part, total_weight + weight)
            self._sum = self._sum - part
            self.weight -= weight

    def sent(self, peer: PeerId) -> Mass:
        """The totals for a neighbour."""
        return self._sent[peer]

    def take(self, peer: PeerId, total: Mass) -> None:
        """Add what is new in a neighbour's totals; nothing from one who is gone."""
        if peer in self.gone:
            return
        known, known_weight = self._heard.get(peer, (np.zeros_like(total[0]), 0.0))
        self._sum = self._sum + (total[0] - known)
        self.weight += total[1] - known_weight
        self._heard[peer] = total

    def forget(self, peer: PeerId, reason: str) -> None:
        """Undo what went between this node and one that is gone."""
        self.gone.add(peer)
        for book, sign in ((self._sent, 1.0), (self._heard, -1.0)):
            if peer in book:
                total, weight = book.pop(peer)
                self._sum = self._sum + sign * total
                self.weight += sign * weight


def _second(graph: RunGraph) -> tuple[float, bool]:
    """The second modulus of the product of one period's matrices of shares, as a rate a round.

    And whether all weights stay at 1: rows sum to 1, too.
    """
    index = {member: position for position, member in enumerate(graph.members)}
    count = len(index)
    product = np.eye(count)
    for round in range(graph.period):
        shares = np.eye(count)
        for source, target in graph.arcs(round):
            shares[index[target], index[source]] = 1.0
        product = (shares / shares.sum(axis=0)) @ product
    moduli = np.sort(np.abs(np.linalg.eigvals(product)))
    second = float(moduli[-2]) if count > 1 else 0.0
    rate = 0.0 if second < 1e-9 else second ** (1.0 / graph.period)
    return rate, bool(np.allclose(product.sum(axis=1), 1.0))


def _check_survivors(ctx: RunContext, gone: set[PeerId]) -> None:
    """Raise NotConnected when the arcs between the survivors do not lead from everybody to everybody."""
    arcs = {arc for round in range(ctx.graph.period) for arc in ctx.graph.arcs(round)}
    left = [arc for arc in sorted(arcs) if not gone.intersection(arc)]
    members = set(ctx.members) - gone
    for start, end in ((0, 1), (1, 0)):
        reached = {ctx.me}
        frontier = [ctx.me]
        while frontier:
            here = frontier.pop()
            found = {arc[end] for arc in left if arc[start] == here} - reached
            reached |= found
            frontier += sorted(found)
        if reached != members:
            raise NotConnected(
                f"without {', '.join(sorted(gone))} the arcs no longer lead from everybody to everybody",
                hint="use a topology with more arcs, such as directed-exponential",
            )


def _refuse_unreachable(ctx: RunContext) -> None:
    if not ctx.graph.is_strongly_connected():
        raise InvalidParameter(
            "consensus method=push-sum needs arcs that lead from everybody to everybody, this topology has "
            "members that some cannot reach",
            hint="add arcs, or use directed-ring or directed-exponential",
            field="topology",
        )
