"""An in-memory network for tests: links within one process, whose latency and faults a test chooses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from fedd.api.errors import Conflict, NotConnected
from fedd.net.transport import Address, Wire

MEMORY_PIPE_BYTES: Final = 64 * 1024
"""What an in-memory wire holds in each direction, about what a socket's buffer does."""


class _Pipe:
    """One direction of an in-memory wire: bytes, each with the time from which it can be read."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.chunks: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.held = self.ended = self.reset = False
        self.changed = trio.Event()

    def touch(self) -> None:
        """Wake whoever waits for this direction to change."""
        self.changed.set()
        self.changed = trio.Event()

    @property
    def readable_at(self) -> float | None:
        """From when there is something to read; None while nothing is on its way."""
        if self.held:
            return None
        if self.chunks:
            return self.chunks[0][0]
        return 0.0 if self.ended or self.reset else None


class MemoryWire:
    """One end of an in-memory link, with the faults that a test wants to inject."""

    def __init__(self, local: Address, remote: Address, incoming: _Pipe, outgoing: _Pipe) -> None:
        self.local_address = local
        self.remote_address = remote
        self.rtt_s: float | None = None
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False
        self._interrupted = False
        self.send: Callable[[bytes | memoryview], int] = self._send
        self.recv_into: Callable[[memoryview], int] = self._recv_into

    def hold(self) -> None:
        """Let no byte through, in either direction, and keep all of them: a silent link."""
        self._incoming.held = self._outgoing.held = True

    def release(self) -> None:
        """Undo `hold`; what was kept arrives now."""
        for pipe in (self._incoming, self._outgoing):
            pipe.held = False
            pipe.touch()

    def cut(self) -> None:
        """Break the link, as a TCP reset does: what was on its way is lost, both ends notice."""
        for pipe in (self._incoming, self._outgoing):
            pipe.chunks.clear()
            pipe.size = 0
            pipe.reset = True
            pipe.held = False
            pipe.touch()

    def _send(self, data: bytes | memoryview) -> int:
        pipe = self._outgoing
        if pipe.reset or self._closed:
            raise ConnectionResetError("the in-memory link was cut")
        room = MEMORY_PIPE_BYTES - pipe.size
        if room <= 0:
            raise BlockingIOError
        taken = bytes(data[:room])
        if not pipe.ended:  # else nobody will read it, and the sender learns it by a reset
            pipe.chunks.append((trio.current_time() + pipe.network.latency_s, taken))
            pipe.size += len(taken)
            pipe.touch()
        return len(taken)

    def _recv_into(self, buffer: memoryview) -> int:
        pipe = self._incoming
        if pipe.reset:
            raise ConnectionResetError("the in-memory link was cut")
        readable_at = pipe.readable_at
        if readable_at is None or readable_at > trio.current_time():
            raise BlockingIOError
        count = 0
        while pipe.chunks and count < len(buffer) and pipe.chunks[0][0] <= trio.current_time():
            at, chunk = pipe.chunks[0]
            taken = min(len(chunk), len(buffer) - count)
            buffer[count : count + taken] = chunk[:taken]
            count += taken
            pipe.chunks.popleft()
            if taken < len(chunk):
                pipe.chunks.appendleft((at, chunk[taken:]))
        pipe.size -= count
        if count:
            pipe.touch()
        return count

    def is_full(self) -> bool:
        """Whether `wait_writable` would wait."""
        return self._outgoing.size >= MEMORY_PIPE_BYTES

    def interrupt(self) -> None:
        """Let the reader look again; a writer is not in need of it, as it looks at what it waits for."""
        self._interrupted = True
        self._incoming.touch()

    def limit_unsent(self, size_bytes: int) -> None:
        """Do nothing: it holds MEMORY_PIPE_BYTES."""

    async def wait_readable(self) -> None:
        """Wait for bytes that have had the time to arrive, the end, or a cut."""
        pipe = self._incoming
        self._interrupted = False
        while True:
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this end was closed")
            if self._interrupted:
                return
            at = pipe.readable_at
            if at is not None and at <= trio.current_time():
                return
            with trio.move_on_at(at if at is not None else float("inf")):
                await pipe.changed.wait()

    async def wait_writable(self) -> None:
        """Wait for room, or a cut."""
        pipe = self._outgoing
        await trio.lowlevel.checkpoint()
        while pipe.size >= MEMORY_PIPE_BYTES and not (pipe.reset or self._closed):
            await pipe.changed.wait()
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")

    def close(self) -> None:
        """Close this end: the other reads what is on its way, then the end."""
        self._closed = True
        self._outgoing.ended = True
        self._incoming.ended = True
        self._incoming.chunks.clear()
        self._incoming.size = 0
        self._incoming.touch()
        self._outgoing.touch()


class MemoryListener:
    """A place of a `MemoryNetwork` where wires come in."""

    def __init__(self, network: MemoryNetwork, address: Address) -> None:
        self.addresses = [address]
        self._network = network
        # as many as a kernel's listen queue would hold
        self.incoming, self._accepted = trio.open_memory_channel[Wire](128)

    def refresh(self) -> bool:
        """There are no wildcards here."""
        return False

    async def accept(self) -> Wire:
        """Wait for the next wire."""
        return await self._accepted.receive()

    def close(self) -> None:
        """Give the place free."""
        self._network.listeners.pop(self.addresses[0].port, None)
        self._accepted.close()


class MemoryNetwork:
    """A network within one process and one trio run, for tests: addresses are /memory/N.

    Bytes take `latency_s` seconds (of trio's clock, so of a MockClock too) to arrive; set it at
    any time. `wires` holds the dialling end of every link made, in order. /memory/0 listens on
    the first free number.
    """

    def __init__(self, latency_s: float = 0.0) -> None:
        self.latency_s = latency_s
        self.listeners: dict[int, MemoryListener] = {}
        self.wires: list[MemoryWire] = []
        self._dialled = 0

    async def connect(self, address: Address) -> Wire:
        """Make a link to whoever listens at that number; NotConnected when nobody does."""
        await trio.lowlevel.checkpoint()
        listener = self.listeners.get(address.port)
        if listener is None:
            raise NotConnected(f"cannot dial {address}: nobody listens there")
        self._dialled += 1
        here = Address("memory", "", 1_000_000 + self._dialled)
        there = Address("memory", "", address.port)
        out, back = _Pipe(self), _Pipe(self)
        wire = MemoryWire(here, there, incoming=back, outgoing=out)
        try:
            listener.incoming.send_nowait(MemoryWire(there, here, incoming=out, outgoing=back))
        except trio.WouldBlock:
            raise NotConnected(f"cannot dial {address}: too many wait there") from None
        self.wires.append(wire)
        return wire

    async def listen(self, address: Address) -> MemoryListener:
        """Listen at a number; Conflict when it is taken."""
        await trio.lowlevel.checkpoint()
        number = address.port or next(n for n in range(1, 1_000_000) if n not in self.listeners)
        if number in self.listeners:
            raise Conflict(
                f"cannot listen on /memory/{number}: it is in use",
                hint="choose another number; /memory/0 picks a free one",
                field="listen",
            )
        listener = MemoryListener(self, Address("memory", "", number))
        self.listeners[number] = listener
        return listener
