"""The perf protocol over an in-memory link."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from fedd.api.errors import NotConnected, ProtocolError, Refused, TimedOut
from fedd.core.identity import PrivateKey
from fedd.net import perf
from fedd.net.memory import MemoryNetwork
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm


@asynccontextmanager
async def two_swarms() -> AsyncIterator[tuple[Swarm, Swarm]]:
    """A dialler and a listener, connected."""
    network = MemoryNetwork()
    dialler, listener = (Swarm(PrivateKey.from_seed(bytes([n]) * 32), network=network) for n in (1, 2))
    async with trio.open_nursery() as nursery:
        await nursery.start(dialler.run)
        await nursery.start(listener.run)
        await dialler.dial(await listener.listen("/memory/0"))
        yield dialler, listener
        nursery.cancel_scope.cancel()


async def test_bytes_go_up_and_come_down() -> None:
    async with two_swarms() as (dialler, listener):
        perf.serve_perf(listener, access="anyone")
        for up, down in ((0, 0), (1_000_000, 0), (0, 1_000_000), (700_001, 300_001)):
            result = await perf.measure(dialler, listener.peer_id, up, down)
            assert (result.upload_bytes, result.download_bytes) == (up, down)
        assert dialler.connections[listener.peer_id].bytes_out > 1_700_001
        assert dialler.connections[listener.peer_id].bytes_in > 1_300_001


async def test_nobody_is_served_unless_asked_for_and_strangers_not_even_then() -> None:
    async with two_swarms() as (dialler, listener):
        with pytest.raises(Refused):
            await perf.measure(dialler, listener.peer_id, 1, 1)
        perf.serve_perf(listener)
        with pytest.raises(Refused):
            await perf.measure(dialler, listener.peer_id, 1, 1)
        listener.member_check = lambda peer_id: peer_id == dialler.peer_id
        await perf.measure(dialler, listener.peer_id, 1, 1)


async def test_another_number_of_bytes_is_an_error() -> None:
    async def stingy(stream: Stream) -> None:
        while await stream.receive_some():
            pass
        await stream.send_all(bytes(9))

    async with two_swarms() as (dialler, listener):
        listener.handle(perf.PROTOCOL, stingy, access="anyone")
        with pytest.raises(ProtocolError, match="returned 9 bytes where 10 were asked for"):
            await perf.measure(dialler, listener.peer_id, 0, 10)


async def test_an_absurd_wish_is_refused() -> None:
    async with two_swarms() as (dialler, listener):
        perf.serve_perf(listener, access="anyone")
        with pytest.raises(NotConnected, match="broke the measurement off"):
            await perf.measure(dialler, listener.peer_id, 0, perf.MAX_DOWNLOAD_BYTES + 1)


async def test_a_stalled_transfer_ends(autojump_clock: MockClock) -> None:
    async def silent(stream: Stream) -> None:
        await trio.sleep_forever()

    async with two_swarms() as (dialler, listener):
        listener.handle(perf.PROTOCOL, silent, access="anyone")
        with pytest.raises(TimedOut):
            await perf.measure(dialler, listener.peer_id, 0, 10)
        assert trio.current_time() == pytest.approx(perf.STALL_S, abs=1.0)
        assert dialler.connections[listener.peer_id].streams == []


async def test_a_dialler_that_falls_silent_loses_its_seat(autojump_clock: MockClock) -> None:
    async with two_swarms() as (dialler, listener):
        perf.serve_perf(listener, access="anyone")
        stream = await dialler.open_stream(listener.peer_id, perf.PROTOCOL)
        await stream.send_all(bytes(7))  # one byte short of the header
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert trio.current_time() == pytest.approx(perf.STALL_S, abs=1.0)
