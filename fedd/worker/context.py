"""What a run lends to an algorithm, over whatever carries its exchanges.

The same class works in the worker process, where the daemon's rounds are at the other end of a pipe, and
in `fedd.testing`, where a simulated network is: a `Port` hides the difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from fedd.api.algorithm import Agreement, Algorithm, Merged
from fedd.api.errors import FeddError, InvalidMessage, InvalidParameter, QuorumLost
from fedd.api.types import Message, PeerId
from fedd.core import codec
from fedd.core.graph import Graph
from fedd.core.topology import metropolis_weights
from fedd.worker import arrays
from fedd.worker.failures import plugin_failure
from fedd.worker.ledger import LedgerCore, start_value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from fedd.api.learner import RunLearner
    from fedd.api.types import FloatArray

    Payload = bytes | memoryview

LEDGER_TAG = "fedd.ledger"
MAX_CHECKPOINT_BYTES = 512 * 1024 * 1024
"""A model of 100 MB with what an optimiser keeps about it; it passes through the daemon's memory once."""
MAX_METRICS = 64
"""Names that one node may report: a live table shows about ten."""
MAX_METRIC_BYTES = 256
"""A metric's name or text: a word, not a log."""


@dataclass(frozen=True, slots=True)
class RunStart:
    """What a worker is told when its run, or a new epoch of it, begins.

    `round` counts the exchanges of the epochs before, `restored` is the encoded state that this node last
    gave to `checkpoint`, `newcomers` are the members that came with this epoch.
    """

    run_id: str
    me: PeerId
    graph: Graph
    epoch: int
    seed: int
    quorum: int
    max_payload_bytes: int
    round: int = 0
    restored: Payload | None = None
    newcomers: tuple[PeerId, ...] = ()


@dataclass(frozen=True, slots=True)
class Round:
    """A completed exchange: `messages` in sorted peer order.

    `gone` names every member that is newly out of the run, with the reason; `finished` the neighbours that
    have ended well, `cut` those whose edge was cut: both are neighbours no more but still members.
    `other_tags` names the neighbours who were at an exchange with another tag.
    """

    messages: Mapping[PeerId, Payload]
    gone: Mapping[PeerId, str] = field(default_factory=dict)
    cut: tuple[PeerId, ...] = ()
    finished: tuple[PeerId, ...] = ()
    other_tags: Mapping[PeerId, str] = field(default_factory=dict)


class Port(Protocol):
    """What carries a run's exchanges."""

    async def exchange(self, tag: str, payloads: Mapping[PeerId, Payload]) -> Round:
        """Send one payload to each neighbour, return the completed exchange.

        Raises Stopped, Dropped or QuorumLost when the run ends.
        """
        ...

    def report(self, metrics: Mapping[str, float | int | str | bool]) -> None:
        """Show these metrics. Never blocks."""
        ...

    async def checkpoint(self, state: Payload) -> None:
        """Keep this encoded state for the next epoch and on disk, in place of the one before."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an algorithm ended on this node."""

    value: Message
    contributors: tuple[PeerId, ...]
    residual: float | None
    rounds: int
    agreed: bool


class Context:
    """`fedd.api.RunContext` over a port."""

    def __init__(self, start: RunStart, port: Port, input: Message) -> None:
        self._start = start
        self._port = port
        self._input = input
        self._learner: RunLearner | None = None
        self._round = start.round
        self._neighbors = start.graph.neighbors(start.me)
        self._weights: Mapping[PeerId, float] | None = None
        self._gone: dict[PeerId, str] = {}
        self._finished: set[PeerId] = set()
        self._metrics: dict[str, float | int | str | bool] = {}
        self._contributors: tuple[PeerId, ...] | None = None
        self._residual: float | None = None
        self._agreed = True

    @property
    def me(self) -> PeerId:
        """This node."""
        return self._start.me

    @property
    def members(self) -> tuple[PeerId, ...]:
        """All nodes of the run as it started, sorted."""
        return self._start.graph.members

    @property
    def neighbors(self) -> Mapping[PeerId, float]:
        """Neighbours still in the run, sorted, with Metropolis-Hastings weights."""
        if self._weights is None:
            graph, gone = self._start.graph, self._gone
            degrees = {p: sum(q not in gone for q in graph.neighbors(p)) for p in self._neighbors}
            self._weights = MappingProxyType(metropolis_weights(len(self._neighbors), degrees))
        return self._weights

    @property
    def round(self) -> int:
        """Exchanges completed so far."""
        return self._round

    @property
    def epoch(self) -> int:
        """Counts from 1."""
        return self._start.epoch

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

    async def exchange(
        self, message: Message | Callable[[PeerId], Message], tag: str = ""
    ) -> dict[PeerId, Message]:
        """Send to every neighbour, return what each sent, in sorted peer order."""
        if callable(message):
            payloads = {peer: arrays.encode(message(peer)) for peer in self._neighbors}
        else:
            payloads = dict.fromkeys(self._neighbors, arrays.encode(message))
        answers = await self._exchange(payloads, _plain_tag(tag))
        return {peer: self._decode(peer, payload) for peer, payload in answers.items()}

    async def flood(self, message: Message, tag: str = "") -> dict[PeerId, Message]:
        """Give every node `message`, return everybody's: each is passed on in the exchange after it came."""
        members = self.members
        mine = members.index(self.me)
        known: dict[int, bytes] = {mine: arrays.encode(message)}
        news = dict(known)
        for _ in range(len(members) - 1):
            parts: list[int | bytes] = [part for pair in sorted(news.items()) for part in pair]
            payload = codec.encode(parts)
            answers = await self._exchange(
                dict.fromkeys(self._neighbors, payload), f"flood:{_plain_tag(tag)}"
            )
            news = {}
            for peer, answer in answers.items():
                for origin, item in self._flooded(peer, answer):
                    if origin not in known:
                        known[origin] = news[origin] = item
        heard = {members[origin]: known[origin] for origin in sorted(known)}
        self._name_contributors(tuple(heard), None)
        return {origin: self._decode(origin, item) for origin, item in heard.items()}

    async def merge(self, message: Message, combine: Callable[[Any, Any], Message], tag: str = "") -> Merged:
        """Combine everybody's message by an idempotent, commutative and associative function."""
        members = self.members
        value = message
        origins = 1 << members.index(self.me)
        for _ in range(len(members) - 1):
            payload = codec.encode(
                [origins.to_bytes((len(members) + 7) // 8, "little"), arrays.encode(value)]
            )
            answers = await self._exchange(
                dict.fromkeys(self._neighbors, payload), f"merge:{_plain_tag(tag)}"
            )
            for peer, answer in answers.items():
                match self._decode(peer, answer):
                    case [bytes(mask), bytes(theirs)] if int.from_bytes(mask, "little") >> len(members) == 0:
                        origins |= int.from_bytes(mask, "little")
                        value = combine(value, self._decode(peer, theirs))
                    case _:
                        raise InvalidMessage(f"{peer} sent something else than a merged value")
        contributors = tuple(peer for index, peer in enumerate(members) if origins >> index & 1)
        self._name_contributors(contributors, None)
        return Merged(value, contributors)

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

    def ledger(self, x0: ArrayLike) -> Books:
        """A mass-conserving average that starts from this node's value `x0`."""
        return Books(self, LedgerCore(self.me, self.members, self._neighbors, start_value(x0)))

    def rng(self, name: str) -> np.random.Generator:
        """A generator seeded by the run's seed, this node and `name`."""
        import numpy as np  # numpy.random adds 7 MiB: only for those who ask

        digest = hashlib.sha256(f"fedd/rng/1\n{self.seed}\n{self.me}\n{name}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest, "little"))

    def report(self, **metrics: float | int | str | bool) -> None:
        """Show metrics; the newest of a name wins.

        Raises InvalidParameter when a metric is neither number, text nor bool, or there are too many.
        """
        for name, value in metrics.items():
            item = getattr(value, "item", None)
            number = item() if callable(item) and not isinstance(value, bool | int | float | str) else value
            if not isinstance(number, bool | int | float | str):
                raise InvalidParameter(f"the metric {name} is no number, text or bool", field=name)
            if len(name) > MAX_METRIC_BYTES or (isinstance(number, str) and len(number) > MAX_METRIC_BYTES):
                raise InvalidParameter(
                    f"the metric {name:.40} is longer than {MAX_METRIC_BYTES}", field="metrics"
                )
            if name not in self._metrics and len(self._metrics) >= MAX_METRICS:
                raise InvalidParameter(f"a node reports up to {MAX_METRICS} metrics", field="metrics")
            self._metrics[name] = (
                float(number) if type(number) is not bool and isinstance(number, float) else number
            )
        self._port.report({name: self._metrics[name] for name in metrics})

    def outcome(self, value: Message) -> Outcome:
        """The result of this node, with contributors and residual of the last agreement, flood or merge."""
        contributors = self._contributors if self._contributors is not None else self._component()
        return Outcome(value, contributors, self._residual, self._round, self._agreed)

    @property
    def metrics(self) -> Mapping[str, float | int | str | bool]:
        """What was reported, the newest of each name."""
        return MappingProxyType(self._metrics)

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

    def _name_contributors(
        self, contributors: tuple[PeerId, ...], residual: float | None, agreed: bool = True
    ) -> None:
        self._contributors = contributors
        self._residual = residual
        self._agreed = agreed

    async def _exchange(self, payloads: Mapping[PeerId, Payload], tag: str) -> Mapping[PeerId, Payload]:
        """One exchange of encoded messages; afterwards `present` holds who is left."""
        limit = self._start.max_payload_bytes
        for payload in payloads.values():
            if len(payload) > limit:
                raise InvalidMessage(
                    f"a message of {len(payload)} bytes is more than this run's {limit}",
                    hint="send less, or raise [limits] max_payload_bytes on every member",
                )
        completed = await self._port.exchange(tag, payloads)
        self._round += 1
        if completed.gone or completed.cut or completed.finished:
            self._gone.update(completed.gone)
            self._finished.update(completed.finished)
            left = set(completed.gone).union(completed.cut, completed.finished)
            self._neighbors = tuple(peer for peer in self._neighbors if peer not in left)
            self._weights = None
            if len(self._component()) < self.quorum:
                raise self._quorum_lost()
        for peer, other in completed.other_tags.items():
            raise InvalidMessage(
                f"{peer} is at an exchange tagged {other!r}, this node at {tag!r}",
                hint="all members must make the same exchanges in the same order",
            )
        return completed.messages

    def _component(self) -> tuple[PeerId, ...]:
        """The members that this node can still reach."""
        return tuple(sorted(self._start.graph.reachable(self.me, without=self._gone)))

    def _quorum_lost(self) -> QuorumLost:
        lost = ", ".join(f"{peer} ({reason})" for peer, reason in sorted(self._gone.items()))
        return QuorumLost(
            f"{len(self._component())} of {len(self.members)} members are left, the quorum is {self.quorum}",
            hint=f"out: {lost}",
        )

    def _decode(self, peer: PeerId, payload: Payload) -> Any:
        try:
            return arrays.decode(payload, self._start.max_payload_bytes)
        except InvalidMessage as error:
            raise InvalidMessage(f"from {peer}: {error.detail}", hint=error.hint) from None

    def _flooded(self, peer: PeerId, payload: Payload) -> list[tuple[int, bytes]]:
        parts = self._decode(peer, payload)
        if isinstance(parts, list) and len(parts) % 2 == 0:
            pairs = list(zip(parts[::2], parts[1::2], strict=True))
            if all(type(o) is int and 0 <= o < len(self.members) and type(i) is bytes for o, i in pairs):
                return pairs
        raise InvalidMessage(f"{peer} sent something else than flooded messages")


class Books:
    """`fedd.api.Ledger`: the ledger's core and the exchanges that feed it."""

    def __init__(self, context: Context, core: LedgerCore) -> None:
        self._context = context
        self._core = core

    @property
    def value(self) -> FloatArray:
        """This node's present estimate of the mean."""
        return self._core.value

    async def step(self) -> None:
        """One exchange with all neighbours, one update."""
        context, core = self._context, self._core
        answers = await context._exchange(core.messages(context.present), LEDGER_TAG)
        core.apply(answers, context.present, context.finished)

    async def agree(self, *, tolerance: float, iterations: int) -> Agreement:
        """Step until all survivors are known to agree, or `iterations` steps were made."""
        if not tolerance >= 0 or iterations < 1:
            raise InvalidParameter(
                f"an agreement needs a tolerance of 0 or more and an iteration at least, not {tolerance} "
                f"and {iterations}",
                field="tolerance",
            )
        context, core = self._context, self._core
        known = context.members
        residual = float("inf")
        core.begin_agreement()
        try:
            for made in range(1, iterations + 1):
                await self.step()
                verdict = core.close_window(tolerance, last=made == iterations)
                if verdict is None:
                    continue
                known = core.peers_of(verdict.origins)
                residual = float("inf") if core.is_fresh else verdict.residual
                if isfinite(residual):
                    context.report(residual=residual)
                if verdict.agreed:
                    value = verdict.value.reshape(core.shape)
                    context._name_contributors(known, residual)
                    return Agreement(value, known, made, residual, True)
        finally:
            core.end_agreement()
        left = tuple(peer for peer in known if peer not in context.out)
        context._name_contributors(left, residual if isfinite(residual) else None, agreed=False)
        return Agreement(core.value, left, iterations, residual, False)


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
