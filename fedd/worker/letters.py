"""Messages outside a run's exchanges as an algorithm sees them: decoded, and from neighbours only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fedd.api.algorithm import Letter
from fedd.api.errors import InvalidMessage, InvalidParameter, NotConnected, NotFound, PluginFailed
from fedd.api.types import Message, PeerId
from fedd.core.pieces import Arrived
from fedd.worker import arrays
from fedd.worker.mail import Mailroom
from fedd.worker.port import Payload, Port, RunStart
from fedd.worker.reading import Cutter, read_all, reason_of


class Letters:
    """One node's. Whoever sends what cannot be read is cut off by `cutter`."""

    def __init__(
        self,
        start: RunStart,
        port: Port,
        on_departed: Callable[[PeerId, str, str], None],
        cutter: Cutter,
    ) -> None:
        self._near = start.graph.neighbors(start.me)
        self._max_payload_bytes = start.max_payload_bytes
        self._cutter = cutter
        self._refused: set[PeerId] = set()
        self._mail = Mailroom(port, self._near, start.max_payload_bytes, on_departed)
        port.attach(self._mail)

    async def send(self, peers: Iterable[PeerId], message: Message, tag: str) -> None:
        """Send to these neighbours."""
        receivers = tuple(peers)
        for peer in receivers:
            self._check_correspondent(peer)
        payload = self._encoded(message)
        for peer in receivers:
            await self._mail.send(peer, tag, payload)

    async def receive(self, tag: str, newest: bool, read: Callable[[PeerId, Payload], Any]) -> Letter:
        """The next letter with this tag that can be read."""
        while True:
            sender, payload = await self._mail.receive(tag, newest=newest)
            if sender not in self._refused:
                for message in read_all(self._cutter, {sender: payload}, read).values():
                    return Letter(sender, message)

    async def ask(
        self,
        peer: PeerId,
        message: Message,
        tag: str,
        read: Callable[[PeerId, Payload], Any],
        *,
        strict: bool,
    ) -> Any:
        """Ask a question. With `strict` a refusal is an answer that cannot be used."""
        self._check_correspondent(peer)
        try:
            answer = await self._mail.ask(peer, tag, self._encoded(message))
        except (NotFound, PluginFailed) as error:
            if not strict:
                raise
            self._cutter.cut(peer, reason_of(error))
        else:
            for found in read_all(self._cutter, {peer: answer}, read).values():
                return found
        raise NotConnected(f"{peer} is cut off: its answer cannot be used")

    def on_ask(self, tag: str, handler: Callable[[PeerId, Message], Message]) -> None:
        """Answer questions with this tag; what the handler raises is told to who asked."""

        def answer(peer: PeerId, payload: Payload) -> bytes:
            return self._encoded(handler(peer, arrays.decode(payload, self._max_payload_bytes)))

        self._mail.on_ask(tag, answer)

    def settle(self) -> None:
        """The algorithm awaits its context for the first time: its handlers are set."""
        if not self._mail.settled:
            self._mail.settle()

    def cut(self, peer: PeerId, reason: str) -> None:
        """Nothing of this neighbour's is read any more, and no answer of its is waited for."""
        self._refused.add(peer)
        self._mail.on_left(peer, reason, "cut")

    def check_size(self, payload: Arrived) -> None:
        """Raise InvalidMessage when it is larger than this run's messages may be."""
        if len(payload) > self._max_payload_bytes:
            raise InvalidMessage(
                f"a message of {len(payload)} bytes is more than this run's {self._max_payload_bytes}",
                hint="send less, or raise [limits] max_payload_bytes on every member",
            )

    def _check_correspondent(self, peer: PeerId) -> None:
        if peer not in self._near:
            raise InvalidParameter(
                f"{peer!r:.80} is no neighbour of this node",
                hint="messages go to neighbours; topology complete makes everybody one",
                field="peer",
            )

    def _encoded(self, message: Message) -> bytes:
        payload = arrays.encode(message)
        self.check_size(payload)
        return payload
