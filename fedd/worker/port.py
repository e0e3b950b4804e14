"""Between a run's context and what carries it: the daemon's pipe, or a network that `fedd.testing` plays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from fedd.api.types import Message, PeerId
from fedd.core.graph import Graph
from fedd.core.mail import Item
from fedd.core.pieces import Arrived
from fedd.worker.metrics import Metric

Payload: TypeAlias = bytes | memoryview


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
    federation: str = ""
    initiator: PeerId = ""


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


class MailSink(Protocol):
    """Where a port puts what comes outside the exchanges. Nothing here waits."""

    def on_mail(self, peer: PeerId, item: Item) -> None:
        """A neighbour's item has arrived: each comes once, those of one neighbour in order."""
        ...

    def on_room(self, peer: PeerId, count: int, size: int) -> None:
        """`count` more items may be posted to this neighbour, `size` more bytes."""
        ...

    def on_left(self, peer: PeerId, reason: str, how: str) -> None:
        """A member is out of the run (`how` is gone), a neighbour has finished, or its edge was cut."""
        ...


class MailPort(Protocol):
    """What carries a run's messages outside the exchanges."""

    async def listen(self) -> None:
        """Tell the sink of everybody who has left or leaves from now on."""
        ...

    async def post(self, peer: PeerId, item: Item) -> None:
        """Send a letter or a question; the sink has room for it. Returns when it is queued."""
        ...

    def answer(self, peer: PeerId, item: Item) -> None:
        """Send an answer, soon."""
        ...

    def read(self, peer: PeerId, letters: int, size: int) -> None:
        """The algorithm has taken so many letters of this neighbour, `size` bytes together."""
        ...

    async def wait(self, ready: Callable[[], bool]) -> None:
        """Return when `ready()`, which what the sink gets makes true. Errors as `Port.exchange`."""
        ...


class Port(MailPort, Protocol):
    """What carries a run's exchanges and messages."""

    def attach(self, sink: MailSink) -> None:
        """Hand what comes outside the exchanges to this sink from now on, first what has come already."""
        ...

    async def sign(self, data: bytes) -> bytes:
        """This node's signature over `fedd.core.run_signature.signed_bytes` of this. Errors as `exchange`."""
        ...

    def verify(self, peer: PeerId, signed: bytes, signature: bytes) -> bool:
        """Whether this is that member's signature over exactly these bytes."""
        ...

    async def exchange(self, tag: str, payloads: Mapping[PeerId, Arrived]) -> Round:
        """Send one payload to each neighbour, return the completed exchange.

        Raises Stopped, Dropped or QuorumLost when the run ends.
        """
        ...

    def cut(self, peer: PeerId, reason: str) -> None:
        """Go on without this neighbour, which sent what cannot be used. Never blocks."""
        ...

    def report(self, metrics: Mapping[str, Metric]) -> None:
        """Show these metrics. Never blocks."""
        ...

    async def checkpoint(self, state: Payload) -> None:
        """Keep this encoded state for the next epoch and on disk, in place of the one before."""
        ...


class Exchanges(Protocol):
    """Lock-step exchanges of encoded messages, as ledgers and collective operations need them."""

    @property
    def me(self) -> PeerId:
        """This node."""
        ...

    @property
    def members(self) -> tuple[PeerId, ...]:
        """All nodes of the run, sorted."""
        ...

    @property
    def present(self) -> tuple[PeerId, ...]:
        """The neighbours of the next exchange, sorted."""
        ...

    @property
    def out(self) -> Mapping[PeerId, str]:
        """The members that are out of the run, with the reason."""
        ...

    @property
    def finished(self) -> frozenset[PeerId]:
        """The neighbours that have ended well."""
        ...

    async def swap(self, payloads: Mapping[PeerId, Payload], tag: str) -> Mapping[PeerId, Payload]:
        """One exchange with those `present`; afterwards `present` holds who is left. Errors as `exchange`."""
        ...

    def decode(self, payload: Payload) -> Any:
        """The message in a payload. Raises InvalidMessage."""
        ...

    def cut(self, peer: PeerId, reason: str) -> None:
        """Go on without this neighbour, which sent what cannot be used. Nothing for one that is none."""
        ...

    def name_contributors(
        self, contributors: tuple[PeerId, ...], residual: float | None, agreed: bool = True
    ) -> None:
        """Whose inputs are in what this node has now, for the result."""
        ...

    def report(self, **metrics: Metric) -> None:
        """Show metrics."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an algorithm ended on this node."""

    value: Message
    contributors: tuple[PeerId, ...]
    residual: float | None
    rounds: int
    agreed: bool
