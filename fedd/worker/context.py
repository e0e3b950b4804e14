"""What a run lends to an algorithm, over whatever carries its exchanges.

The same class works in the worker process, where the daemon's rounds are at the other end of a pipe, and
in `fedd.testing`, where a simulated network is: a `Port` hides the difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fedd.api.algorithm import Algorithm, Letter, Merged
from fedd.api.errors import FeddError, InvalidMessage, InvalidParameter, QuorumLost
from fedd.api.graph import Spectrum
from fedd.api.types import Message, PeerId
from fedd.core.graph import Graph
from fedd.core.mixing import neighbor_weights
from fedd.core.run_signature import MAX_SIGNED_BYTES, signed_bytes
from fedd.worker import arrays, collectives
from fedd.worker.books import LEDGER_TAG, Books
from fedd.worker.failures import plugin_failure
from fedd.worker.ledger import LedgerCore, start_value
from fedd.worker.mail import Mailroom
from fedd.worker.metrics import MAX_METRIC_BYTES, MAX_METRICS, Metric, checked
from fedd.worker.parameters import build_aggregator
from fedd.worker.plugins import find_aggregator
from fedd.worker.port import Outcome, Payload, Port, Round, RunStart
from fedd.worker.spectrum import graph_spectrum

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from fedd.api.aggregator import Aggregator
    from fedd.api.learner import RunLearner

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


class Context:
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
        self._start = start
        self._port = port
        self._input = input
        self._learner = learner
        self._aggregators = aggregators  # {name: plugin} that may be used, None for all that there are
        self._round = start.round
        self._neighbors = start.graph.neighbors(start.me)
        self._weights: Mapping[PeerId, float] | None = None
        self._gone: dict[PeerId, str] = {}
        self._finished: set[PeerId] = set()
        self._agreed_members = start.graph.members
        """Those whom all survivors here hold to be in the run, as of the last time that they agreed on it."""
        self._late: set[PeerId] = set()
        """Out of the run by a word that came between exchanges: the rounds learn it in the next one."""
        self._mail = Mailroom(port, self._neighbors, start.max_payload_bytes, self._on_departed)
        port.attach(self._mail)
        self._leave_callbacks: list[Callable[[PeerId, str], None]] = []
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
        if self._weights is None:
            weights = neighbor_weights(
                self._start.graph, self.me, self._neighbors, self._gone, round=self._round
            )
            self._weights = MappingProxyType(weights)
        return self._weights

    @property
    def out_neighbors(self) -> tuple[PeerId, ...]:
        """To whom this node's next exchange goes, sorted."""
        return tuple(
            peer for peer in self._start.graph.out_neighbors(self.me, self._round) if peer in self._neighbors
        )

    @property
    def in_neighbors(self) -> tuple[PeerId, ...]:
        """From whom the next exchange comes, sorted."""
        return tuple(
            peer for peer in self._start.graph.in_neighbors(self.me, self._round) if peer in self._neighbors
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

    @property
    def input(self) -> Message:
        """What this device's owner configured for this run."""
        return self._input

    # ---- learning -------------------------------------------------------------------------

    @property
    def learner(self) -> RunLearner:
        """This device's model and data. Raises InvalidParameter when the run's input names no learner."""
        if self._learner is None:
            raise InvalidParameter(
                "this run's input names no learner on this device, and the algorithm needs one",
                hint="write learner = '...' into [inputs.NAME] of fedd.toml; "
                "fedctl learners shows what there is",
                field="input",
            )
        return self._learner

    def lend(self, learner: RunLearner) -> None:
        """Set the learner, which needs this context's `rng` before it is ready."""
        self._learner = learner

    def aggregator(self, name: str, options: Mapping[str, Message] | None = None) -> Aggregator:
        """The aggregator of that name with these options."""
        return build_aggregator(find_aggregator(name, self._aggregators), options or {})

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
        self._leave_callbacks.append(callback)

    # ---- exchanges ------------------------------------------------------------------------

    async def exchange(
        self, message: Message | Callable[[PeerId], Message], tag: str = ""
    ) -> dict[PeerId, Message]:
        """Send to every neighbour, return what each sent, in sorted peer order."""
        if self._start.graph.directed:
            return await self._exchange_along_arcs(message, _plain_tag(tag))
        if callable(message):
            payloads = {peer: arrays.encode(message(peer)) for peer in self._neighbors}
        else:
            payloads = dict.fromkeys(self._neighbors, arrays.encode(message))
        answers = await self.swap(payloads, _plain_tag(tag))
        return {peer: self.decode(peer, payload) for peer, payload in answers.items()}

    async def _exchange_along_arcs(
        self, message: Message | Callable[[PeerId], Message], tag: str
    ) -> dict[PeerId, Message]:
        """In lock-step with all neighbours; what goes against the arrow is empty and not shown."""
        out, senders = self.out_neighbors, self._start.graph.in_neighbors(self.me, self._round)
        if callable(message):
            sent = {peer: arrays.encode(message(peer)) for peer in out}
        else:
            sent = dict.fromkeys(out, arrays.encode(message))
        answers = await self.swap({peer: sent.get(peer, b"") for peer in self._neighbors}, tag)
        return {peer: self.decode(peer, payload) for peer, payload in answers.items() if peer in senders}

    async def flood(self, message: Message, tag: str = "") -> dict[PeerId, Message]:
        """Give every node `message`, return everybody's: {origin: message}, in sorted peer order."""
        heard = await collectives.flood(self, message, _plain_tag(tag))
        self._agreed_members = tuple(heard)
        return heard

    async def merge(self, message: Message, combine: Callable[[Any, Any], Message], tag: str = "") -> Merged:
        """Combine everybody's message by an idempotent, commutative and associative function."""
        merged = await collectives.merge(self, message, combine, _plain_tag(tag))
        self._agreed_members = merged.contributors
        return merged

    async def gather(self, message: Message, to: PeerId, tag: str = "") -> dict[PeerId, Message] | None:
        """Bring everybody's message to member `to`: {origin: message} there, None elsewhere."""
        if to not in self.members:
            raise InvalidParameter(f"{to!r:.80} is no member of this run", field="to")
        graph = self._start.graph
        complete = len(graph.edges) == len(graph.members) * (len(graph.members) - 1) // 2
        return await collectives.gather(self, message, to, _plain_tag(tag), complete=complete)

    async def reduce(self, message: Message, merge: Callable[[Any, Any], Message], tag: str = "") -> Merged:
        """Combine everybody's message, each exactly once, and give the result to all."""
        graph, base = self._start.graph, self._agreed_members
        merged = await collectives.reduce(self, graph, base, message, merge, _plain_tag(tag))
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
        return Books(self, LedgerCore(self.me, self.members, self._neighbors, start_value(x0)))

    # ---- messages outside the exchanges ---------------------------------------------------

    async def send(self, peer: PeerId, message: Message, tag: str = "") -> None:
        """Send to one neighbour, outside the exchanges."""
        self._check_correspondent(peer)
        await self._mail.send(peer, _plain_tag(tag), self._encoded(message))

    async def broadcast(self, message: Message, tag: str = "") -> None:
        """`send` to every neighbour that is in the run."""
        payload = self._encoded(message)
        for peer in self.out_neighbors:
            await self._mail.send(peer, _plain_tag(tag), payload)

    async def receive(self, tag: str = "", *, newest: bool = False) -> Letter:
        """The next message with this tag, whoever sent it."""
        sender, payload = await self._mail.receive(_plain_tag(tag), newest=newest)
        return Letter(sender, self.decode(sender, payload))

    async def ask(self, peer: PeerId, message: Message, tag: str = "") -> Message:
        """Send a question to a neighbour and return the answer of its `on_ask` handler."""
        self._check_correspondent(peer)
        payload = await self._mail.ask(peer, _plain_tag(tag), self._encoded(message))
        answer: Message = self.decode(peer, payload)
        return answer

    def on_ask(self, tag: str, handler: Callable[[PeerId, Message], Message]) -> None:
        """Answer questions with this tag by `handler(peer, message)`."""
        self._mail.on_ask(
            _plain_tag(tag), lambda peer, payload: self._encoded(handler(peer, self.decode(peer, payload)))
        )

    def _check_correspondent(self, peer: PeerId) -> None:
        if peer not in self._start.graph.neighbors(self.me):
            raise InvalidParameter(
                f"{peer!r:.80} is no neighbour of this node",
                hint="messages go to neighbours; topology complete makes everybody one",
                field="peer",
            )

    def _encoded(self, message: Message) -> bytes:
        payload = arrays.encode(message)
        self._check_size(payload)
        return payload

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

    def rng(self, name: str) -> np.random.Generator:
        """A generator seeded by the run's seed, this node and `name`."""
        import numpy as np  # numpy.random adds 7 MiB: only for those who ask

        digest = hashlib.sha256(f"fedd/rng/1\n{self.seed}\n{self.me}\n{name}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest, "little"))

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
        contributors = self._contributors if self._contributors is not None else self._component()
        return Outcome(value, contributors, self._residual, self._round, self._agreed)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """What was reported, the newest of each name."""
        return MappingProxyType(self._metrics)

    # ---- what the parts of a context use (`fedd.worker.port.Exchanges`) -------------------

    @property
    def out(self) -> Mapping[PeerId, str]:
        """The members that are out of the run, with the reason."""
        return MappingProxyType(self._gone)

    @property
    def finished(self) -> frozenset[PeerId]:
        """The neighbours that have ended well: they take part no longer, and what they did counts."""
        return frozenset(self._finished)

    @property
    def present(self) -> tuple[PeerId, ...]:
        """The neighbours of the next exchange, sorted."""
        return self._neighbors

    def name_contributors(
        self, contributors: tuple[PeerId, ...], residual: float | None, agreed: bool = True
    ) -> None:
        """Whose inputs are in what this node has now, for the result."""
        self._contributors = contributors
        self._residual = residual
        self._agreed = agreed

    async def swap(self, payloads: Mapping[PeerId, Payload], tag: str) -> Mapping[PeerId, Payload]:
        """One exchange of encoded messages; afterwards `present` holds who is left."""
        for payload in payloads.values():
            self._check_size(payload)
        if not self._mail.settled:
            self._mail.settle()
        if self._late:
            payloads = {**payloads, **dict.fromkeys(self._late, b"")}
        completed = await self._port.exchange(tag, payloads)
        self._round += 1
        if self._start.graph.period > 1:
            self._weights = None
        if completed.gone or completed.cut or completed.finished:
            self._late.difference_update(completed.gone, completed.cut, completed.finished)
            self._part_from(completed)
        for peer, other in completed.other_tags.items():
            raise InvalidMessage(
                f"{peer} is at an exchange tagged {other!r}, this node at {tag!r}",
                hint="all members must make the same exchanges in the same order",
            )
        return completed.messages

    def _part_from(self, completed: Round) -> None:
        """Some members take no part any more, or are no neighbours."""
        gone = {peer: why for peer, why in completed.gone.items() if peer not in self._gone}
        left = {*completed.gone, *completed.cut, *completed.finished}
        self._gone.update(gone)
        self._finished.update(completed.finished)
        self._neighbors = tuple(peer for peer in self._neighbors if peer not in left)
        self._weights = None
        for peer in sorted(gone):
            for callback in self._leave_callbacks:
                callback(peer, gone[peer])
        if len(self._component()) < self.quorum:
            raise self._quorum_lost()

    def _on_departed(self, peer: PeerId, reason: str, how: str) -> None:
        """The same, told between two exchanges to an algorithm that waits for messages."""
        if peer in self._neighbors:
            self._late.add(peer)
        match how:
            case "gone":
                self._part_from(Round({}, gone={peer: reason}))
            case "finished":
                self._part_from(Round({}, finished=(peer,)))
            case _:
                self._part_from(Round({}, cut=(peer,)))

    def decode(self, peer: PeerId, payload: Payload) -> Any:
        """The message in a neighbour's payload."""
        try:
            return arrays.decode(payload, self._start.max_payload_bytes)
        except InvalidMessage as error:
            raise InvalidMessage(f"from {peer}: {error.detail}", hint=error.hint) from None

    def _check_size(self, payload: Payload) -> None:
        limit = self._start.max_payload_bytes
        if len(payload) > limit:
            raise InvalidMessage(
                f"a message of {len(payload)} bytes is more than this run's {limit}",
                hint="send less, or raise [limits] max_payload_bytes on every member",
            )

    def _component(self) -> tuple[PeerId, ...]:
        """The members that this node can still reach."""
        return tuple(sorted(self._start.graph.reachable(self.me, without=self._gone)))

    def _quorum_lost(self) -> QuorumLost:
        lost = ", ".join(f"{peer} ({reason})" for peer, reason in sorted(self._gone.items()))
        return QuorumLost(
            f"{len(self._component())} of {len(self.members)} members are left, the quorum is {self.quorum}",
            hint=f"out: {lost}",
        )


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
