"""Letters, questions and answers between simulated devices, and their signatures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import trio

from fedd.api.errors import FeddError
from fedd.api.types import PeerId
from fedd.core.mail import Action, Carry, Confirm, Deliver, Item, Mail, Receipt, Room
from fedd.core.run_signature import signed_bytes

if TYPE_CHECKING:
    from fedd.core.identity import PrivateKey
    from fedd.worker.port import MailSink


class Carrier(Protocol):
    """Who brings mail from one device to another."""

    def carry_mail(self, peer: PeerId, number: int, receipt: Receipt, item: Item | None) -> None:
        """Bring an item, or a receipt alone, to this neighbour, behind all earlier ones."""
        ...


class DeviceMail:
    """One device's mail in one epoch of a run: the mail part of `fedd.worker.port.Port`."""

    def __init__(
        self, me: PeerId, neighbors: Iterable[PeerId], max_payload_bytes: int, carrier: Carrier
    ) -> None:
        self._me = me
        self._mail = Mail(neighbors, max_payload_bytes)
        self._carrier = carrier
        self._near = tuple(neighbors)
        self._sink: MailSink | None = None
        self._listens = False
        self._kept: list[Deliver] = []
        self._departed: dict[PeerId, tuple[str, str]] = {}
        self._news = trio.lowlevel.ParkingLot()

    # ---- port ------------------------------------------------------------------------------

    def attach(self, sink: MailSink) -> None:
        """`fedd.worker.port.Port`."""
        self._sink = sink
        kept, self._kept = self._kept, []
        self._act(list(kept))

    async def listen(self) -> None:
        """`fedd.worker.port.Port`."""
        self._listens = True
        if self._sink is not None:
            for peer, (reason, how) in self._departed.items():
                self._sink.on_left(peer, reason, how)

    async def post(self, peer: PeerId, item: Item) -> None:
        """`fedd.worker.port.Port`."""
        self._act(self._mail.post(peer, item))

    def answer(self, peer: PeerId, item: Item) -> None:
        """`fedd.worker.port.Port`."""
        self._act(self._mail.post(peer, item))

    def read(self, peer: PeerId, letters: int, size: int) -> None:
        """`fedd.worker.port.Port`."""
        self._act(self._mail.read(peer, letters, size))

    async def wait(self, ready: Callable[[], bool]) -> None:
        """`fedd.worker.port.Port`."""
        while not ready():
            await self._news.park()
            await trio.lowlevel.checkpoint_if_cancelled()

    async def flush(self) -> None:
        """Return when nothing waits here for a neighbour that reads no letters."""
        await self.wait(lambda: not any(map(self._mail.has_waiting, self._near)))

    async def sign(self, data: bytes) -> bytes:
        """`fedd.worker.port.Port`."""
        return _key(self._me).sign(signed_bytes("", RUN_ID, data))

    def verify(self, peer: PeerId, signed: bytes, signature: bytes) -> bool:
        """`fedd.worker.port.Port`."""
        try:
            _key(peer).public_key.verify(signature, signed)
        except FeddError:
            return False
        return True

    # ---- the network -----------------------------------------------------------------------

    def arrive(self, peer: PeerId, number: int, receipt: Receipt, item: Item | None) -> None:
        """A neighbour's item, or its receipt alone."""
        if item is None:
            self._act(self._mail.confirm(peer, receipt))
        else:
            self._act(self._mail.receive(peer, number, receipt, item))

    def depart(self, peer: PeerId, reason: str, how: str) -> None:
        """A member is `gone` from the run or has `finished`, or its edge was `cut`."""
        self._mail.release(peer)
        before = self._departed.get(peer, ("", ""))[1]
        if not before or (before, how) == ("cut", "gone"):
            self._departed[peer] = (reason, how)
            if self._listens and self._sink is not None:
                self._sink.on_left(peer, reason, how)
        self._news.unpark_all()

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Carry(peer, number, item):
                    self._carrier.carry_mail(peer, number, self._mail.receipt(peer), item)
                case Confirm(peer):
                    self._carrier.carry_mail(peer, 0, self._mail.receipt(peer), None)
                case Deliver(peer, item) if self._sink is not None:
                    self._sink.on_mail(peer, item)
                case Deliver():
                    self._kept.append(action)
                case Room(peer, count, size) if self._sink is not None:
                    self._sink.on_room(peer, count, size)
                case _:
                    pass
        self._news.unpark_all()


class MailEnd:
    """The mail part of a device's port, in whatever epoch it is."""

    mail: DeviceMail

    def attach(self, sink: MailSink) -> None:
        """`fedd.worker.context.Port`."""
        self.mail.attach(sink)

    async def listen(self) -> None:
        """`fedd.worker.context.Port`."""
        await self.mail.listen()

    async def post(self, peer: PeerId, item: Item) -> None:
        """`fedd.worker.context.Port`."""
        await self.mail.post(peer, item)

    def answer(self, peer: PeerId, item: Item) -> None:
        """`fedd.worker.context.Port`."""
        self.mail.answer(peer, item)

    def read(self, peer: PeerId, letters: int, size: int) -> None:
        """`fedd.worker.context.Port`."""
        self.mail.read(peer, letters, size)

    async def wait(self, ready: Callable[[], bool]) -> None:
        """`fedd.worker.context.Port`."""
        await self.mail.wait(ready)

    async def sign(self, data: bytes) -> bytes:
        """`fedd.worker.context.Port`."""
        return await self.mail.sign(data)

    def verify(self, peer: PeerId, signed: bytes, signature: bytes) -> bool:
        """`fedd.worker.context.Port`."""
        return self.mail.verify(peer, signed, signature)


RUN_ID = "test"


@lru_cache(maxsize=1024)
def _key(peer: PeerId) -> PrivateKey:
    from fedd.core.identity import PrivateKey  # here: cryptography for those who sign

    return PrivateKey.from_seed(hashlib.sha256(f"fedd.testing\n{peer}".encode()).digest())
