"""One neighbour's run streams: mine to it, renewed as often as it breaks, and its to me.

A link holds no message of its own: what a renewed stream must carry is asked for again (`backlog`), so
nothing is lost with a stream and nothing grows while there is none.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import trio

from fedd.api.errors import FeddError, ProtocolError
from fedd.api.types import PeerId
from fedd.core.pieces import Payload
from fedd.host.run_wire import MAX_STATEMENT_BYTES, FrameDecoder, Kind, RunFrame, encode_frame

if TYPE_CHECKING:
    from fedd.net.stream import Stream

log = logging.getLogger("fedd.host")

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0
"""A refused stream is asked for again at this pace; a new connection is used at once (`poke`)."""

OPEN_TIMEOUT_S = 10.0

_MAX_ANSWERS = 64
"""Answers that a neighbour has not taken. It asks for a few in a run's whole life."""

_AT_ONCE_BYTES = 32 * 1024
"""Up to here a message is sent by whoever has it, without waking the link's task: larger ones take turns."""

_STREAM_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, FeddError, EOFError)


class LinkOwner(Protocol):
    """The run's node, as its links see it."""

    def open_stream(self, peer: PeerId, /) -> Awaitable[Stream]:
        """A new run stream. Raises FeddError."""
        ...

    def backlog(self, peer: PeerId) -> list[Payload]:
        """All that a renewed stream to this neighbour begins with, the preamble first."""
        ...

    def on_reply(self, peer: PeerId, frame: RunFrame) -> None:
        """The neighbour answered on my stream."""
        ...

    def on_settled(self) -> None:
        """A link needs nothing more."""
        ...


class RunLink:
    """My stream to one neighbour. `settled` when the neighbour needs nothing more from me."""

    def __init__(
        self, peer: PeerId, owner: LinkOwner, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self.peer = peer
        self.settled = False
        self.inbound = 0
        """How many streams of the neighbour to me are open (more than one for a moment, on renewal)."""
        self.bytes_out = 0
        self._owner = owner
        self._clock = clock
        self._stream: Stream | None = None
        self._queue: deque[Payload] = deque()
        self._busy = False
        self._renewed = False
        self._news = trio.Event()
        self._down_since: float | None = clock()

    def push(self, buffers: Sequence[Payload]) -> None:
        """Send to the neighbour now, in order; without a stream the next one's backlog will have it."""
        if self._stream is None:
            return
        if not (self._busy or self._queue) and self._send_at_once(self._stream, buffers):
            return
        self._queue += buffers
        if not self._busy:
            self._news.set()

    def _send_at_once(self, stream: Stream, buffers: Sequence[Payload]) -> bool:
        size = sum(map(len, buffers))
        if size > _AT_ONCE_BYTES:
            return False
        try:
            sent = stream.try_send(b"".join(buffers))
        except _STREAM_ERRORS:  # the link's task meets the same error, and renews the stream
            return False
        if sent:
            self.bytes_out += size
        return sent

    def renew(self) -> None:
        """There is a new connection: use it at once, and no older one any more."""
        self._renewed = True
        self._news.set()

    def settle(self) -> None:
        """The neighbour needs nothing more: end the stream once what is queued was sent."""
        if not self.settled:
            self.settled = True
            self._news.set()
            self._owner.on_settled()

    def down_s(self) -> float:
        """Seconds for which the stream of one direction or both has been missing; 0 when both are there."""
        if self._stream is not None and self.inbound:
            self._down_since = None
            return 0.0
        if self._down_since is None:
            self._down_since = self._clock()
        return self._clock() - self._down_since

    def forgive(self, paused_s: float) -> None:
        """This node itself was paused for so long."""
        if self._down_since is not None:
            self._down_since += paused_s

    async def run(self) -> None:
        """Keep a stream to the neighbour until settled. Never raises FeddError."""
        retry_s = FIRST_RETRY_S
        while not self.settled:
            # Here, so that each new connection is tried at once, and only once: opening may fail as fast.
            self._renewed = False
            try:
                with trio.fail_after(OPEN_TIMEOUT_S):
                    stream = await self._owner.open_stream(self.peer)
            except (FeddError, trio.TooSlowError) as error:
                log.debug("no run stream to %s: %s", self.peer, error)
            else:
                try:
                    await self._use(stream)
                    retry_s = FIRST_RETRY_S
                except _STREAM_ERRORS as error:
                    log.debug("the run stream to %s broke: %s", self.peer, error)
                finally:
                    self._stream = None
                    self._queue.clear()
                    stream.reset()
            if self.settled:
                break
            if not self._renewed:
                self._news = trio.Event()
                with trio.move_on_after(retry_s):
                    await self._news.wait()
            retry_s = min(retry_s * 2, LAST_RETRY_S)

    async def _use(self, stream: Stream) -> None:
        """Send over this stream until settled, renewed or broken."""
        self._queue.clear()
        self._queue += self._owner.backlog(self.peer)
        self._stream = stream
        broken: list[Exception] = []

        async def read_replies() -> None:
            decoder = FrameDecoder(MAX_STATEMENT_BYTES)
            try:
                while data := await stream.receive_some():
                    for frame in decoder.receive_data(data):
                        self._owner.on_reply(self.peer, frame)
            except _STREAM_ERRORS as error:
                broken.append(error)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_replies)
            try:
                await self._send(stream)
            except _STREAM_ERRORS as error:
                broken.append(error)
            nursery.cancel_scope.cancel()
        if self.settled or self._renewed:
            await stream.aclose()
        elif broken:
            raise broken[0]

    async def _send(self, stream: Stream) -> None:
        while True:
            self._busy = True
            while self._queue:
                data = self._queue.popleft()
                self.bytes_out += len(data)
                await stream.send_all(data)
            self._busy = False
            if self.settled or self._renewed:
                await stream.send_all(b"")  # what was sent at once may still wait for the socket
                return
            self._news = trio.Event()
            await self._news.wait()


class FrameTaker(Protocol):
    """The run's node, as a neighbour's stream sees it."""

    def on_frame(self, peer: PeerId, frame: RunFrame) -> bytes | None:
        """Take a frame; what is returned goes back on the stream. Raises ProtocolError to end it."""
        ...

    def count_in(self, peer: PeerId, received_bytes: int) -> None:
        """So many bytes came from this neighbour."""
        ...


async def serve(stream: Stream, early: bytes, taker: FrameTaker, max_payload_bytes: int) -> None:
    """Take a neighbour's frames until its stream ends. `early` are bytes that came with the preamble."""
    inbox = _Inbox(stream, taker, max_payload_bytes)
    try:
        inbox.take(early)
        stream.deliver_to(inbox.on_arrival)
        inbox.on_arrival()
        await inbox.answer_to_the_end()
        await stream.aclose()
    except ProtocolError as error:
        log.warning("%s broke the rules of a run: %s", stream.peer_id, error.detail)
        answer = encode_frame(Kind.CUT, 1, error.detail.encode()[:MAX_STATEMENT_BYTES])
        with trio.move_on_after(1.0):
            await stream.send_all(answer)
        raise
    finally:
        stream.deliver_to(None)


class _Inbox:
    """Takes the frames of one stream as they arrive, without waking a task; answers are rare and wait."""

    def __init__(self, stream: Stream, taker: FrameTaker, max_payload_bytes: int) -> None:
        self._stream = stream
        self._taker = taker
        self._decoder = FrameDecoder(max_payload_bytes)
        self._answers: deque[bytes] = deque()
        self._news = trio.Event()
        self._taking = False
        self._ended = False
        self._failure: Exception | None = None

    def take(self, data: bytes) -> None:
        """Hand over the frames that `data` completes. Raises ProtocolError."""
        self._taker.count_in(self._stream.peer_id, len(data))
        for frame in self._decoder.receive_data(data):
            answer = self._taker.on_frame(self._stream.peer_id, frame)
            if answer is not None:
                if len(self._answers) >= _MAX_ANSWERS:
                    raise ProtocolError(f"{self._stream.peer_id} reads no answers")
                self._answers.append(answer)

    def on_arrival(self) -> None:
        """Take what is there. Also called while it runs: a frame may end the very connection."""
        if self._taking or self._ended:
            return
        self._taking = True
        try:
            while (data := self._stream.receive_nowait()) is not None:
                if not data:
                    self._ended = True
                    break
                self.take(data)
        except Exception as error:  # whatever it is, it is this stream's: `answer_to_the_end` raises it
            self._failure = error
            self._ended = True
        self._taking = False
        if self._ended or self._answers:
            self._news.set()

    async def answer_to_the_end(self) -> None:
        """Send the answers until the neighbour's end of the stream. Raises what ended it instead."""
        while True:
            self._news = trio.Event()
            while self._answers:
                await self._stream.send_all(self._answers.popleft())
            if self._ended:
                break
            await self._news.wait()
        if self._failure is not None:
            raise self._failure
