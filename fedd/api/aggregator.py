"""What an aggregator is: how a round's models become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from fedd.api.types import PeerId

if TYPE_CHECKING:
    from fedd.api.learner import TrainResult
    from fedd.api.types import Array


@dataclass(frozen=True)
class Contribution:
    """One member's model after its training, and on how many samples it trained.

    `extra` are further arrays that this aggregator asked for (SCAFFOLD's control variates), else empty.
    """

    member: PeerId
    model: Sequence[Array]
    num_samples: int
    extra: Sequence[Array] = ()


@dataclass(frozen=True)
class Aggregate:
    """The new model of everybody, the aggregator's new state, and who was left out and why."""

    model: list[Array]
    state: list[Array] = field(default_factory=list)
    left_out: Mapping[PeerId, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LocalTraining:
    """What an aggregator wants added to its members' training; see `Learner.train`."""

    correction: Sequence[Array] | None = None
    proximal: float = 0.0


class Aggregator(Protocol):
    """A frozen dataclass with a name; its fields are its options, with defaults and checks as an algorithm's.

    All members of a round call `aggregate` with equal arguments and must get the same bits: nothing but the
    arguments may decide, sums are taken in the order given (contributions are sorted by member). `state` is a
    list of arrays that travels with the model: what one round's `aggregate` returns the next one gets.

    An aggregator whose `mean` is true needs the weighted means of models and extras alone, not each
    member's; then `aggregate` is called with one Contribution that holds the mean (weights: num_samples; the
    extras' mean is unweighted), and less has to travel. It is no defence against a member that lies.
    """

    name: ClassVar[str]
    mean: ClassVar[bool]

    def start(self, model: Sequence[Array]) -> list[Array]:
        """The state before the first round; empty for an aggregator without."""
        ...

    def aggregate(
        self, model: Sequence[Array], contributions: Sequence[Contribution], state: Sequence[Array]
    ) -> Aggregate:
        """The new model from the round's old one and its contributions.

        Raises InvalidParameter when there are too few contributions for what it promises.
        """
        ...

    def before(self, model: Sequence[Array], state: Sequence[Array], own: Sequence[Array]) -> LocalTraining:
        """What this member's training of `model` needs; `own` is what `after` kept here last time."""
        ...

    def after(
        self,
        model: Sequence[Array],
        trained: Sequence[Array],
        result: TrainResult,
        state: Sequence[Array],
        own: Sequence[Array],
    ) -> tuple[list[Array], list[Array]]:
        """(what this member keeps for its next training, the extras of its contribution): both may be empty.

        Extras have the same number, shapes and types on every member and in every round.
        """
        ...
