"""One exchange of vectors with all neighbours, and the books of what went over each edge.

Agreed weights. Methods with books take as the weight of an edge the smaller of what its two ends hold it
for: each message names the sender's weights. While nobody dies these are equal. When a death becomes known
at different times at the two ends, they still use one number, so mixing stays doubly stochastic. Methods
without memory take their own row of W: what is uneven for a moment leaves no trace.

Books. Every exact method carries a correction whose sum over all nodes must stay fixed: the tracker's sum
is the sum of the gradients, EXTRA's memory sums to zero. Each is a sum of transfers over edges, booked at
both ends with opposite signs. When a neighbour is gone its entry is deleted, and what the dead had put
in or taken out is undone: the sums hold among the survivors, and the method ends at *their* optimum.

Source: the edge ledger of P. Jesus, C. Baquero, P. S. Almeida, "Flow updating: fault-tolerant aggregation
for dynamic networks", J. Parallel Distrib. Comput. 78 (2015), here for trackers and corrections.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fedd.api import InvalidMessage, Message, PeerId, RunContext

if TYPE_CHECKING:
    from fedd_optimization.vectors import Vector

T = TypeVar("T")

CHUNK_BYTES = 4 * 1024 * 1024
"""A longer vector travels in several exchanges: a quarter of the default largest message."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a neighbour sent in an exchange, and the weight of the edge that both ends agree on."""

    weight: float
    vector: Vector


async def mix(ctx: RunContext, vector: Vector, tag: str, *, agreed: bool) -> dict[PeerId, Heard]:
    """Send `vector` to every neighbour; return theirs in sorted peer order, with the edges' weights.

    With `agreed` both ends take the same weight, else each its own. Errors and who is absent as `swap`.
    """
    weights = dict(ctx.neighbors)  # of the exchange that begins now

    def weight(peer: PeerId, theirs: Any) -> float:
        return _agreed(ctx.me, peer, weights[peer], theirs) if agreed else weights[peer]

    header: dict[str, Message] | None = {**weights} if agreed else None
    answers = await swap(ctx, vector, tag, header, weight)
    return {peer: Heard(weight, other) for peer, (weight, other) in answers.items()}


async def swap(
    ctx: RunContext,
    vector: Vector,
    tag: str,
    header: Message = None,
    read_header: Callable[[PeerId, Any], T] = lambda peer, header: header,
) -> dict[PeerId, tuple[T, Vector]]:
    """Send `header` and `vector` to every neighbour; return theirs in sorted peer order.

    Takes one exchange for each 4 MiB. A neighbour that falls out on the way is absent, and so is one that
    sends something else than a finite vector of the same length and type, or a header for which
    `read_header` raises: it is cut off. Raises as `RunContext.exchange`.
    """
    headers: dict[PeerId, T] = {}
    parts: dict[PeerId, list[Vector]] = {}
    for part in pieces(vector.size, vector.itemsize):
        piece = vector[part]

        def read(peer: PeerId, answer: Any, piece: Vector = piece, start: int = part.start) -> Vector:
            match answer:
                case [theirs, np.ndarray() as given] if _fits(given, piece):
                    if start == 0:
                        headers[peer] = read_header(peer, theirs)
                    return given
            raise _misfit(peer, answer, piece)

        answers = await ctx.exchange([header if part.start == 0 else None, piece], tag, read=read)
        for peer, other in answers.items():
            parts.setdefault(peer, []).append(other)
        parts = {peer: heard for peer, heard in parts.items() if peer in answers}
    return {
        peer: (headers[peer], heard[0] if len(heard) == 1 else np.concatenate(heard))
        for peer, heard in parts.items()
    }


def pieces(size: int, itemsize: int) -> Iterator[slice]:
    """The parts of a vector that are sent at a time, in order; one for an empty vector."""
    width = CHUNK_BYTES // itemsize
    return (slice(at, min(at + width, size)) for at in range(0, max(1, size), width))


def combine(own: Vector, heard: Mapping[PeerId, Heard], part: slice = slice(None)) -> Vector:
    """The weighted mean w_ii x_i + sum_j w_ij x_j of `own` and that part of everybody's vector."""
    mixed = own.copy()
    for each in heard.values():
        mixed += each.weight * (each.vector[part] - own)
    return mixed


class Books:
    """What this node gave over each edge so far, minus what it got: `total` is their sum."""

    def __init__(self, size: int, dtype: np.dtype[Any]) -> None:
        self._zero = np.zeros(size, dtype=dtype)
        self._entries: dict[PeerId, Vector] = {}

    def transfer(
        self, own: Vector, heard: Mapping[PeerId, Heard], part: slice = slice(None), share: float = 1.0
    ) -> None:
        """Book a step of averaging: share * w_ij (own - theirs) goes over each edge.

        Both ends compute the same number with the opposite sign, to the last bit.
        """
        self.book({peer: (share * each.weight) * (own - each.vector[part]) for peer, each in heard.items()})

    def book(self, given: Mapping[PeerId, Vector]) -> None:
        """Add to the entry of each edge."""
        for peer, amount in given.items():
            entry = self._entries.get(peer)
            self._entries[peer] = amount if entry is None else entry + amount

    def delete(self, peers: Collection[PeerId]) -> None:
        """Delete the entries of these: they are no neighbours any more."""
        for peer in peers:
            self._entries.pop(peer, None)

    @property
    def peers(self) -> tuple[PeerId, ...]:
        """Those with an entry, sorted."""
        return tuple(sorted(self._entries))

    @property
    def total(self) -> Vector:
        """The sum of all entries, taken in sorted order of the peers."""
        total = self._zero.copy()
        for peer in sorted(self._entries):
            total += self._entries[peer]
        return total


def _fits(theirs: Vector, mine: Vector) -> bool:
    return theirs.shape == mine.shape and theirs.dtype == mine.dtype and bool(np.isfinite(theirs).all())


def _misfit(peer: PeerId, answer: Message, piece: Vector) -> InvalidMessage:
    here = f"{piece.size} values of {piece.dtype}"
    match answer:
        case [_, np.ndarray() as other] if other.shape != piece.shape or other.dtype != piece.dtype:
            return InvalidMessage(
                f"{peer} sent {other.size} values of {other.dtype}, this node has {here}",
                hint="give all members learners with models of one shape and type",
            )
        case [_, np.ndarray()]:
            return InvalidMessage(f"{peer} sent an iterate that is not finite")
    return InvalidMessage(f"{peer} sent something else than an iterate of {here}")


def _agreed(me: PeerId, peer: PeerId, mine: float, theirs: Any) -> float:
    """The smaller of the two ends' weights of the edge."""
    match theirs:
        case dict() if isinstance(theirs.get(me), float) and 0 <= theirs[me] <= 1:
            return min(mine, float(theirs[me]))
    raise InvalidMessage(f"{peer} sent an iterate without a weight for {me}")
