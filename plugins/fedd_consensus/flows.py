"""What went over each edge, so that a death takes back what the dead had put in, and no more.

x_i = x_i(0) - sum_j F_ij. Both ends of an edge book each transfer with opposite signs; when a member is gone
its neighbours delete their entries, and the values of the others sum up to the sum of their starts again.
So do both ends of an edge that was cut: one may have booked a transfer that the other has not heard of.
The entries of one who finished stay.

Source: P. Jesus, C. Baquero, P. S. Almeida, "Flow updating: fault-tolerant aggregation for dynamic
networks", J. Parallel Distrib. Comput. (2015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedd.api import InvalidMessage, Message, PeerId, RunContext

if TYPE_CHECKING:
    from fedd.api.types import FloatArray


class Flows:
    """The entries of one node, one array a neighbour."""

    def __init__(self, ctx: RunContext, start: FloatArray) -> None:
        self._ctx = ctx
        self._start = start
        self._entries: dict[PeerId, FloatArray] = {}

    def book(self, peer: PeerId, amount: FloatArray) -> None:
        """`amount` goes to `peer`, who books the negative; nothing goes to one who is gone."""
        entry = self._entries.get(peer)
        self._entries[peer] = amount if entry is None else entry + amount

    @property
    def value(self) -> FloatArray:
        """What is left here, summed up in the order of the peers."""
        counts = {*self._ctx.neighbors, *self._ctx.finished}
        for peer in self._entries.keys() - counts:
            del self._entries[peer]
        value = self._start.copy()
        for peer in sorted(self._entries):
            value -= self._entries[peer]
        return value


def edge_weight(rule: str, given: float, degrees: tuple[int, int], *, lazy: bool = False) -> float:
    """The weight of an edge, the same at both ends, by the graph's rule.

    `degrees` are those that the two ends sent with their values: after a death one end may know of it a
    round before the other, and weights from different degrees would lose what one gives and the other does
    not take. `given` is the weight by a rule that asks for no degrees. `lazy` halves it, unless the rule is
    lazy already.
    """
    weight = 1.0 / (1 + max(degrees)) if rule in ("metropolis", "lazy") else given
    return weight / 2 if lazy or rule == "lazy" else weight


def received_degree(message: Message, ctx: RunContext) -> int:
    """A neighbour's degree. Raises InvalidMessage when it can be none."""
    if type(message) is int and 0 < message < len(ctx.members):
        return message
    raise InvalidMessage(f"a neighbour says that it has {message!r:.40} neighbours")


def distance(values: FloatArray, others: FloatArray) -> float:
    """The largest difference between two arrays, 0 for empty ones."""
    return float(np.abs(values - others).max(initial=0.0))
