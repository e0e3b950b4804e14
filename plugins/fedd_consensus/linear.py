"""Averaging by fixed weights, plain and accelerated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fedd.api import InvalidParameter, Message, PeerId, RunContext
from fedd_consensus.countdown import Countdown, needed_rounds
from fedd_consensus.flows import Flows, distance, edge_weight, received_degree
from fedd_consensus.values import parts, received

if TYPE_CHECKING:
    from fedd.api.types import FloatArray


def refuse_directed(ctx: RunContext, method: str) -> None:
    """Raise InvalidParameter when the run's graph is directed and the method needs both ways of an edge."""
    if ctx.graph.directed:
        raise InvalidParameter(
            f"consensus method={method} needs edges that go both ways, this run's topology is directed",
            hint="use method=push-sum, or an undirected topology such as ring, exponential or hypercube",
            field="topology",
        )


def metropolis_rounds(ctx: RunContext, tolerance: float) -> int | None:
    """About how many rounds the ledger needs until all know that they agree, None for a tolerance of 0.

    To agree, then to the end of the window of N - 1 rounds, and one window more in which that is learnt.
    """
    refuse_directed(ctx, "metropolis")
    rounds = needed_rounds(ctx.spectrum().second, 1, tolerance)
    window = max(1, len(ctx.members) - 1)
    return rounds and (math.ceil(rounds / window) + 1) * window


async def lazy(ctx: RunContext, start: FloatArray, tolerance: float, iterations: int) -> FloatArray:
    """Average with half the graph's weights.

    Update: x_i = x_i(0) - sum_j F_ij, F_ij += w_ij (x_i - x_j), w_ij half of the Metropolis weight, which is
    x = (I + W)/2 x. Message: x_i and i's degree. Rate: (1 + lambda_2(W)) / 2 a round; no eigenvalue is
    negative, so that no topology makes it oscillate. A death: the neighbours delete the entries of the dead,
    the others count their rounds anew and end at the mean of the survivors; in the last rounds it leaves what
    it leaves, and `disagreement` says so.

    Source: S. Boyd, A. Ghosh, B. Prabhakar, D. Shah, "Randomized gossip algorithms", IEEE Trans. Inf.
    Theory 52 (2006); the entries: P. Jesus, C. Baquero, P. S. Almeida (2015).
    """
    countdown = Countdown(ctx, lazy_rounds(ctx, tolerance), iterations)
    flows = Flows(ctx, start)
    value = start

    def read(peer: PeerId, message: Message) -> tuple[FloatArray, int]:
        theirs, their_degree = parts(message, 2)
        return received(theirs, start.shape), received_degree(their_degree, ctx)

    while countdown.begin():
        weights = ctx.neighbors
        answers = await ctx.exchange([value, len(weights)], tag="lazy", read=read)
        disagreement = 0.0
        for peer, (other, their_degree) in answers.items():
            degrees = (len(weights), their_degree)
            weight = edge_weight(ctx.graph.rule, weights.get(peer, 0.0), degrees, lazy=True)
            flows.book(peer, weight * (value - other))
            disagreement = max(disagreement, distance(value, other))
        value = flows.value
        if countdown.shows:
            ctx.report(disagreement=disagreement)
    return value


def lazy_rounds(ctx: RunContext, tolerance: float) -> int | None:
    """How many rounds `lazy` needs, None for a tolerance of 0. Raises InvalidParameter where it cannot be."""
    refuse_directed(ctx, "lazy")
    upper = ctx.spectrum().upper if tolerance else 0.0
    return needed_rounds(upper if ctx.graph.rule == "lazy" else (1 + upper) / 2, 1, tolerance)


def chebyshev_rounds(ctx: RunContext, tolerance: float) -> int | None:
    """How many rounds `chebyshev` needs, None for a tolerance of 0.

    Raises InvalidParameter where it cannot be.
    """
    refuse_directed(ctx, "chebyshev")
    spectrum = ctx.spectrum()
    if spectrum.chebyshev_rounds(0.5) is None:
        raise InvalidParameter(
            "consensus method=chebyshev needs a symmetric matrix, the weights of this topology are not",
            hint="give both sides of an edge the same weight",
            field="topology",
        )
    return spectrum.chebyshev_rounds(tolerance) if tolerance else None


async def chebyshev(ctx: RunContext, start: FloatArray, tolerance: float, iterations: int) -> FloatArray:
    """Average with the polynomial of W that is smallest on its spectrum.

    Update: x(1) = z x(0) / sigma, x(k+1) = 2 r(k+1) z x(k) - r(k) r(k+1) x(k-1), where z = (W - c) / h maps
    the eigenvalues of W but the one at 1 into [-1, 1], sigma = (1 - c) / h, r(1) = 1 / sigma and
    r(k+1) = 1 / (2 sigma - r(k)). Message: x_i. Rate: 1 / T_k(sigma) after k rounds, T_k the Chebyshev
    polynomial, about the square root of the rounds of plain averaging; the number of rounds is known before
    the first. A death: the polynomial was made for the graph as it was, so the run starts over with the
    survivors (contract restart) and ends at their mean; with the contract survivors it ends at nobody's.

    Source: M. Arioli, J. Scott, "Chebyshev acceleration of iterative refinement", Numerical Algorithms 66
    (2014); for averaging: E. Montijano, J. I. Montijano, C. Sagues, "Chebyshev polynomials in distributed
    consensus applications", IEEE Trans. Signal Processing 61 (2013).
    """
    countdown = Countdown(ctx, chebyshev_rounds(ctx, tolerance), iterations)
    centre, half = ctx.spectrum().interval
    sigma = (1 - centre) / half
    before, value, ratio = start, start, 0.0
    while countdown.begin():
        weights = ctx.neighbors
        answers = await ctx.exchange(
            value, tag="chebyshev", read=lambda peer, message: received(message, start.shape)
        )
        mixed = value.copy()
        disagreement = 0.0
        for peer, other in answers.items():
            mixed += weights.get(peer, 0.0) * (other - value)
            disagreement = max(disagreement, distance(value, other))
        mapped = (mixed - centre * value) / half
        first = countdown.made == 1
        following = 1 / sigma if first else 1 / (2 * sigma - ratio)
        factor = following if first else 2 * following
        before, value = value, factor * mapped - ratio * following * before
        ratio = following
        if countdown.shows:
            ctx.report(disagreement=disagreement)
    return np.asarray(value)
