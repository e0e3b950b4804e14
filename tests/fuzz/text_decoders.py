"""Decoders of texts and of what local users send: addresses, DNS, HTTP."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

import h11
from fuzz.mutate import pieces
from fuzz.targets import FEDERATION, OTHER, PROTOCOL, Target

from fedd.api.errors import FeddError, InvalidParameter
from fedd.control.http import HttpConnection, ServerLimits
from fedd.control.seats import Seat
from fedd.control.server import _check_request
from fedd.core import (
    dns_messages,
    mdns,
)
from fedd.net.transport import multiaddr_from_bytes, parse_multiaddr


def _dns(data: bytes, rng: random.Random) -> None:
    message = dns_messages.decode_message(data)
    for found in mdns.found_in(message, FEDERATION):
        assert len(found.addresses) <= mdns.MAX_ADDRESSES
    mdns.asks_for(message, _INSTANCE)
    written = dns_messages.encode_message(message)  # nothing that was read is longer than it may be written
    assert dns_messages.decode_message(written).questions == message.questions


_INSTANCE = b"0" * mdns.INSTANCE_CHARS
_TOLD = f"/ip4/192.0.2.7/tcp/4001/p2p/{OTHER.peer_id}"
_DNS = (
    mdns.encode_query(),
    mdns.encode_services(),
    mdns.encode_answer(_INSTANCE, [_TOLD], 4001, [bytes(4), bytes(16)], FEDERATION),
    # Compressed, as others write it: a question, and a record whose names point to it.
    bytes.fromhex("000084000001000100000000") + b"\4_p2p\4_udp\5local\0\0\x0c\0\1"
    b"\xc0\x0c\0\x0c\0\1\0\0\0\x78\0\6\3abc\xc0\x0c",
)


def _multiaddr(data: bytes, rng: random.Random) -> None:
    if rng.random() < 0.3:
        multiaddr_from_bytes(data)
        return
    address = parse_multiaddr(data.decode("utf-8", "surrogateescape"))
    assert parse_multiaddr(str(address)) == address


class _NoMore(Exception):
    """The client sends nothing more."""


class _Silent:
    async def receive_some(self, max_bytes: int) -> bytes:
        raise _NoMore


def _http(data: bytes, rng: random.Random) -> None:
    """A request through h11, the table of routes and the checks of its fields; the way the server goes."""
    seat = cast(Seat, SimpleNamespace(last_heard=0.0))
    connection = HttpConnection(cast(Any, _Silent()), 0, seat, ServerLimits())
    try:
        for piece in pieces(rng, data):
            connection._early += piece
        reading = connection._read_request()
        reading.send(None)
    except StopIteration as done:
        if done.value is not None:
            _check_request(*done.value, 0, "request")
    except _NoMore:
        pass


_REQUESTS = (
    b"GET /v1/status HTTP/1.1\r\nHost: fedd\r\n\r\n",
    b"GET /v1/events?since=12 HTTP/1.1\r\nHost: fedd\r\n\r\n",
    b'POST /v1/federation/join HTTP/1.1\r\nHost: fedd\r\nContent-Length: 13\r\n\r\n{"token":"a"}',
    b'PUT /v1/inputs/x HTTP/1.1\r\nHost: fedd\r\nContent-Length: 20\r\n\r\n{"value":[1,2.5,[]]}',
    b"DELETE /v1/links/12D3Koo%57 HTTP/1.1\r\nHost: fedd\r\n\r\n",
    b"POST /v1/runs HTTP/1.1\r\nHost: fedd\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'1a\r\n{"algorithm": "consensus"}\r\n0\r\n\r\n',
)


TEXT_TARGETS: dict[str, Target] = {
    "multiaddr": Target(
        _multiaddr,
        (InvalidParameter,),
        (
            f"/ip4/192.0.2.7/tcp/4001/p2p/{OTHER.peer_id}".encode(),
            b"/ip6/2001:db8::1/tcp/4001",
            b"/dns4/a.example/tcp/1",
            b"/dnsaddr/a.example",
            b"/memory/7",
            b"\x04\x7f\x00\x00\x01\x06\x0f\xa1",
        ),
    ),
    "dns": Target(_dns, PROTOCOL, _DNS),
    "http": Target(_http, (h11.RemoteProtocolError, FeddError), _REQUESTS),
}
