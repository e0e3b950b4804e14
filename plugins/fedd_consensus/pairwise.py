"""Averaging two by two, without rounds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fedd.api import Message, NotConnected, PeerId, RunContext
from fedd_consensus.countdown import Countdown, needed_rounds
from fedd_consensus.flows import Flows, distance
from fedd_consensus.linear import refuse_directed
from fedd_consensus.values import received

if TYPE_CHECKING:
    from fedd.api import RunGraph
    from fedd.api.types import FloatArray

_TAG = "pairwise"
_SLACK = 2.0
"""The rate is a mean over random choices of one pair at a time; here many meet at once, and a value may
have changed while its question was on the way."""


async def pairwise(ctx: RunContext, start: FloatArray, tolerance: float, iterations: int) -> FloatArray:
    """Random pairwise gossip: ask one neighbour after the other, wait for nobody else.

    Update: i asks a random neighbour j; both move to their mean, x_i = x_i(0) - sum_j F_ij,
    F_ij += (x_i - x_j) / 2 with opposite signs at both ends. Message: x_i; the answer: what goes over the
    edge, or nothing when two questions cross and the lower id's counts. Rate: after k questions of all
    together the expected square of the disagreement is lambda_2(E W)^k of what it was,
    E W = I - sum over i, j of (e_i - e_j)(e_i - e_j)^T / (2 n d_i), if one pair meets at a time; `iterations`
    are the questions of each. A death: the neighbours delete the entries of the dead, everybody asks on,
    four times as often as it would have taken, and ends at the mean of the survivors. Who asks whom is drawn
    from the seed, who is answered first is not: two runs differ in the last digits. Weights do not count.

    Source: S. Boyd, A. Ghosh, B. Prabhakar, D. Shah, "Randomized gossip algorithms", IEEE Trans. Inf.
    Theory 52 (2006), section III; the entries: P. Jesus, C. Baquero, P. S. Almeida (2015).
    """
    refuse_directed(ctx, "pairwise")
    flows = Flows(ctx, start)

    asked: PeerId | None = None

    def meet(peer: PeerId, message: Message) -> Message:
        if peer == asked and ctx.me < peer:
            return None  # else the two would change places instead of meeting
        amount = (flows.value - received(message, start.shape)) / 2
        flows.book(peer, amount)
        return amount

    def read(peer: PeerId, message: Message) -> FloatArray | None:
        return None if message is None else received(message, start.shape)

    ctx.on_ask(_TAG, meet)
    countdown = Countdown(ctx, needed_questions(ctx.graph, tolerance), iterations)
    draw = ctx.rng(_TAG)
    while countdown.begin():
        near = tuple(ctx.neighbors)
        if not near:
            break
        peer = near[int(draw.integers(len(near)))]
        asked = peer
        try:
            amount = await ctx.ask(peer, flows.value, _TAG, read=read)
        except NotConnected:
            amount = None  # it is gone, which counts anew, or has finished
        asked = None
        if amount is not None:
            flows.book(peer, -amount)
            if countdown.shows:
                ctx.report(disagreement=2 * distance(amount, np.zeros_like(amount)))
        if countdown.ended:
            # Whoever ended now would answer no more: wait here until the neighbours have asked enough, too.
            await ctx.exchange(None, tag=_TAG)
    return flows.value


def needed_questions(graph: RunGraph, tolerance: float) -> int | None:
    """How many questions of each node bring the disagreement's norm to `tolerance` of what it was.

    None for a tolerance of 0.
    """
    count = len(graph.members)
    if not tolerance or count < 2:
        return None if not tolerance else 1
    index = {member: position for position, member in enumerate(graph.members)}
    laplacian = np.zeros((count, count))
    for source, target in graph.arcs():
        share = 1.0 / graph.degree(source)
        one, other = index[source], index[target]
        laplacian[one, one] += share
        laplacian[other, other] += share
        laplacian[one, other] -= share
        laplacian[other, one] -= share
    second = 1.0 - float(np.linalg.eigvalsh(laplacian)[1]) / (2 * count)
    needed = needed_rounds(math.sqrt(second) ** count, 1, tolerance)
    return needed and math.ceil(_SLACK * needed)
