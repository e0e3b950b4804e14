"""libp2p's identify, `/ipfs/id/1.0.0`: who a peer says it is, where it listens, what it speaks.

github.com/libp2p/specs/blob/master/identify: one protobuf message behind its length, then the
end of the stream. Nothing in it is proven except that the connection's key sent it: addresses are
hints for dialling.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import trio

from fedd.api.errors import FeddError, NotConnected, ProtocolError, TimedOut
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.identity import PublicKey
from fedd.core.protobuf import bytes_field, decode_message, encode_message, repeated_bytes
from fedd.core.varint import decode_uvarint, encode_uvarint
from fedd.net.connection import Connection
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm
from fedd.net.transport import multiaddr_from_bytes, multiaddr_to_bytes, parse_multiaddr

PROTOCOL: Final = "/ipfs/id/1.0.0"
PROTOCOL_VERSION: Final = "ipfs/0.1.0"
MAX_MESSAGE_BYTES: Final = 8192
"""As in go-libp2p: a peer that has more to say about itself is cut off."""

MAX_ADDRESSES: Final = 64
MAX_PROTOCOLS: Final = 256
_KEY, _LISTEN_ADDRESS, _PROTOCOL, _OBSERVED, _VERSION, _AGENT = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class Identification:
    """What a peer says about itself. Texts are the peer's: escape them before showing them."""

    peer_id: PeerId
    agent: str
    protocol_version: str
    protocols: tuple[str, ...]
    addresses: tuple[str, ...]
    observed_address: str | None
    """Where it sees us, None when it does not say."""


def serve_identify(swarm: Swarm) -> None:
    """Tell everybody who asks."""

    async def tell(stream: Stream) -> None:
        message = encode_for(swarm, stream.connection)
        await stream.send_all(encode_uvarint(len(message)) + message)

    swarm.handle(PROTOCOL, tell, "anyone")


def encode_for(swarm: Swarm, connection: Connection) -> bytes:
    """Give the message about this node for a peer: only protocols that it may speak, and where it is seen."""
    fields: list[tuple[int, int | bytes]] = [(_KEY, swarm.key.public_key.to_protobuf())]
    for address in swarm.addresses[:MAX_ADDRESSES]:
        plain = replace(parse_multiaddr(address), peer_id=None)  # the specification has them without /p2p
        fields.append((_LISTEN_ADDRESS, multiaddr_to_bytes(plain)))
    for protocol in swarm.protocols_for(connection.peer_id)[:MAX_PROTOCOLS]:
        fields.append((_PROTOCOL, protocol.encode()))
    if connection.relayed_by is None:  # else it is the relay that is seen there
        fields.append((_OBSERVED, multiaddr_to_bytes(connection.wire.remote_address)))
    fields += [
        (_VERSION, PROTOCOL_VERSION.encode()),
        (_AGENT, swarm.agent.encode()),
    ]
    return encode_message(fields)


def decode_identification(data: bytes, peer_id: PeerId) -> Identification:
    """Read a message that `peer_id` sent; ProtocolError when it is malformed or about another key.

    Addresses of kinds that are unknown here are left out.
    """
    message = decode_message(data)
    key = bytes_field(message, _KEY)
    if key is not None and PublicKey.from_protobuf(key).peer_id != peer_id:
        raise ProtocolError(f"{peer_id} identifies itself with another key")
    addresses = repeated_bytes(message, _LISTEN_ADDRESS)[:MAX_ADDRESSES]
    observed = bytes_field(message, _OBSERVED)
    return Identification(
        peer_id=peer_id,
        agent=_text(bytes_field(message, _AGENT)),
        protocol_version=_text(bytes_field(message, _VERSION)),
        protocols=tuple(_text(name) for name in repeated_bytes(message, _PROTOCOL)[:MAX_PROTOCOLS]),
        addresses=tuple(text for text in map(_address, addresses) if text is not None),
        observed_address=None if observed is None else _address(observed),
    )


def _text(data: bytes | None) -> str:
    return (data or b"")[:512].decode(errors="replace")


def _address(data: bytes) -> str | None:
    try:
        return multiaddr_from_bytes(data)
    except FeddError:
        return None


async def identify(swarm: Swarm, peer_id: PeerId, deadline_s: float = 10.0) -> Identification:
    """Ask a connected peer who it is."""
    stream = await swarm.open_stream(peer_id, PROTOCOL, deadline_s)
    try:
        with trio.fail_after(deadline_s):
            data = await receive_message(stream)
        await stream.aclose()
    except trio.TooSlowError:
        raise TimedOut(f"{peer_id} did not identify itself in {deadline_s:g} s") from None
    except trio.BrokenResourceError as error:
        raise NotConnected(f"{peer_id} did not identify itself: {error}") from error
    finally:
        stream.reset()  # does nothing to a stream that was closed
    return decode_identification(data, peer_id)


async def receive_message(stream: Stream) -> bytes:
    """Read the length and the message behind it."""
    data = b""
    while len(data) <= MAX_MESSAGE_BYTES:
        more = await stream.receive_some()
        data += more
        try:
            size, start = decode_uvarint(data)
        except ProtocolError:
            if more:
                continue
            raise
        if size > MAX_MESSAGE_BYTES:
            break
        if len(data) >= start + size:
            return data[start : start + size]
        if not more:
            raise ProtocolError(f"{stream.peer_id} ended its identification after {len(data)} bytes")
    raise ProtocolError(f"{stream.peer_id} identifies itself in more than {MAX_MESSAGE_BYTES} bytes")
