"""The in-memory twin of TCP: bounds, order, faults."""

from __future__ import annotations

import gc
import os
import socket

import pytest
import trio
import trio.testing

from fedd.api.errors import Conflict, NotConnected
from fedd.net.memory import MEMORY_PIPE_BYTES, MemoryNetwork, MemoryWire
from fedd.net.tcp import TcpNetwork
from fedd.net.transport import Address


async def memory_pair(network: MemoryNetwork) -> tuple[MemoryWire, MemoryWire]:
    listener = await network.listen(Address("memory", "", 0))
    await network.connect(listener.addresses[0])
    other = await listener.accept()
    assert isinstance(other, MemoryWire)
    return network.wires[-1], other


async def test_memory_wires_are_bounded_and_in_order() -> None:
    a, b = await memory_pair(MemoryNetwork())
    assert a.send(bytes(100_000)) == MEMORY_PIPE_BYTES
    with pytest.raises(BlockingIOError):
        a.send(b"x")
    buffer = memoryview(bytearray(10))
    with trio.testing.assert_checkpoints():
        await b.wait_readable()
    assert b.recv_into(buffer) == 10
    await a.wait_writable()
    assert a.send(b"x" * 20) == 10
    large = memoryview(bytearray(100_000))
    assert b.recv_into(large) == MEMORY_PIPE_BYTES
    assert bytes(large[MEMORY_PIPE_BYTES - 10 : MEMORY_PIPE_BYTES]) == b"x" * 10
    with pytest.raises(BlockingIOError):
        b.recv_into(buffer)


async def test_memory_wires_take_their_time(autojump_clock: trio.testing.MockClock) -> None:
    a, b = await memory_pair(MemoryNetwork(latency_s=0.5))
    start = trio.current_time()
    a.send(b"hello")
    buffer = memoryview(bytearray(10))
    with pytest.raises(BlockingIOError):
        b.recv_into(buffer)
    await b.wait_readable()
    assert trio.current_time() - start == pytest.approx(0.5)
    assert b.recv_into(buffer) == 5
    a.close()
    await b.wait_readable()
    assert b.recv_into(buffer) == 0
    assert b.send(b"into the void") == 13
    with pytest.raises(ConnectionResetError):
        a.send(b"x")


async def test_memory_faults(autojump_clock: trio.testing.MockClock) -> None:
    a, b = await memory_pair(MemoryNetwork())
    buffer = memoryview(bytearray(10))
    a.hold()
    a.send(b"held")
    with trio.move_on_after(100) as scope:
        await b.wait_readable()
    assert scope.cancelled_caught
    a.release()
    await b.wait_readable()
    assert b.recv_into(buffer) == 4
    a.send(b"lost")
    b.cut()
    for end in (a, b):
        await end.wait_readable()
        await end.wait_writable()
        with pytest.raises(ConnectionResetError):
            end.recv_into(buffer)
        with pytest.raises(ConnectionResetError):
            end.send(b"x")


async def test_closing_a_memory_wire_wakes_who_waits() -> None:
    a, b = await memory_pair(MemoryNetwork())
    while True:
        try:
            a.send(bytes(1000))
        except BlockingIOError:
            break
    closed = []

    async def wait(what: str) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await getattr(a, what)()
        closed.append(what)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "wait_readable")
        nursery.start_soon(wait, "wait_writable")
        await trio.testing.wait_all_tasks_blocked()
        a.close()
    assert sorted(closed) == ["wait_readable", "wait_writable"]
    b.close()


async def test_memory_addresses_are_taken_and_given_free() -> None:
    network = MemoryNetwork()
    listener = await network.listen(Address("memory", "", 7))
    with pytest.raises(Conflict, match="/memory/7"):
        await network.listen(Address("memory", "", 7))
    for _ in range(128):
        await network.connect(Address("memory", "", 7))
    with pytest.raises(NotConnected, match="too many wait"):
        await network.connect(Address("memory", "", 7))
    listener.close()
    with pytest.raises(NotConnected, match="nobody listens"):
        await network.connect(Address("memory", "", 7))


async def test_whoever_gives_up_connecting_leaves_no_socket() -> None:
    with socket.socket() as full:  # it never accepts, and its kernel drops who comes beyond its queue
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = Address("ip4", "127.0.0.1", full.getsockname()[1])
        network = TcpNetwork()
        wires = []
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:

            async def connect() -> None:
                with scope:
                    while True:
                        wires.append(await network.connect(address))

            nursery.start_soon(connect)
            await trio.testing.wait_all_tasks_blocked(0.05)
            gc.collect()  # so that no socket of an earlier test is closed meanwhile
            before = len(os.listdir("/proc/self/fd"))
            scope.cancel()
        assert scope.cancelled_caught
        assert len(os.listdir("/proc/self/fd")) == before - 1
        for wire in wires:
            wire.close()
