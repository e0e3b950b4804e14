"""One presence stream: both ends prove membership, then messages flow through a bounded queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from fedd.api.errors import Denied, ProtocolError
from fedd.api.types import PeerId
from fedd.core.presence_messages import (
    PRESENCE_VERSION,
    Bye,
    Hello,
    Message,
    MessageDecoder,
    Revocations,
    encode_message,
)
from fedd.net.stream import Stream

# A certificate is checked in a millisecond; what takes longer is a network or a peer that stalls.
HELLO_DEADLINE_S = 5.0
# A link on which nothing can be written for so long is no link.
WRITE_DEADLINE_S = 10.0
# Full databases of 1000 members fit; a peer that lets more pile up is not reading.
MAX_QUEUED = 512
# What can be had again is thrown away beyond this: 256 broadcasts of 1 KiB, 0.2 s at 10 Mbit/s.
MAX_BULK_BYTES = 256 * 1024
# As much as one frame: what is in front of a heartbeat that comes next.
BULK_AT_ONCE_BYTES = 16 * 1024
RECEIVE_BYTES = 16 * 1024
# Whoever is refused for a revocation is told by which list, if it reads.
REFUSAL_S = 1.0


class RefusedByList(Denied):
    """The other end refused this node and handed over the revocation list because of which it did."""

    code = "denied"

    def __init__(self, detail: str, sealed: bytes) -> None:
        super().__init__(detail)
        self.sealed = sealed


class PresenceLink:
    """A stream on which both ends have shown their certificate.

    `opened_here` tells which end opened it. Sending never waits: a queue that overflows ends the stream.
    """

    def __init__(self, stream: Stream, opened_here: bool) -> None:
        self.stream = stream
        self.peer_id: PeerId = stream.peer_id
        """The other end, as the connection's handshake proved it."""
        self.opened_here = opened_here
        self.needed_there = False
        self.said_bye = False
        self.chain = b""
        """The certificate chain that the other end has shown."""
        self._decoder = MessageDecoder()
        self._early: list[Message] = []
        self._queue: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self._bulk_bytes = 0
        self._news = trio.Event()
        self._finishing = False
        self.done = trio.Event()
        self._deliver: Callable[[Message], None] = _nobody
        self._taking = False
        self._ended = trio.Event()
        self._failure: Exception | None = None

    async def greet(self, mine: Hello, check: Callable[[PeerId, bytes], object]) -> None:
        """Exchange certificates; who was dialled says nothing before the dialler's is checked.

        Raises:
            ProtocolError: the first message is no acceptable hello, or did not come in time.
            RefusedByList: it is a revocation list instead, because of which this node is refused.
            FeddError: whatever `check(peer, chain)` raises for a certificate that does not hold.
            trio.BrokenResourceError, trio.ClosedResourceError: the stream broke.
        """
        with trio.move_on_after(HELLO_DEADLINE_S) as scope:
            if self.opened_here:
                await self.stream.send_all(encode_message(mine))
            theirs = await self._receive_hello()
            if theirs.federation != mine.federation:
                raise Denied(f"{self.peer_id} is of another federation")
            check(self.peer_id, theirs.chain)
            self.needed_there, self.chain = theirs.pinned, theirs.chain
            if not self.opened_here:
                await self.stream.send_all(encode_message(mine))
        if scope.cancelled_caught:
            raise ProtocolError(f"{self.peer_id} did not say hello within {HELLO_DEADLINE_S:g} s")

    async def refuse(self, sealed: bytes) -> None:
        """End the stream with the revocation list because of which the other end is refused."""
        with trio.move_on_after(REFUSAL_S):
            await self.stream.send_all(encode_message(Revocations(sealed)))
            await self.stream.aclose()

    def send(self, message: Message, frame: bytes | None = None) -> None:
        """Queue `message`, whose `frame` somebody may have; a reader that is too slow loses the link."""
        if self._finishing:
            return
        if len(self._queue) >= MAX_QUEUED:
            self.stream.reset()
            return
        frame = encode_message(message) if frame is None else frame
        if not self._sent_now(frame):
            self._queue.append(frame)
            self._news.set()

    def send_bulk(self, message: Message, frame: bytes | None = None) -> bool:
        """Queue a `message` that can be had again, behind all others; False when too many bytes wait."""
        frame = encode_message(message) if frame is None else frame
        if self._finishing or self._bulk_bytes + len(frame) > MAX_BULK_BYTES:
            return False
        if self._sent_now(frame):
            return True
        self._bulk.append(frame)
        self._bulk_bytes += len(frame)
        self._news.set()
        return True

    def _sent_now(self, frame: bytes) -> bool:
        """Whether nothing was in front of `frame`, so that it is on its way without a turn of the writer."""
        if self._queue or self._bulk or len(frame) > BULK_AT_ONCE_BYTES:
            return False
        try:
            return self.stream.try_send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False  # the writer finds out, and ends the link

    def finish(self) -> None:
        """End the stream once all that is queued is on its way."""
        self._finishing = True
        self._news.set()

    async def write(self) -> None:
        """Send what is queued until `finish`; ends early when the stream broke."""
        try:
            while True:
                await self._news.wait()
                self._news = trio.Event()
                data = self._take_queued()
                if data:
                    with trio.move_on_after(WRITE_DEADLINE_S) as scope:
                        await self.stream.send_all(data)
                    if scope.cancelled_caught:
                        break
                elif self._finishing:
                    await self.stream.aclose()
                    break
                if self._finishing or self._bulk:
                    self._news.set()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            if not self._finishing:
                self.stream.reset()
            self.done.set()

    def _take_queued(self) -> bytes:
        """All that must be sent, and a frame's worth of what may wait; before a goodbye everything."""
        urgent = list(self._queue)
        self._queue.clear()
        bulk: list[bytes] = []
        room = BULK_AT_ONCE_BYTES
        while self._bulk and (self._finishing or len(self._bulk[0]) <= room or not bulk):
            bulk.append(self._bulk.popleft())
            room -= len(bulk[-1])
            self._bulk_bytes -= len(bulk[-1])
        return b"".join([*bulk, *urgent] if self._finishing else [*urgent, *bulk])

    async def read(self, deliver: Callable[[Message], None]) -> None:
        """Hand every message to `deliver` until the stream ends, whichever way.

        Raises:
            ProtocolError: the peer sent what the protocol does not allow.
        """
        self._deliver = deliver
        self.stream.deliver_to(self._arrived)
        try:
            self._arrived()
            await self._ended.wait()
        finally:
            self.stream.deliver_to(None)
        if self._failure is not None:
            raise self._failure

    def _arrived(self) -> None:
        """Take what is there, in the task that read it off the socket: to wake another takes as long again.

        Also called while it runs: a message may end the stream and the very connection.
        """
        if self._taking:
            return
        self._taking = True
        try:
            while not self._ended.is_set():
                for message in self._early:
                    self.said_bye = self.said_bye or isinstance(message, Bye)
                    self._deliver(message)
                self._early = []
                data = self.stream.receive_nowait(RECEIVE_BYTES)
                if data is None:
                    break
                if data:
                    self._early = self._decoder.receive_data(data)
                else:
                    self._ended.set()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._ended.set()
        except Exception as error:  # whatever it is, it is this stream's: `read` raises it
            self._failure = error
            self._ended.set()
        self._taking = False

    async def _receive_hello(self) -> Hello:
        while not self._early:
            data = await self.stream.receive_some(RECEIVE_BYTES)
            if not data:
                raise ProtocolError(f"{self.peer_id} ended the stream instead of a hello")
            self._early = self._decoder.receive_data(data)
        hello = self._early.pop(0)
        if isinstance(hello, Revocations):
            raise RefusedByList(f"{self.peer_id} refuses this node, which is revoked", hello.sealed)
        if not isinstance(hello, Hello) or hello.version != PRESENCE_VERSION:
            raise ProtocolError(f"{self.peer_id} did not begin with a hello of version {PRESENCE_VERSION}")
        return hello


def _nobody(message: Message) -> None:
    """Nobody reads yet, so nothing is delivered."""
