"""From a raw wire to an authenticated, encrypted, multiplexed one: multistream, Noise, the muxer."""

from __future__ import annotations

from typing import Final

from fedd.api.errors import NotConnected, ProtocolError
from fedd.api.types import PeerId
from fedd.core import multistream, noise_handshake, yamux
from fedd.core.dataclass import dataclass
from fedd.core.identity import PrivateKey
from fedd.core.noise import NoiseTransport
from fedd.net.transport import Wire

_RECEIVE_BYTES: Final = 8192
"""More than a handshake message of an honest peer; what a stranger makes us hold until it is known."""


class DoorClosed(NotConnected):
    """The peer closed before it said a word: it is gone, or has no seat free just now."""


@dataclass(frozen=True, slots=True)
class Secured:
    """A wire whose other end has proven who it is."""

    wire: Wire
    peer_id: PeerId
    transport: NoiseTransport
    plaintext: bytes
    """Decrypted bytes that came after the negotiation: the first of the muxer's."""
    ciphertext: bytes
    """Bytes that came after those, still encrypted."""


async def upgrade(
    wire: Wire, key: PrivateKey, *, initiator: bool, expected_peer: PeerId | None = None
) -> Secured:
    """Negotiate; the caller sets the deadline and closes the wire when this raises.

    Denied when another key answers than `expected_peer`'s, ProtocolError when the peer does not
    speak libp2p, NotConnected when the wire breaks.
    """
    handshake = _Handshake(wire, initiator)
    try:
        return await _upgrade(handshake, key, initiator, expected_peer)
    except OSError as error:
        if handshake.silent and isinstance(error, ConnectionError):  # closed with our words unread
            raise handshake.door_closed() from error
        raise NotConnected(
            f"the connection with {wire.remote_address} broke during the handshake: {error.strerror or error}"
        ) from error


class _Handshake:
    """Reads and writes of the handshake, and what was read too much."""

    def __init__(self, wire: Wire, initiator: bool) -> None:
        self.wire = wire
        self.unused = b""
        self.silent = True
        self.wait_first = initiator  # the first words of who dials are often there already

    async def send(self, data: bytes) -> None:
        """Write all of it."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.wire.send(rest) :]
            except BlockingIOError:
                await self.wire.wait_writable()

    async def receive(self) -> bytes:
        """Give what was left over, or wait for more; NotConnected at the end."""
        if self.unused:
            data, self.unused = self.unused, b""
            return data
        buffer = memoryview(bytearray(_RECEIVE_BYTES))
        while True:
            if self.wait_first:
                await self.wire.wait_readable()
            self.wait_first = True
            try:
                count = self.wire.recv_into(buffer)
            except BlockingIOError:
                continue
            if count:
                self.silent = False
                return bytes(buffer[:count])
            if self.silent:
                raise self.door_closed()
            raise NotConnected(
                f"{self.wire.remote_address} closed the connection during the handshake",
                hint="it may not accept this device's key, or not speak libp2p's Noise",
            )

    def door_closed(self) -> DoorClosed:
        """Give the error for a peer that has not said a word."""
        return DoorClosed(
            f"{self.wire.remote_address} closed the connection at once",
            hint="it may be busy or shutting down; try again",
        )


async def _upgrade(
    handshake: _Handshake, key: PrivateKey, initiator: bool, expected_peer: PeerId | None
) -> Secured:
    def begin() -> noise_handshake.NoiseHandshake:
        return noise_handshake.NoiseHandshake(
            key, initiator=initiator, expected_peer=expected_peer, muxers=(yamux.PROTOCOL,)
        )

    # There is nothing else to agree on, so the first message of Noise goes with the proposal: a flight less.
    machine = begin() if initiator else None
    first = machine.data_to_send() if machine is not None else b""
    answer = await _agree(noise_handshake.PROTOCOL_ID, initiator, handshake, first)
    machine = machine or begin()  # only now: strangers who say nothing cost no key
    done: list[noise_handshake.HandshakeDone] = []
    while not done:
        done = machine.receive_data(await handshake.receive())
        await handshake.send(answer + machine.data_to_send())
        answer = b""
    identity = done[0]
    inner = _SecuredBytes(handshake, identity.transport, identity.trailing)
    if yamux.PROTOCOL not in identity.muxers and (answer := await _agree(yamux.PROTOCOL, initiator, inner)):
        await inner.send(answer)
    return Secured(handshake.wire, identity.peer_id, identity.transport, inner.unused, inner.ciphertext)


class _SecuredBytes:
    """The encrypted link as a byte stream, for the muxer's negotiation by multistream."""

    def __init__(self, handshake: _Handshake, transport: NoiseTransport, ciphertext: bytes) -> None:
        self.unused = b""
        self.ciphertext = ciphertext
        self._handshake = handshake
        self._transport = transport

    async def send(self, data: bytes) -> None:
        await self._handshake.send(self._transport.encrypt(data))

    async def receive(self) -> bytes:
        while True:
            end = 2 + int.from_bytes(self.ciphertext[:2], "big")
            if 2 < end <= len(self.ciphertext):
                frame, self.ciphertext = self.ciphertext[2:end], self.ciphertext[end:]
                return self._transport.decrypt(frame)
            if end == 2 and len(self.ciphertext) >= 2:
                raise ProtocolError("an empty Noise frame")
            self.ciphertext += await self._handshake.receive()


async def _agree(
    protocol: str, initiator: bool, link: _Handshake | _SecuredBytes, first: bytes = b""
) -> bytes:
    """Agree on the one protocol that there is here; what was read beyond stays in `link.unused`.

    `first` is what a dialler says in that protocol without waiting for the answer. Gives the answer that a
    listener still has to send, when the dialler has not waited for it: it can go with what comes next.
    """
    machine = multistream.Dialer([protocol]) if initiator else multistream.Listener([protocol])
    if initiator:
        await link.send(machine.data_to_send() + first)
    while not machine.finished:
        events = machine.receive_data(await link.receive())
        answer = machine.data_to_send()
        if machine.finished and machine.trailing and not initiator:
            link.unused = machine.trailing
            return answer
        if answer:
            await link.send(answer)
        if initiator and any(isinstance(event, multistream.Rejected) for event in events):
            raise ProtocolError(f"the peer does not speak {protocol}", hint="fedd has no other")
    link.unused = machine.trailing
    return b""
