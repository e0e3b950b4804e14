"""What a run lends to an algorithm, over whatever carries its exchanges.

The same class works in the worker process, where the daemon's rounds are at the other end of a pipe, and
in `fedd.testing`, where a simulated network is: a `Port` hides the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fedd.api.algorithm import Algorithm, Letter, Merged
from fedd.api.errors import FeddError, InvalidMessage, InvalidParameter
from fedd.api.graph import Spectrum
from fedd.api.types import Message, PeerId
from fedd.core.graph import Graph
from fedd.core.pieces import Arrived
from fedd.core.run_signature import MAX_SIGNED_BYTES, signed_bytes
from fedd.worker import arrays, collectives
from fedd.worker.books import LEDGER_TAG, Books
from fedd.worker.failures import plugin_failure
from fedd.worker.ledger import LedgerCore, start_value
from fedd.worker.lent import Lent
from fedd.worker.letters import Letters
from fedd.worker.metrics import MAX_METRIC_BYTES, MAX_METRICS, Metric, checked
from fedd.worker.neighborhood import Neighborhood
from fedd.worker.port import Outcome, Payload, Port, Round, RunStart
from fedd.worker.reading import MAX_REASON_CHARS, read_all
from fedd.worker.spectrum import graph_spectrum

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fedd.api.learner import RunLearner

    Read = Callable[[PeerId, Any], Any]

__all__ = [
    "LEDGER_TAG",
    "MAX_CHECKPOINT_BYTES",
    "MAX_METRICS",
    "MAX_METRIC_BYTES",
    "Context",
    "Outcome",
    "Payload",
    "Port",
    "Round",
    "RunStart",
    "run_algorithm",
]

MAX_CHECKPOINT_BYTES = 512 * 1024 * 1024
"""A model of 100 MB with what an optimiser keeps about it; it passes through the daemon's memory once."""


class Context(Lent):
    """`fedd.api.RunContext` over a port."""

    def __init__(
        self,
        start: RunStart,
        port: Port,
        input: Message,
        *,
        learner: RunLearner | None = None,
        aggregators: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(start, input, learner, aggregators)
        self._start = start
        self._port = port
        self._round = start.round
        self._near = Neighborhood(start.me, start.graph, start.quorum)
        self._agreed_members = start.graph.members
        """Those whom all survivors here hold to be in the run, as of the last time that they agreed on it."""
        self._letters = Letters(start, port, self._near.part_late, self)
        self._metrics: dict[str, Metric] = {}
        self._contributors: tuple[PeerId, ...] | None = None
        self._residual: float | None = None
        self._agreed = True

    # ---- who and where --------------------------------------------------------------------

    @property
    def me(self) -> PeerId:
        """This node."""
        return self._start.me

    @property
    def members(self) -> tuple[PeerId, ...]:
        """All nodes of the run as this epoch started, sorted."""
        return self._start.graph.members

    @property
    def neighbors(self) -> Mapping[PeerId, float]:
        """Neighbours still in the run, sorted, with the graph's weights."""
        return self._near.weights(self._round)

    @property
    def out_neighbors(self) -> tuple[PeerId, ...]:
        """To whom this node's next exchange goes, sorted."""
        return tuple(
            peer
            for peer in self._start.graph.out_neighbors(self.me, self._round)
            if peer in self._near.present
        )

    @property
    def in_neighbors(self) -> tuple[PeerId, ...]:
        """From whom the next exchange comes, sorted."""
        return tuple(
            peer
            for peer in self._start.graph.in_neighbors(self.me, self._round)
            if peer in self._near.present
        )

    @property
    def graph(self) -> Graph:
        """The whole graph, as this epoch started."""
        return self._start.graph

    def spectrum(self) -> Spectrum:
        """The spectrum of the graph's mixing matrix."""
        return graph_spectrum(self._start.graph)

    @property
    def round(self) -> int:
        """Exchanges completed so far."""
        return self._round

    @property
    def epoch(self) -> int:
        """Counts from 1."""
        return self._start.epoch

    @property
    def initiator(self) -> PeerId:
        """Who started the run."""
        return self._start.initiator

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self._start.seed

    @property
    def quorum(self) -> int:
        """How many members must stay."""
        return self._start.quorum

    # ---- epochs ---------------------------------------------------------------------------

    @property
    def restored(self) -> Message:
        """What this node last gave to `checkpoint` in this run, None when nothing. A new object each time."""
        if self._start.restored is None:
            return None
        state: Message = arrays.decode(self._start.restored, MAX_CHECKPOINT_BYTES)
        return state

    async def checkpoint(self, state: Message) -> None:
        """Keep `state` for `restored`. Raises InvalidMessage when it cannot be encoded or is too large."""
        payload = arrays.encode(state)
        if len(payload) > MAX_CHECKPOINT_BYTES:
            raise InvalidMessage(
                f"a checkpoint of {len(payload)} bytes is more than {MAX_CHECKPOINT_BYTES}",
                hint="keep the model and what cannot be computed again",
            )
        await self._port.checkpoint(payload)

    def on_join(self, callback: Callable[[tuple[PeerId, ...]], None]) -> None:
        """Call `callback(peers)` with the members that came with this epoch, at once, if there are any."""
        if self._start.newcomers:
            callback(self._start.newcomers)

    def on_leave(self, callback: Callable[[PeerId, str], None]) -> None:
        """Call `callback(peer, reason)` for every member that falls out of the run."""
        self._near.on_leave(callback)

    # ---- exchanges ------------------------------------------------------------------------

    async def exchange(
        self,
        message: Message | Callable[[PeerId], Message],
        tag: str = "",
        *,
        read: Read | None = None,
        lenient: bool = False,
    ) -> dict[PeerId, Any]:
        """Send to every neighbour, return what each sent, in sorted peer order."""
        receivers, senders = self._near.present, self._near.present
        if self._start.graph.directed:  # in lock-step with all; what goes against the arrow is empty
            receivers = self.out_neighbors
            senders = self._start.graph.in_neighbors(self.me, self._round)
        if callable(message):
            payloads = arrays.encode_each(message, receivers)
        else:
            payloads = dict.fromkeys(receivers, arrays.encode_to_send(message))
        payloads = {peer: payloads.get(peer, b"") for peer in self._near.present}
        answers = await self._swap(payloads, _plain_tag(tag), lenient)
        sent = {peer: payload for peer, payload in answers.items() if peer in senders}
        if lenient:
            return {peer: self._decode_or_none(payload) for peer, payload in sent.items()}
        return read_all(self, sent, self._reader(read))

    def _reader(self, read: Read | None) -> Callable[[PeerId, Payload], Any]:
        """From a payload to what the algorithm works with."""
        if read is None:
            return lambda peer, payload: self.decode(payload)
        return lambda peer, payload: read(peer, self.decode(payload))

    def _decode_or_none(self, payload: Payload) -> Any:
        try:
            return self.decode(payload)
        except InvalidMessage:
            return None

    def cut(self, peer: PeerId, reason: str) -> None:
        """Go on without this neighbour, which sent what cannot be used."""
        if peer in self._near.present:
            reason = reason[:MAX_REASON_CHARS]
            self._near.refused.add(peer)
            self._port.cut(peer, reason)
            self._letters.cut(peer, reason)
            self._near.part_late(peer, reason, "cut")

    async def flood(self, message: Message, tag: str = "", *, read: Read | None = None) -> dict[PeerId, Any]:
        """Give every node `message`, return everybody's: {origin: message}, in sorted peer order."""
        heard = await collectives.flood(self, message, _plain_tag(tag), self._reader(read))
        self._agreed_members = tuple(heard)
        return heard

    async def merge(self, message: Message, combine: Callable[[Any, Any], Message], tag: str = "") -> Merged:
        """Combine everybody's message by an idempotent, commutative and associative function."""
        merged = await collectives.merge(self, message, combine, _plain_tag(tag))
        self._agreed_members = merged.contributors
        return merged

    async def gather(
        self, message: Message, to: PeerId, tag: str = "", *, read: Read | None = None
    ) -> dict[PeerId, Any] | None:
        """Bring everybody's message to member `to`: {origin: message} there, None elsewhere."""
        if to not in self.members:
            raise InvalidParameter(f"{to!r:.80} is no member of this run", field="to")
        graph = self._start.graph
        complete = len(graph.edges) == len(graph.members) * (len(graph.members) - 1) // 2
        reader = self._reader(read)
        return await collectives.gather(self, message, to, _plain_tag(tag), reader, complete=complete)

    async def reduce(
        self,
        message: Message,
        merge: Callable[[Any, Any], Message],
        tag: str = "",
        *,
        read: Read | None = None,
    ) -> Merged:
        """Combine everybody's message, each exactly once, and give the result to all."""
        graph, base = self._start.graph, self._agreed_members
        reader = self._reader(read)
        merged = await collectives.reduce(self, graph, base, message, merge, _plain_tag(tag), reader)
        self._agreed_members = merged.contributors
        return merged

    def ledger(self, x0: ArrayLike) -> Books:
        """A mass-conserving average that starts from this node's value `x0`."""
        if self._start.graph.directed:
            raise InvalidParameter(
                "the ledger's books need both ways of an edge, this run's topology is directed",
                hint="use an undirected topology such as ring, exponential or hypercube",
                field="topology",
            )
        return Books(self, LedgerCore(self.me, self.members, self._near.present, start_value(x0)))

    # ---- messages outside the exchanges ---------------------------------------------------

    async def send(self, peer: PeerId, message: Message, tag: str = "") -> None:
        """Send to one neighbour, outside the exchanges."""
        await self._letters.send([peer], message, _plain_tag(tag))

    async def broadcast(self, message: Message, tag: str = "") -> None:
        """`send` to every neighbour that is in the run."""
        await self._letters.send(self.out_neighbors, message, _plain_tag(tag))

    async def receive(self, tag: str = "", *, newest: bool = False, read: Read | None = None) -> Letter:
        """The next message with this tag, whoever sent it."""
        return await self._letters.receive(_plain_tag(tag), newest, self._reader(read))

    async def ask(self, peer: PeerId, message: Message, tag: str = "", *, read: Read | None = None) -> Any:
        """Send a question to a neighbour and return the answer of its `on_ask` handler."""
        reader = self._reader(read)
        return await self._letters.ask(peer, message, _plain_tag(tag), reader, strict=read is not None)

    def on_ask(self, tag: str, handler: Callable[[PeerId, Message], Message]) -> None:
        """Answer questions with this tag by `handler(peer, message)`."""
        self._letters.on_ask(_plain_tag(tag), handler)

    async def sign(self, data: bytes) -> bytes:
        """This node's signature over the federation, the run and `data`."""
        if len(data) > MAX_SIGNED_BYTES:
            raise InvalidMessage(
                f"{len(data)} bytes to sign, more than {MAX_SIGNED_BYTES}", hint="sign a digest of them"
            )
        return await self._port.sign(bytes(data))

    def verify(self, peer: PeerId, data: bytes, signature: bytes) -> bool:
        """Whether `signature` is what `sign(data)` gave on that member, in this run."""
        if peer not in self.members or len(data) > MAX_SIGNED_BYTES:
            return False
        signed = signed_bytes(self._start.federation, self._start.run_id, bytes(data))
        return self._port.verify(peer, signed, bytes(signature))

    # ---- the rest -------------------------------------------------------------------------

    def report(self, **metrics: Metric) -> None:
        """Show metrics; the newest of a name wins.

        Raises InvalidParameter when a metric is none, or there are too many.
        """
        for name, value in metrics.items():
            metric = checked(name, value)
            if name not in self._metrics and len(self._metrics) >= MAX_METRICS:
                raise InvalidParameter(f"a node reports up to {MAX_METRICS} metrics", field="metrics")
            self._metrics[name] = metric
        self._port.report({name: self._metrics[name] for name in metrics})

    def contributed(self, peers: Collection[PeerId]) -> None:
        """Say whose data is in the answer."""
        self._contributors = tuple(sorted(set(peers)))

    def outcome(self, value: Message) -> Outcome:
        """The result of this node, with contributors and residual of the last agreement, flood or merge."""
        contributors = self._contributors if self._contributors is not None else self._near.heard()
        return Outcome(value, contributors, self._residual, self._round, self._agreed)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """What was reported, the newest of each name."""
        return MappingProxyType(self._metrics)

    # ---- what the parts of a context use (`fedd.worker.port.Exchanges`) -------------------

    @property
    def out(self) -> Mapping[PeerId, str]:
        """The members that are out of the run, with the reason."""
        return MappingProxyType(self._near.gone)

    @property
    def finished(self) -> frozenset[PeerId]:
        """The neighbours that have ended well: they take part no longer, and what they did counts."""
        return frozenset(self._near.finished)

    @property
    def present(self) -> tuple[PeerId, ...]:
        """The neighbours of the next exchange, sorted."""
        return self._near.present

    def name_contributors(
        self, contributors: tuple[PeerId, ...], residual: float | None, agreed: bool = True
    ) -> None:
        """Whose inputs are in what this node has now, for the result."""
        self._contributors = contributors
        self._residual = residual
        self._agreed = agreed

    async def swap(self, payloads: Mapping[PeerId, Payload], tag: str) -> Mapping[PeerId, Payload]:
        """One exchange of encoded messages; afterwards `present` holds who is left."""
        return await self._swap(payloads, tag, False)

    async def _swap(
        self, payloads: Mapping[PeerId, Arrived], tag: str, lenient: bool
    ) -> Mapping[PeerId, Payload]:
        for payload in payloads.values():
            self._letters.check_size(payload)
        self._letters.settle()
        near = self._near
        if near.late:
            payloads = {**payloads, **dict.fromkeys(near.late, b"")}
        completed = await self._port.exchange(tag, payloads)
        self._round += 1
        near.turn()
        if completed.gone or completed.cut or completed.finished:
            near.late.difference_update(completed.gone, completed.cut, completed.finished)
            near.part_from(completed)
        messages = completed.messages
        if completed.other_tags or near.refused:
            messages = self._without_strays(completed, tag, lenient)
        return messages

    def _without_strays(self, completed: Round, tag: str, lenient: bool) -> Mapping[PeerId, Payload]:
        """What is left without those who were cut off, or are at an exchange with another tag."""
        for peer, other in completed.other_tags.items():
            if not lenient:
                self.cut(
                    peer,
                    f"it is at an exchange tagged {other!r:.80}, this node at {tag!r:.80} "
                    "(all members must make the same exchanges in the same order)",
                )
        return {
            peer: b"" if peer in completed.other_tags else payload
            for peer, payload in completed.messages.items()
            if peer not in self._near.refused
        }

    def decode(self, payload: Payload) -> Any:
        """The message in a payload. Raises InvalidMessage."""
        return arrays.decode(payload, self._start.max_payload_bytes)


async def run_algorithm(algorithm: Algorithm, context: Context) -> Outcome:
    """Run to the end on this node.

    Raises FeddError: what the algorithm raised itself if that was one, else PluginFailed with the
    exception and the place in the plugin where it happened.
    """
    try:
        value = await algorithm.run(context)
    except FeddError:
        raise
    except Exception as error:
        raise plugin_failure(error) from error
    return context.outcome(value)


def _plain_tag(tag: str) -> str:
    if len(tag.encode()) > 200:
        raise InvalidMessage("a tag has up to 200 bytes")
    return tag
