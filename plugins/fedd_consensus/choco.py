"""Averaging with small messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedd.api import Message, PeerId, RunContext
from fedd_consensus.codecs import Incoming, Outgoing, TopK, find_codec
from fedd_consensus.countdown import Countdown, needed_rounds
from fedd_consensus.flows import Flows, distance, edge_weight, received_degree
from fedd_consensus.linear import refuse_directed
from fedd_consensus.values import parts

if TYPE_CHECKING:
    from fedd.api.types import FloatArray
    from fedd_consensus.codecs import Codec


async def choco(
    ctx: RunContext, start: FloatArray, tolerance: float, iterations: int, codec_name: str, gamma: float
) -> FloatArray:
    """CHOCO-Gossip: encoded differences to a copy that everybody has (error feedback).

    Update: q_i = Q(x_i - c_i); c_i += q_i everywhere; x_i += gamma sum_j w_ij (c_j - c_i). Message: q_i and
    i's degree. Rate: that of 1 - gamma (1 - lambda(W)) with a codec that forgets little (float16, bfloat16,
    int8); top-k needs a gamma of about its share and 1 / share as many rounds. So the number of rounds
    is foreseen: an estimate, `disagreement` says what was reached. A death: the neighbours delete the entries
    of the dead, the others go on to the mean of the survivors; in the last rounds it leaves what it leaves.

    Source: A. Koloskova, S. U. Stich, M. Jaggi, "Decentralized stochastic optimization and gossip
    algorithms with compressed communication", ICML 2019, algorithm 1; the entries: P. Jesus, C. Baquero,
    P. S. Almeida (2015).
    """
    codec = find_codec(codec_name)
    step = gamma or default_gamma(codec)
    countdown = Countdown(ctx, choco_rounds(ctx, tolerance, codec, step), iterations)
    flows = Flows(ctx, start)
    mine = Outgoing(codec, start.shape)
    copies: dict[PeerId, Incoming] = {peer: Incoming(codec, start.shape) for peer in ctx.neighbors}
    value = start

    def read(peer: PeerId, message: Message) -> tuple[FloatArray, int]:
        encoded, their_degree = parts(message, 2)
        degree = received_degree(their_degree, ctx)
        return copies[peer].apply(encoded), degree

    while countdown.begin():
        weights = ctx.neighbors
        answers = await ctx.exchange([mine.encode(value), len(weights)], tag="choco", read=read)
        disagreement = 0.0
        for peer, (copy, their_degree) in answers.items():
            degrees = (len(weights), their_degree)
            weight = edge_weight(ctx.graph.rule, weights.get(peer, 0.0), degrees)
            flows.book(peer, step * weight * (mine.copy - copy))
            disagreement = max(disagreement, distance(mine.copy, copy))
        value = flows.value
        if countdown.shows:
            ctx.report(disagreement=disagreement)
    return value


def choco_rounds(ctx: RunContext, tolerance: float, codec: Codec, step: float) -> int | None:
    """How many rounds `choco` needs with this gamma, None for a tolerance of 0.

    Raises InvalidParameter where it cannot be.
    """
    refuse_directed(ctx, "choco")
    if not tolerance:
        return None
    spectrum = ctx.spectrum()
    second = max(abs(1 - step * (1 - spectrum.upper)), abs(1 - step * (1 - spectrum.lower)))
    needed = needed_rounds(second, 1, tolerance)
    slack = 1.5 if isinstance(codec, TopK) else 1.1
    return needed and math.ceil(needed * slack)


def default_gamma(codec: Codec) -> float:
    """1 for codecs that forget little; for top-k its share."""
    return codec.share if isinstance(codec, TopK) else 1.0
