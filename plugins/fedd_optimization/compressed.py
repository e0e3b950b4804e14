"""Descent with compressed messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedd.api import InvalidParameter, Message, PeerId, RunContext
from fedd_consensus.codecs import Codec, Incoming, Outgoing, find_codec
from fedd_optimization import bounds, modes
from fedd_optimization.iteration import Iteration, Iterative
from fedd_optimization.outlook import Theory

if TYPE_CHECKING:
    from fedd_optimization.vectors import Vector

PIECE = 512 * 1024
"""Elements in one exchange: 4 MiB when the codec makes nothing smaller."""


@dataclass(frozen=True)
class ChocoSGD(Iterative):
    """CHOCO-SGD: decentralised stochastic gradient descent that sends compressed differences.

    Update: h = x(k) - a g(x(k); minibatch); everybody sends Q(h - c), c the copy of its iterate that all
    neighbours hold, and c <- c + Q(h - c); x(k+1) = h + gamma sum_j w_ij (c_j - c_i). Message: the encoded
    difference. Rate: as D-SGD's, the codec slows only what decays faster; what a codec forgets is part
    of the next difference, so nothing is lost for good.
    A death: a copy is forgotten with its neighbour; no other memory, so the survivors go on as with D-SGD.

    Source: A. Koloskova, S. U. Stich, M. Jaggi, "Decentralized stochastic optimization and gossip
    algorithms with compressed communication", ICML 2019, algorithm 2.
    """

    name: ClassVar[str] = "choco-sgd"
    contract: ClassVar[str] = "survivors"

    batch: int = field(default=32, metadata={"help": "samples of a gradient, 0: all of the device"})
    codec: str = field(
        default="int8", metadata={"help": "none, float32, float16, bfloat16, int8 or top-k:SHARE"}
    )
    gamma: float = field(
        default=0.9, metadata={"help": "step towards the neighbours' copies; less for top-k, near its share"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 0:
            raise ValueError(f"batch must be 0 or more, not {self.batch}")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma must be larger than 0 and at most 1, not {self.gamma:g}")
        try:
            find_codec(self.codec)
        except InvalidParameter as error:
            raise ValueError(str(error)) from None

    def theory(self) -> Theory:
        """As if the codec forgot nothing; what it forgets costs more iterations."""
        return Theory(bounds.MEAN, modes.local_descent(1, self.gamma))

    def message_bytes(self, x: Vector) -> int:
        """What the codec makes of it: as much for all values."""
        sizes = (min(PIECE, x.size - at) for at in range(0, x.size, PIECE))
        return sum(_bytes(find_codec(self.codec).encode(np.zeros(size))) for size in sizes)

    async def run(self, ctx: RunContext) -> Message:
        """Iterate."""
        iteration = Iteration(ctx, self, *self.abilities)
        iteration.needs_both_ways()
        x = (await iteration.begin()).astype(np.float64)
        iteration.predict(x)
        copies = [
            _Copies(find_codec(self.codec), slice(at, min(at + PIECE, x.size)))
            for at in range(0, x.size, PIECE)
        ]
        for _ in iteration.steps():
            gradient = iteration.gradient(x, self.batch)
            moved = x - self.step * gradient
            pulls = [await piece.exchange(ctx, moved, iteration) for piece in copies]
            x = moved + self.gamma * np.concatenate(pulls)
            others = {peer: np.concatenate([piece.of(peer) for piece in copies]) for peer in ctx.neighbors}
            await iteration.end_step(x, gradient, others.values(), moved)
        return await iteration.finish(x)


class _Copies:
    """What the neighbours know of one piece of this node's iterate, and this node of theirs."""

    def __init__(self, codec: Codec, part: slice) -> None:
        self._codec = codec
        self._part = part
        self._size = part.stop - part.start
        self._mine = Outgoing(codec, (self._size,))
        self._theirs: dict[PeerId, Incoming] = {}

    def of(self, peer: PeerId) -> Vector:
        """This node's copy of a neighbour's piece."""
        return self._theirs[peer].copy

    async def exchange(self, ctx: RunContext, iterate: Vector, iteration: Iteration) -> Vector:
        """Bring all copies nearer to `iterate`; return the weighted pull of the neighbours' copies."""
        for peer in ctx.neighbors:
            self._theirs.setdefault(peer, Incoming(self._codec, (self._size,)))
        weights = dict(ctx.neighbors)
        message = self._mine.encode(iterate[self._part])
        iteration.count(_bytes(message) * len(weights))
        copies = await ctx.exchange(
            message, ChocoSGD.name, read=lambda peer, answer: self._theirs[peer].apply(answer)
        )
        pull = np.zeros(self._size)
        for peer, copy in copies.items():
            pull += weights[peer] * (copy - self._mine.copy)
        return pull


def _bytes(message: Message) -> int:
    """What the arrays of an encoded difference take."""
    if isinstance(message, np.ndarray):
        return message.nbytes
    return sum(_bytes(part) for part in message) if isinstance(message, list) else 0
