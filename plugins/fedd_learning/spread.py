"""How a round's arrays get to everybody: three ways, each a fixed number of exchanges, without a clock.

All work on parts of bounded size, so that a model of any size passes through bounded memory on its way:

- `MeanSpread`: every part has a root, which adds up the contributions to it and gives the mean to everybody
  (reduce-scatter and all-gather: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective
  communication operations in MPICH", Int. J. High Perform. Comput. Appl. 19, 2005). Each exchange carries the
  contributions to one stripe of parts, a part a root, and the means of the stripe before.
- `WholeSpread`: every contributor's parts go to everybody, for aggregators that look at each by itself, and
  for small models.
- `CopySpread`: those who hold the model give it to those who do not.

What is malformed or not finite is refused: it counts as not sent, and the reason is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from fedd.api import InvalidMessage, Message, PeerId
from fedd_aggregators.arithmetic import all_finite
from fedd_learning.layout import NOT_FINITE, Layout, Rows, checked
from fedd_learning.means import put_mean
from fedd_learning.messages import FullModel, InitModel, PartialModel, RunMessage, read

if TYPE_CHECKING:
    from fedd.api.types import Array

IN_FLIGHT_BYTES = 16 * 1024 * 1024
"""Of one member in one exchange, to all others together: daemons keep two exchanges in case a link breaks."""

SMALL_BYTES = 256 * 1024
"""Of all trainings that a member sends in an exchange: two milliseconds of a gigabit."""


class Spread(Protocol):
    """One member's part: `exchanges` times a message for each peer, and the answers."""

    exchanges: int
    refused: dict[PeerId, str]

    def message(self, number: int, peer: PeerId) -> Message:
        """For this peer in exchange `number`, counted from 0."""
        ...

    def take(self, number: int, answers: Mapping[PeerId, Message]) -> None:
        """What came in it."""
        ...

    @property
    def complete(self) -> bool:
        """Whether this member holds everything."""
        ...


class MeanSpread:
    """The weighted mean of contributions, the same bits on everybody.

    `weights` are the contributors' numbers of samples. The first `weighted` arrays are averaged with them,
    further ones without. `own` are this member's arrays if it contributes. Sums are taken in float64 in the
    order of peer ids.
    """

    def __init__(
        self,
        me: PeerId,
        members: Sequence[PeerId],
        weights: Mapping[PeerId, int],
        layout: Layout,
        weighted: int,
        own: Sequence[Array] | None,
        round: int,
        chunk_bytes: int,
    ) -> None:
        self.refused: dict[PeerId, str] = {}
        self._me = me
        self._members = list(members)
        self._weights = dict(sorted(weights.items()))
        self._layout = layout
        self._weighted = weighted
        self._own = layout.rows(own) if own is not None and me in weights else None
        self._round = round
        self._stripes = _parts_for(layout, chunk_bytes // 2, len(self._members))
        self._parts = layout.parts(self._stripes * len(self._members))
        self._mean = layout.empty()
        self._held = [not segments for segments in self._parts]
        self._torn = False
        self._same: tuple[int, list[Message]] = (-1, [])
        """What goes to all alike, and in which exchange."""
        self.exchanges = self._stripes + 1

    def message(self, number: int, peer: PeerId) -> Message:
        """The contribution to the peer's part of this stripe, the mean of this member's part of the last."""
        if self._torn or peer not in self._members:
            return None
        if number != self._same[0]:
            self._same = (number, list(self._means(number)))
        means = self._same[1]
        given = list(self._contribution(number, peer))
        return [*given, *means] if given else means

    def take(self, number: int, answers: Mapping[PeerId, Message]) -> None:
        """Means of the stripe before from their roots, contributions to this member's part of this one."""
        contributed: dict[PeerId, list[Array]] = {}
        for peer, answer in answers.items():
            for message in self._readable(peer, answer):
                if isinstance(message, FullModel):
                    self._take_mean(peer, number, message)
                elif isinstance(message, PartialModel):
                    self._take_contribution(peer, number, message, contributed)
        if number < self._stripes:
            self._add_up(number, contributed)
        # A member that is gone can be the root of no part any more: the rest would be sent for nothing.
        self._torn = self._torn or any(p not in answers for p in self._members if p != self._me)

    @property
    def complete(self) -> bool:
        """Whether this member holds the mean of every part."""
        return all(self._held)

    def arrays(self) -> list[Array]:
        """The means, in their shapes."""
        return self._mean.arrays()

    def _contribution(self, number: int, peer: PeerId) -> Iterator[Message]:
        if number < self._stripes and self._own is not None:
            part = number * len(self._members) + self._members.index(peer)
            pieces = self._own.part(self._parts[part])
            yield PartialModel(self._round, part, pieces, [self._me], self._weights[self._me]).to_wire()

    def _means(self, number: int) -> Iterator[Message]:
        if number > 0:
            part = self._my_part(number - 1)
            if self._held[part]:
                pieces = self._mean.part(self._parts[part])
                total = sum(self._weights.values())
                yield FullModel(self._round, part, pieces, list(self._weights), total).to_wire()

    def _my_part(self, stripe: int) -> int:
        return stripe * len(self._members) + self._members.index(self._me)

    def _readable(self, peer: PeerId, answer: Message) -> list[RunMessage]:
        if peer not in self._members or answer is None:
            return []
        try:
            messages = [read(item) for item in answer] if isinstance(answer, list) else None
        except InvalidMessage as error:
            messages = None
            self.refused.setdefault(peer, error.detail[:200])
        if messages is None or len(messages) > 2:
            self.refused.setdefault(peer, "it sent something else than parts of a model")
            return []
        return [message for message in messages if message.round == self._round]

    def _take_mean(self, peer: PeerId, number: int, message: FullModel) -> None:
        part = (number - 1) * len(self._members) + self._members.index(peer)
        if number == 0 or message.part != part:
            self.refused.setdefault(peer, "it sent a part that is not its own")
            return
        if message.contributors != list(self._weights):
            return  # it did not know yet who counts: as if it had sent nothing
        try:
            self._mean.put(self._parts[part], checked(self._layout, self._parts[part], message.arrays))
        except InvalidMessage as error:
            self.refused.setdefault(peer, f"as the root of a part it sent {error.detail}")
        else:
            self._held[part] = True

    def _take_contribution(
        self, peer: PeerId, number: int, message: PartialModel, contributed: dict[PeerId, list[Array]]
    ) -> None:
        if peer not in self._weights or number >= self._stripes:
            return
        part = self._my_part(number)
        if message.part != part or message.num_samples != self._weights[peer]:
            self.refused.setdefault(
                peer, "it sent another part, or another number of samples, than it offered"
            )
            return
        try:
            contributed[peer] = checked(self._layout, self._parts[part], message.arrays)
        except InvalidMessage as error:
            self.refused.setdefault(peer, f"it sent {error.detail}")

    def _add_up(self, stripe: int, contributed: dict[PeerId, list[Array]]) -> None:
        part = self._my_part(stripe)
        segments = self._parts[part]
        if self._own is not None:
            contributed[self._me] = self._own.part(segments)
        if any(peer not in contributed for peer in self._weights):
            return
        finite = True
        for place, (index, begin, end) in enumerate(segments):
            given = [contributed[peer][place] for peer in self._weights]
            weights = list(self._weights.values()) if index < self._weighted else [1] * len(given)
            finite = put_mean(given, weights, self._mean.rows[index][begin:end]) and finite
        # Looked for in the sums, which are at hand: a value that is not finite leaves none behind that is.
        at_fault = [] if finite else [peer for peer in contributed if not _is_finite(contributed[peer])]
        for peer in at_fault:
            self.refused.setdefault(peer, f"it sent {NOT_FINITE}")
        self._held[part] = not at_fault


class WholeSpread:
    """Everybody's arrays to everybody. `weights` names the contributors; `own` are this member's arrays."""

    def __init__(
        self,
        me: PeerId,
        members: Sequence[PeerId],
        weights: Mapping[PeerId, int],
        layout: Layout,
        own: Sequence[Array] | None,
        round: int,
        chunk_bytes: int,
    ) -> None:
        self.refused: dict[PeerId, str] = {}
        self._me = me
        self._members = list(members)
        self._weights = dict(sorted(weights.items()))
        self._layout = layout
        self._round = round
        self.exchanges = _parts_for(layout, min(chunk_bytes, IN_FLIGHT_BYTES // max(1, len(members) - 1)), 1)
        self._parts = layout.parts(self.exchanges)
        self._models: dict[PeerId, Rows] = {}
        self._held = dict.fromkeys(self._weights, 0)
        self._next: Message = None
        self._next_number = -1
        if own is not None and me in self._weights:
            self._models[me] = layout.rows(own)
            self._held[me] = self.exchanges

    def message(self, number: int, peer: PeerId) -> Message:
        """This member's part of that number, the same for all peers."""
        if self._me not in self._weights or peer not in self._members:
            return None
        if number != self._next_number:
            pieces = self._models[self._me].part(self._parts[number])
            mine = PartialModel(self._round, number, pieces, [self._me], self._weights[self._me])
            self._next, self._next_number = mine.to_wire(), number
        return self._next

    def take(self, number: int, answers: Mapping[PeerId, Message]) -> None:
        """The contributors' parts of that number."""
        for peer, answer in answers.items():
            if peer not in self._weights or answer is None or peer in self.refused:
                continue
            reason = self._put(peer, number, answer)
            if reason:
                self.refused[peer] = reason
                self._models.pop(peer, None)

    @property
    def complete(self) -> bool:
        """Whether this member holds the arrays of every contributor."""
        return all(held == self.exchanges for held in self._held.values())

    def contributions(self) -> dict[PeerId, list[Array]]:
        """Everybody's arrays, in the order of peer ids."""
        return {peer: self._models[peer].arrays() for peer in self._weights}

    def _put(self, peer: PeerId, number: int, answer: Message) -> str:
        try:
            message = read(answer)
        except InvalidMessage as error:
            return error.detail[:200]
        if not isinstance(message, PartialModel) or (message.round, message.part) != (self._round, number):
            return "it sent something else than its part of the round's model"
        if message.num_samples != self._weights[peer]:
            return "it sent another number of samples than it offered"
        try:
            pieces = checked(self._layout, self._parts[number], message.arrays)
            if peer not in self._models:
                self._models[peer] = self._layout.empty()
            self._models[peer].put(self._parts[number], pieces)
        except InvalidMessage as error:
            return f"it sent {error.detail}"
        self._held[peer] += 1
        return ""


class CopySpread:
    """From those who hold the model to those who do not; `own` are a holder's arrays.

    The i-th of `behind` is served by holder i + `attempt`, counted around: whose holder died gets another.
    """

    def __init__(
        self,
        me: PeerId,
        holders: Sequence[PeerId],
        behind: Sequence[PeerId],
        attempt: int,
        layout: Layout,
        own: Sequence[Array],
        round: int,
        chunk_bytes: int,
    ) -> None:
        self.refused: dict[PeerId, str] = {}
        self._source = {peer: holders[(place + attempt) % len(holders)] for place, peer in enumerate(behind)}
        self._me = me
        self._layout = layout
        self._round = round
        self.exchanges = _parts_for(layout, min(chunk_bytes, IN_FLIGHT_BYTES // len(behind)), 1)
        self._parts = layout.parts(self.exchanges)
        self._rows = layout.empty() if me in self._source else layout.rows(own)
        self._taken = 0

    def message(self, number: int, peer: PeerId) -> Message:
        """A part for whom this member serves."""
        if self._source.get(peer) != self._me:
            return None
        pieces = self._rows.part(self._parts[number])
        if self._round == 0:
            return InitModel(0, number, pieces).to_wire()
        return FullModel(self._round, number, pieces, [], 0).to_wire()

    def take(self, number: int, answers: Mapping[PeerId, Message]) -> None:
        """The part from whom this member is served by."""
        source = self._source.get(self._me)
        answer = answers.get(source) if source is not None else None
        if source is None or answer is None:
            return
        try:
            message = read(answer)
        except InvalidMessage as error:
            self.refused[source] = error.detail[:200]
            return
        if not isinstance(message, InitModel | FullModel) or message.part != number:
            self.refused[source] = "it sent something else than a part of its model"
            return
        try:
            self._rows.put(self._parts[number], checked(self._layout, self._parts[number], message.arrays))
        except InvalidMessage as error:
            self.refused[source] = f"it sent {error.detail}"
        else:
            self._taken += 1

    @property
    def complete(self) -> bool:
        """Whether this member has got everything, or had it."""
        return self._me not in self._source or self._taken == self.exchanges

    def arrays(self) -> list[Array]:
        """The model's arrays and the state's."""
        return self._rows.arrays()


def _is_finite(pieces: Sequence[Array]) -> bool:
    return all(map(all_finite, pieces))


def goes_whole(layout: Layout, members: int, chunk_bytes: int) -> bool:
    """Whether everybody gets everybody's training and makes the mean itself, in one exchange in place of two.

    For small models that is faster: an exchange takes a millisecond or more, whatever its size.
    """
    return layout.nbytes <= chunk_bytes and layout.nbytes * max(1, members - 1) <= SMALL_BYTES


def _parts_for(layout: Layout, part_bytes: int, parts_each: int) -> int:
    """How many stripes of `parts_each` parts keep a part within `part_bytes`, at least one."""
    stripe_bytes = max(1, min(part_bytes, IN_FLIGHT_BYTES // max(1, parts_each))) * parts_each
    return max(1, -(-layout.nbytes // stripe_bytes))
