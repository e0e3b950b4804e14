"""What an algorithm is, and what a run lends to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, overload

from fedd.api.types import Message, PeerId

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from fedd.api.aggregator import Aggregator
    from fedd.api.graph import RunGraph, Spectrum
    from fedd.api.learner import RunLearner
    from fedd.api.ledger import Ledger

T = TypeVar("T")


@dataclass(frozen=True)
class Merged:
    """Where a `RunContext.merge` ended: the combined value, and whose messages are in it (sorted)."""

    value: Message
    contributors: tuple[PeerId, ...]


@dataclass(frozen=True)
class Letter:
    """A message that came by `send` or `broadcast`, and whose it is."""

    sender: PeerId
    message: Message


class RunContext(Protocol):
    """What a run lends to an algorithm on one node. Nothing else reaches other nodes."""

    @property
    def me(self) -> PeerId:
        """This node."""
        ...

    @property
    def members(self) -> tuple[PeerId, ...]:
        """All nodes of the run as this epoch began, sorted; the same tuple everywhere."""
        ...

    @property
    def neighbors(self) -> Mapping[PeerId, float]:
        """Neighbours still in the run, sorted, each with its Metropolis-Hastings mixing weight.

        Changes between exchanges only. The node's own weight is one minus their sum.
        """
        ...

    @property
    def finished(self) -> frozenset[PeerId]:
        """Neighbours that ended well: no neighbours any more, and what they did counts."""
        ...

    @property
    def round(self) -> int:
        """Exchanges completed so far, in all epochs."""
        ...

    @property
    def epoch(self) -> int:
        """Counts from 1; rises when the run goes on with other members, and `run` is called again."""
        ...

    @property
    def initiator(self) -> PeerId:
        """Who started the run: a member like any other, which may be gone, or empty when it is not known."""
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

    @property
    def out_neighbors(self) -> tuple[PeerId, ...]:
        """To whom this node's exchanges go, sorted: the keys of `neighbors` unless the graph is directed."""
        ...

    @property
    def in_neighbors(self) -> tuple[PeerId, ...]:
        """From whom exchanges come, sorted: the keys of `neighbors` unless the graph is directed."""
        ...

    @property
    def graph(self) -> RunGraph:
        """The whole graph, fixed within an epoch: for what follows from its shape before the first round."""
        ...

    def spectrum(self) -> Spectrum:
        """The spectrum of `graph`'s mixing matrix. Raises InvalidParameter beyond 1024 members."""
        ...

    @property
    def learner(self) -> RunLearner:
        """This device's model and data, when the run's input names a learner.

        Raises InvalidParameter when it does not, saying how to configure one.
        """
        ...

    @property
    def restored(self) -> Message:
        """What this node last gave to `checkpoint` in this run, None when nothing.

        Set when `run` is called again: in a new epoch, or after a restart of the daemon.
        """
        ...

    async def checkpoint(self, state: Message) -> None:
        """Keep `state` for `restored`: at once for the next epoch, within a moment on disk.

        One file, replaced atomically; while it is being written newer states replace each other and the last
        one wins. Raises InvalidMessage when it cannot be encoded.
        """
        ...

    def on_leave(self, callback: Callable[[PeerId, str], None]) -> None:
        """Call `callback(peer, reason)` between exchanges for every member that falls out of the run."""
        ...

    def on_join(self, callback: Callable[[tuple[PeerId, ...]], None]) -> None:
        """Call `callback(peers)` with the members that came with this epoch, at once, if there are any.

        A member joins between two epochs: `run` is called again on every node, `members` are the new ones.
        """
        ...

    def aggregator(self, name: str, options: Mapping[str, Message] | None = None) -> Aggregator:
        """The aggregator of that name, of this or another plugin, with these options.

        Raises NotFound, or InvalidParameter when the options do not fit.
        """
        ...

    async def send(self, peer: PeerId, message: Message, tag: str = "") -> None:
        """Send to one neighbour, outside the exchanges. Messages of one sender arrive once and in order.

        Returns when it is queued: a link that breaks costs nothing, the neighbour's death the message. Waits
        while 16 messages to that neighbour are unconfirmed, or wait because 256 letters, or the bytes of
        the largest message, lie there unread. An algorithm that is sent letters must therefore `receive`
        them: one that waits for others and lets a neighbour wait for that is held to hang. To a neighbour
        that is out of the run or has finished a message goes nowhere, and nothing is raised.

        Raises InvalidMessage when it cannot be encoded or is too large, InvalidParameter for one that was
        never a neighbour, and as `exchange`.
        """
        ...

    async def broadcast(self, message: Message, tag: str = "") -> None:
        """`send` to every neighbour that is in the run; in a directed graph to those of `out_neighbors`."""
        ...

    async def receive(
        self, tag: str = "", *, newest: bool = False, read: Callable[[PeerId, Any], Message] | None = None
    ) -> Letter:
        """The next message with this tag, whoever sent it; `read` as in `exchange`.

        With `newest` the last one of its sender that is here, the earlier ones skipped. Waits for ever as
        long as somebody can send one: raises NotConnected when every neighbour is out of the run or has
        finished and nothing is left to read, and as `exchange`. Who has left meanwhile is no longer among
        `neighbors` afterwards: this, `send` and `ask` count as being between exchanges.
        """
        ...

    @overload
    async def ask(self, peer: PeerId, message: Message, tag: str = "") -> Message: ...

    @overload
    async def ask(
        self, peer: PeerId, message: Message, tag: str = "", *, read: Callable[[PeerId, Any], T]
    ) -> T: ...

    async def ask(
        self,
        peer: PeerId,
        message: Message,
        tag: str = "",
        *,
        read: Callable[[PeerId, Any], Any] | None = None,
    ) -> Any:
        """Send a question to a neighbour and return the answer of its `on_ask` handler.

        An answer that does not decode costs the neighbour the edge (`cut`); with `read`, as in `exchange`,
        so does one that it refuses, and a handler there that is missing or raises. NotConnected is raised.

        The question is answered once, however often the link breaks meanwhile. Raises NotConnected when the
        neighbour is, or falls, out of the run or has finished, NotFound when it has no handler for this tag,
        PluginFailed when its handler raised, and as `send`.
        """
        ...

    def on_ask(self, tag: str, handler: Callable[[PeerId, Message], Message]) -> None:
        """Answer questions with this tag by `handler(peer, message)`.

        Called whenever `run` awaits anything, never in parallel to it; quick, and without awaiting. Register
        all handlers before `run` first awaits its context: questions that come earlier are kept until then,
        later ones that nobody handles are refused.
        """
        ...

    @overload
    async def gather(self, message: Message, to: PeerId, tag: str = "") -> dict[PeerId, Message] | None: ...

    @overload
    async def gather(
        self, message: Message, to: PeerId, tag: str = "", *, read: Callable[[PeerId, Any], T]
    ) -> dict[PeerId, T] | None: ...

    async def gather(
        self,
        message: Message,
        to: PeerId,
        tag: str = "",
        *,
        read: Callable[[PeerId, Any], Any] | None = None,
    ) -> dict[PeerId, Any] | None:
        """Bring everybody's message to member `to`: {origin: message} there, None elsewhere.

        An exchange when all members are neighbours, else as `flood`. `read` and errors as `exchange`.
        """
        ...

    async def reduce(
        self,
        message: Message,
        merge: Callable[[Any, Any], Message],
        tag: str = "",
        *,
        read: Callable[[PeerId, Any], Any] | None = None,
    ) -> Merged:
        """Combine everybody's message, each exactly once, and give the result to all.

        `merge` is associative and commutative over disjoint contributors, such as a sum. Messages go up a
        breadth-first tree of the graph, each member combining its own with its children's in sorted order,
        and the result down again; what a death tore out is asked for once more. All survivors of a component
        hold the same bits over the same contributors, which the result names; they are the same in every
        repetition of a run in which nobody dies. The dead count if theirs had come through.

        Whoever sends what does not decode, what `read` (as in `exchange`) refuses, or what `merge` cannot
        combine is cut off; those behind it in the tree are asked once more.

        Takes twice the tree's height and len(members) exchanges, all of them small but those along the tree,
        and as many as there are members once more when somebody is missing for the first time. The run's
        result then names the contributors. Errors as `exchange`, and what `merge` raises of this node's own
        message and itself.
        """
        ...

    async def sign(self, data: bytes) -> bytes:
        """64 bytes: this node's Ed25519 signature over the federation, the run and `data`.

        Raises InvalidMessage for more than 64 KiB.
        """
        ...

    def verify(self, peer: PeerId, data: bytes, signature: bytes) -> bool:
        """Whether `signature` is what `sign(data)` gave on that member, in this run."""
        ...

    @overload
    async def exchange(
        self, message: Message | Callable[[PeerId], Message], tag: str = "", *, lenient: bool = False
    ) -> dict[PeerId, Message]: ...

    @overload
    async def exchange(
        self,
        message: Message | Callable[[PeerId], Message],
        tag: str = "",
        *,
        read: Callable[[PeerId, Any], T],
    ) -> dict[PeerId, T]: ...

    async def exchange(
        self,
        message: Message | Callable[[PeerId], Message],
        tag: str = "",
        *,
        read: Callable[[PeerId, Any], Any] | None = None,
        lenient: bool = False,
    ) -> dict[PeerId, Any]:
        """Send to every neighbour, return what each sent: the k-th call here meets the k-th call there.

        `message` is one value for all, or a function of the neighbour's peer id; what it returns for
        several, one and the same object, is encoded once. Arrays in it must not change until this
        returns. Waits for every neighbour that is alive or suspect; one that died, left, finished or was
        cut off is absent from the answer and from `neighbors` afterwards. The answer is in sorted peer
        order.

        `read(peer, message)` returns what the algorithm works with, in place of the message. A neighbour is
        cut off (see `cut`) for a message for which it raises anything, InvalidMessage with the reason if it
        is well written; for one that does not decode; and for being at an exchange with another `tag`.
        `lenient` takes all that for silence instead: the message is then None, and its sender stays.

        Raises QuorumLost when fewer than `quorum` members are left, Dropped when the others went
        on without this node, Stopped when the run was stopped, InvalidMessage when `message` cannot
        be encoded.
        """
        ...

    def cut(self, peer: PeerId, reason: str) -> None:
        """Go on without this neighbour, because of what it sent.

        At once it is none any more, and nothing of its is read. Everybody is told; a member that
        all its neighbours have cut off is out of the run, with the reason "bad message: ...". So one
        alone can put nobody else out. With contract `restart` the run begins anew without it. Nothing for one
        that is no neighbour.
        """
        ...

    @overload
    async def flood(self, message: Message, tag: str = "") -> dict[PeerId, Message]: ...

    @overload
    async def flood(
        self, message: Message, tag: str = "", *, read: Callable[[PeerId, Any], T]
    ) -> dict[PeerId, T]: ...

    async def flood(
        self, message: Message, tag: str = "", *, read: Callable[[PeerId, Any], Any] | None = None
    ) -> dict[PeerId, Any]:
        """Give every node `message`, return everybody's: {origin: message}, in sorted peer order.

        Takes len(members) - 1 exchanges, after which all survivors of one component hold the same
        dictionary, whoever died meanwhile (FloodSet: N. Lynch, "Distributed Algorithms", 6.2,
        carried to incomplete graphs). `read(origin, message)` is as in `exchange`, applied where a message
        comes first: a member that hands on what it refuses is cut off. It must refuse the same on all
        members, or all that is not like the member's own. Errors as `exchange`.
        """
        ...

    async def merge(self, message: Message, combine: Callable[[Any, Any], Message], tag: str = "") -> Merged:
        """Combine everybody's message into one, the same on all survivors of one component.

        `combine` must not care for order, grouping or repetition: maximum, minimum, union. Takes
        len(members) - 1 exchanges like `flood`, with one value a message instead of everybody's. The
        run's result then names the contributors. A neighbour whose message it cannot combine with this
        node's is cut off. Errors as `exchange`, and what it raises of this node's message and itself.
        """
        ...

    def ledger(self, x0: ArrayLike) -> Ledger:
        """A mass-conserving average that starts from this node's value `x0` (float64, finite).

        Raises InvalidMessage when `x0` is not numeric or not finite, InvalidParameter on a directed graph.
        """
        ...

    def contributed(self, peers: Collection[PeerId]) -> None:
        """Say whose data is in the answer, for the result's `contributors`.

        For algorithms of the contract `contributed`: members that died count as well if what they gave is in
        it. Without this the result names those whom the last ledger, flood, merge or reduction named, else
        the members still in the run. Who never was a member of the run is left out.
        """
        ...

    def rng(self, name: str) -> np.random.Generator:
        """A generator seeded by the run's seed, this node and `name`: the same in every repetition."""
        ...

    def report(self, **metrics: float | int | str | bool | Mapping[str, float]) -> None:
        """Show metrics in `fedctl watch` and in the result. Never blocks; the newest of a name wins.

        A map of up to 256 numbers is one metric with a number for each key, such as each member.
        """
        ...


class Algorithm(Protocol):
    """A frozen dataclass with a name and a coroutine; its fields are the run's parameters.

    Every field needs a type of bool, int, float or str (or a Literal of strings) and a default.
    The class docstring's first line is its help; a field's help is `field(metadata={"help": ...})`.
    A `__post_init__` that raises ValueError refuses bad parameters before the run starts.

    Two class variables may say more. `contract: ClassVar[str]` is "survivors" (where there is none),
    "contributed", or "restart": when a member is lost, `run` is called again with those who are left.
    `joinable: ClassVar[bool]`, False where there is none: whether `run` may be called again with members that
    came late or came back. With either all members must make the same number of exchanges.

    A method `predict(self, ctx: RunContext)` may return metrics, {name: number or text}, that can be told
    before the first exchange. It is called on the device that starts a run before anybody is asked, and can
    ask nobody either: `ctx` has all but messages. A text `warning` is shown to whoever starts the run,
    InvalidParameter refuses it, and anything else that is raised is told as `error` and hinders nothing.
    """

    name: ClassVar[str]

    async def run(self, ctx: RunContext) -> Message:
        """Do this node's part of the run and return its answer."""
        ...
