"""The handshake on the wire: both ways to a muxer, and peers that misbehave."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from net.links import KEYS

from fedd.api.errors import FeddError, NotConnected, ProtocolError
from fedd.core import multistream, noise_handshake, yamux
from fedd.core.noise import NoiseTransport
from fedd.net import upgrade as upgrade_module
from fedd.net.memory import MemoryNetwork
from fedd.net.transport import Address, Wire
from fedd.net.upgrade import DoorClosed, Secured, upgrade

HEADER = b"\x13/multistream/1.0.0\n"
NOISE = b"\x07/noise\n"


async def wires(latency_s: float = 0.0) -> tuple[Wire, Wire]:
    network = MemoryNetwork(latency_s)
    listener = await network.listen(Address("memory", "", 1))
    return await network.connect(Address("memory", "", 1)), await listener.accept()


async def both(a: Wire, b: Wire) -> tuple[Secured, Secured]:
    ends: dict[bool, Secured] = {}

    async def go(wire: Wire, initiator: bool) -> None:
        ends[initiator] = await upgrade(wire, KEYS[0 if initiator else 1], initiator=initiator)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go, a, True)
        nursery.start_soon(go, b, False)
    return ends[True], ends[False]


async def test_both_ends_learn_who_the_other_is() -> None:
    a, b = await both(*await wires())
    assert a.peer_id == KEYS[1].peer_id
    assert b.peer_id == KEYS[0].peer_id
    assert b.transport.decrypt(a.transport.encrypt(b"hello")[2:]) == b"hello"
    assert (a.plaintext, a.ciphertext, b.plaintext, b.ciphertext) == (b"", b"", b"", b"")


async def test_a_peer_without_early_muxers_negotiates_the_muxer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(noise_handshake.NoiseHandshake):
        def __init__(self, *args: object, **more: object) -> None:
            super().__init__(*args, **{**more, "muxers": ()})

    monkeypatch.setattr(upgrade_module.noise_handshake, "NoiseHandshake", Plain)
    a, b = await both(*await wires())
    assert b.transport.decrypt(a.transport.encrypt(b"hello")[2:]) == b"hello"
    assert (a.plaintext, a.ciphertext, b.plaintext, b.ciphertext) == (b"", b"", b"", b"")


async def test_bytes_that_follow_the_negotiation_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dialler that sends its muxer proposal, its first frames and half a Noise frame in one write."""
    dialler, wire = await wires()
    found: list[Secured] = []

    async def accept() -> None:
        found.append(await upgrade(wire, KEYS[1], initiator=False))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        client = Client(dialler)
        transport = await client.handshake(muxers=())
        proposal = multistream.Dialer([yamux.PROTOCOL]).data_to_send()
        raw = transport.encrypt(proposal + b"first frame") + transport.encrypt(b"second")[:5]
        client.send(raw)
    assert found[0].plaintext == b"first frame"
    assert len(found[0].ciphertext) == 5


async def test_a_dialler_says_all_it_can_at_once_and_is_answered_at_once() -> None:
    dialler, wire = await wires()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: upgrade(dialler, KEYS[0], initiator=True))
        buffer = memoryview(bytearray(1000))
        await wire.wait_readable()
        first = bytes(buffer[: wire.recv_into(buffer)])
        proposal = multistream.Dialer(["/noise"]).data_to_send()
        assert first.startswith(proposal)
        assert len(first) == len(proposal) + 2 + 32
        nursery.cancel_scope.cancel()

    dialler, wire = await wires()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: upgrade(wire, KEYS[1], initiator=False))
        client = Client(dialler)
        client.send(first)
        answer = await client.receive()
        assert answer.startswith(proposal)
        assert len(answer) > len(proposal) + 2 + 32 + 48
        nursery.cancel_scope.cancel()


class Client:
    """A dialler made by hand."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def send(self, data: bytes) -> None:
        assert self.wire.send(data) == len(data)

    async def receive(self) -> bytes:
        buffer = memoryview(bytearray(100_000))
        await self.wire.wait_readable()
        return bytes(buffer[: self.wire.recv_into(buffer)])

    async def handshake(self, muxers: tuple[str, ...] = (yamux.PROTOCOL,)) -> NoiseTransport:
        dialer = multistream.Dialer(["/noise"])
        self.send(dialer.data_to_send())
        while not dialer.finished:
            dialer.receive_data(await self.receive())
        machine = noise_handshake.NoiseHandshake(KEYS[0], initiator=True, muxers=muxers)
        done: list[noise_handshake.HandshakeDone] = []
        self.send(machine.data_to_send())
        while not done:
            done = machine.receive_data(await self.receive())
            self.send(machine.data_to_send())
        return done[0].transport


async def refused(*said: bytes, initiator: bool = False, end: bool = True) -> FeddError:
    """Say this to an end that upgrades, and give its error."""
    peer, wire = await wires()
    caught: list[FeddError] = []

    async def go() -> None:
        with pytest.raises(FeddError) as error:
            await upgrade(wire, KEYS[1], initiator=initiator)
        caught.append(error.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go)
        for data in said:
            peer.send(data)
            await trio.testing.wait_all_tasks_blocked()
        if end:
            peer.close()
    return caught[0]


async def test_peers_that_do_not_speak_it() -> None:
    assert isinstance(await refused(b"GET / HTTP/1.1\r\n" * 9, end=False), ProtocolError)
    assert isinstance(await refused(b"\xff" * 100, end=False), ProtocolError)
    assert isinstance(await refused(HEADER + NOISE + b"\xff\xff", end=False), ProtocolError)
    assert isinstance(await refused(HEADER + b"\x03na\n", initiator=True, end=False), ProtocolError)
    assert "/noise" in (await refused(HEADER + b"\x03na\n", initiator=True, end=False)).detail


async def test_peers_that_go_away() -> None:
    assert isinstance(await refused(), DoorClosed)
    error = await refused(HEADER)
    assert isinstance(error, NotConnected)
    assert not isinstance(error, DoorClosed)
    assert "during the handshake" in error.detail
    assert isinstance(await refused(HEADER, NOISE), NotConnected)


async def test_a_link_that_breaks() -> None:
    a, b = await wires()
    b.cut()
    with pytest.raises(DoorClosed, match="at once"):  # a reset, because it has not read our words
        await upgrade(a, KEYS[0], initiator=True)
    a, b = await wires()
    assert b.send(HEADER) == len(HEADER)

    async def go() -> None:
        with pytest.raises(NotConnected, match="broke during the handshake") as caught:
            await upgrade(a, KEYS[0], initiator=True)
        assert not isinstance(caught.value, DoorClosed)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go)
        await trio.testing.wait_all_tasks_blocked()
        b.cut()


async def test_plaintext_is_refused_once_the_keys_are_agreed() -> None:
    dialler, wire = await wires()
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(ProtocolError):
                await upgrade(wire, KEYS[1], initiator=False)

        for forged in (b"\x00\x20" + bytes(32), b"\x00\x00"):
            nursery.start_soon(accept)
            client = Client(dialler)
            await client.handshake(muxers=())
            client.send(forged)
            await trio.testing.wait_all_tasks_blocked()
            dialler, wire = await wires()


async def test_a_full_wire_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    a, b = await wires(latency_s=0.1)
    real, blocked = a.send, [True]

    def send(data: bytes | memoryview) -> int:
        if blocked:
            blocked.pop()
            raise BlockingIOError
        return real(bytes(data[:7]))

    a.send = send
    assert (await both(a, b))[0].peer_id == KEYS[1].peer_id
    assert not blocked


@pytest.mark.parametrize("length", range(26))
async def test_a_dialler_cut_off_at_any_byte(length: int) -> None:
    error = await refused((HEADER + NOISE)[:length])
    assert isinstance(error, NotConnected)
