"""What an algorithm is, and what a run lends to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from fedd.api.types import Message, PeerId

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from fedd.api.types import FloatArray


@dataclass(frozen=True)
class Agreement:
    """Where a `Ledger.agree` ended.

    `value` has the shape of the ledger's start value, float64. With `agreed` it is the same to
    the last bit on every survivor of this component and lies within `tolerance` (relative to the
    largest contributed magnitude) of the mean over `contributors`. Without, the iteration limit
    came first and `value` is this node's own estimate. `residual` is the largest difference
    between two nodes' estimates, relative as above, when last compared (infinite when never).
    """

    value: FloatArray
    contributors: tuple[PeerId, ...]
    iterations: int
    residual: float
    agreed: bool


@dataclass(frozen=True)
class Merged:
    """Where a `RunContext.merge` ended: the combined value, and whose messages are in it (sorted)."""

    value: Message
    contributors: tuple[PeerId, ...]


class Ledger(Protocol):
    """The mass-conserving average: a death takes back exactly what the dead had put in.

    Source: P. Jesus, C. Baquero, P. S. Almeida, "Flow updating: fault-tolerant aggregation for
    dynamic networks", J. Parallel Distrib. Comput. (2015), in its pairwise form.
    """

    @property
    def value(self) -> FloatArray:
        """This node's present estimate of the mean, shape of the start value."""
        ...

    async def step(self) -> None:
        """One exchange with all neighbours, one update.

        Raises QuorumLost, Dropped or Stopped as `RunContext.exchange` does, InvalidMessage when a
        neighbour's value has another shape or is not finite.
        """
        ...

    async def agree(self, *, tolerance: float, iterations: int) -> Agreement:
        """Step until all survivors are known to agree within `tolerance`, or `iterations` steps were made.

        All members of the run must call this in the same step with the same arguments. A tolerance of
        0 is never met: exactly `iterations` steps are made. Afterwards the run's result names the
        agreement's contributors and residual.

        Raises InvalidParameter for a negative tolerance or fewer than one iteration, and as `step`.
        """
        ...


class RunContext(Protocol):
    """What a run lends to an algorithm on one node. Nothing else reaches other nodes."""

    @property
    def me(self) -> PeerId:
        """This node."""
        ...

    @property
    def members(self) -> tuple[PeerId, ...]:
        """All nodes of the run as it started, sorted; the same tuple everywhere."""
        ...

    @property
    def neighbors(self) -> Mapping[PeerId, float]:
        """Neighbours still in the run, sorted, each with its Metropolis-Hastings mixing weight.

        Changes between exchanges only. The node's own weight is one minus their sum.
        """
        ...

    @property
    def round(self) -> int:
        """Exchanges completed so far."""
        ...

    @property
    def epoch(self) -> int:
        """Counts from 1; rises when a run starts over with fewer members."""
        ...

    @property
    def seed(self) -> int:
        """The run's seed, the same on every node."""
        ...

    @property
    def quorum(self) -> int:
        """How many members must stay for the run to go on."""
        ...

    @property
    def input(self) -> Message:
        """What this device's owner configured for this run, None if the run names no input.

        A number, string, nested list, dict or array; a .csv file is a dict {column: array}, or an
        array (rows, columns) when it has no header; a .npz file is a dict {name: array}.
        """
        ...

    async def exchange(
        self, message: Message | Callable[[PeerId], Message], tag: str = ""
    ) -> dict[PeerId, Message]:
        """Send to every neighbour, return what each sent: the k-th call here meets the k-th call there.

        `message` is one value for all, or a function of the neighbour's peer id. Waits for every
        neighbour that is alive or suspect; one that died, left, finished or was cut off is absent
        from the answer and from `neighbors` afterwards. The answer is in sorted peer order.

        Raises QuorumLost when fewer than `quorum` members are left, Dropped when the others went
        on without this node, Stopped when the run was stopped, InvalidMessage when `message` cannot
        be encoded or a neighbour is at an exchange with another `tag`.
        """
        ...

    async def flood(self, message: Message, tag: str = "") -> dict[PeerId, Message]:
        """Give every node `message`, return everybody's: {origin: message}, in sorted peer order.

        Takes len(members) - 1 exchanges, after which all survivors of one component hold the same
        dictionary, whoever died meanwhile (FloodSet: N. Lynch, "Distributed Algorithms", 6.2,
        carried to incomplete graphs). Errors as `exchange`.
        """
        ...

    async def merge(self, message: Message, combine: Callable[[Any, Any], Message], tag: str = "") -> Merged:
        """Combine everybody's message into one, the same on all survivors of one component.

        `combine` must not care for order, grouping or repetition: maximum, minimum, union. Takes
        len(members) - 1 exchanges like `flood`, with one value a message instead of everybody's. The
        run's result then names the contributors. Errors as `exchange`.
        """
        ...

    def ledger(self, x0: ArrayLike) -> Ledger:
        """A mass-conserving average that starts from this node's value `x0` (float64, finite).

        Raises InvalidMessage when `x0` is not numeric or not finite.
        """
        ...

    def rng(self, name: str) -> np.random.Generator:
        """A generator seeded by the run's seed, this node and `name`: the same in every repetition."""
        ...

    def report(self, **metrics: float | int | str | bool) -> None:
        """Show metrics in `fedctl watch` and in the result. Never blocks; the newest of a name wins."""
        ...


class Algorithm(Protocol):
    """A frozen dataclass with a name and a coroutine; its fields are the run's parameters.

    Every field needs a type of bool, int, float or str (or a Literal of strings) and a default.
    The class docstring's first line is its help; a field's help is `field(metadata={"help": ...})`.
    A `__post_init__` that raises ValueError refuses bad parameters before the run starts.
    """

    name: ClassVar[str]

    async def run(self, ctx: RunContext) -> Message:
        """Do this node's part of the run and return its answer."""
        ...
