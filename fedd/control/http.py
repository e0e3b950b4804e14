"""One HTTP/1.1 connection of the control API: h11's machine over a stream, its bounds, its replies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import h11
import trio

from fedd.api.errors import FeddError, InvalidParameter
from fedd.control.requests import MethodNotAllowed
from fedd.control.schema import error_document, error_kind
from fedd.control.seats import Seat


class ServerLimits(NamedTuple):
    """Bounds of the server, each against one client that hogs or dawdles."""

    connections: int = 64
    reserved: int = 16  # seats that only the owner (the daemon's user and root) may take
    header_bytes: int = 16_384
    body_bytes: int = 1024 * 1024  # the largest request is `set` with nested lists
    idle_s: float = 60.0  # between requests; scripts that ask once a minute keep their connection
    request_s: float = 10.0  # from a request's first byte to its last
    send_s: float = 30.0  # for a reply; streams may stall, because they hold nothing but a position


class HttpConnection:
    """One HTTP connection: h11's machine, the stream under it, and the seat it occupies."""

    def __init__(self, stream: trio.abc.Stream, uid: int, seat: Seat, limits: ServerLimits) -> None:
        self.uid = uid
        self.seat = seat
        self.broken = False
        self._stream = stream
        self._limits = limits
        self._http = self._new_machine()
        self._head = b""
        self._early = b""  # bytes of the next request, come while the present one was worked on

    async def next_request(self) -> tuple[str, str, bytes] | None:
        """Method, target and body of the next request; None when the client closed or fell silent.

        Raises h11.RemoteProtocolError on anything that is no acceptable HTTP.
        """
        with trio.move_on_after(self._limits.idle_s):
            first = await self._receive()
            if not first:
                return None
            with trio.move_on_after(self._limits.request_s) as deadline:
                self._feed(first)
                return await self._read_request()
            if deadline.cancelled_caught:
                raise h11.RemoteProtocolError("the request took too long", error_status_hint=408)
        return None

    async def _read_request(self) -> tuple[str, str, bytes] | None:
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        method, target = event.method.decode("ascii"), event.target.decode("ascii")
        for name, value in event.headers:
            if name == b"content-length" and int(value) > self._limits.body_bytes:
                raise h11.RemoteProtocolError("the body is too large", error_status_hint=413)
            if name == b"content-type" and value.split(b";")[0].strip() == b"application/cbor":
                raise h11.RemoteProtocolError("bodies are JSON", error_status_hint=415)
        if self._http.they_are_waiting_for_100_continue:
            await self.send(h11.InformationalResponse(status_code=100, headers=[]))
        body = bytearray()
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._limits.body_bytes:
                    raise h11.RemoteProtocolError("the body is too large", error_status_hint=413)
            elif isinstance(event, h11.EndOfMessage):
                return method, target, bytes(body)
            else:
                return None

    async def _next_event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._feed(await self._receive())
        return event

    async def _receive(self) -> bytes:
        if self._early:
            data, self._early = self._early, b""
            return data
        data = bytes(await self._stream.receive_some(65_536))
        self.seat.last_heard = trio.current_time()
        return data

    def _feed(self, data: bytes) -> None:
        """Hand bytes to h11, which tolerates a bare LF in a request's head; we do not (RFC 9112, 2.2)."""
        if self._http.their_state is h11.IDLE:
            self._head += data
            head, _, _ = self._head.partition(b"\r\n\r\n")
            if head.count(b"\n") != head.count(b"\r\n"):
                raise h11.RemoteProtocolError("a line of the head ends without CR")
            if len(head) > self._limits.header_bytes:  # h11 bounds only a head that comes in pieces
                raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
        self._http.receive_data(data)

    async def wait_closed(self) -> None:
        """Return when the client closes. What it sends before its turn is kept, up to a bound."""
        while len(self._early) <= self._limits.header_bytes:
            data = await self._stream.receive_some(65_536)
            if not data:
                return
            self._early += data
        await trio.sleep_forever()

    async def send(self, *events: Any) -> None:
        """Write events as one. Raises trio.BrokenResourceError."""
        data = b"".join(self._http.send(event) or b"" for event in events)
        if data:
            await self._stream.send_all(data)

    async def send_in_time(self, *events: Any) -> None:
        """As `send`; raises trio.TooSlowError when the client does not read."""
        with trio.fail_after(self._limits.send_s):
            await self.send(*events)

    def next_cycle(self) -> bool:
        """Get ready for another request; False when the connection ends here."""
        if self.broken or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._early = self._http.trailing_data[0] + self._early
        self._http = self._new_machine()
        self._head = b""
        return True

    def _new_machine(self) -> h11.Connection:
        return h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.header_bytes)

    @property
    def may_reply(self) -> bool:
        """Whether no reply to the present request has begun."""
        return self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE)


async def reply(
    connection: HttpConnection, status: int, document: Any, headers: Sequence[tuple[str, str]] = ()
) -> None:
    """Reply with a JSON document. Raises trio.TooSlowError, trio.BrokenResourceError."""
    content = encode_document(document)
    await connection.send_in_time(
        h11.Response(
            status_code=status,
            headers=[
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(content))),
                *headers,
            ],
        ),
        h11.Data(data=content),
        h11.EndOfMessage(),
    )


async def reply_error(connection: HttpConnection, error: FeddError, request_id: str) -> None:
    """Reply with an error, or mark the connection broken when a reply has begun."""
    if not connection.may_reply:
        connection.broken = True
        return
    status, headers = error_kind(error.code).status, []
    if isinstance(error, MethodNotAllowed):
        status, headers = 405, [("Allow", ", ".join(error.allowed))]
    await reply(connection, status, error_document(error, request_id), headers)


async def reply_malformed(
    connection: HttpConnection, error: h11.RemoteProtocolError, request_id: str
) -> None:
    """Reply to what is no acceptable HTTP; the connection closes afterwards."""
    if connection.may_reply:
        # h11 puts what it read into some of its messages, as a bytearray; that helps no reader
        what = str(error).partition(": bytearray(")[0]
        detail = InvalidParameter(
            f"not an acceptable HTTP request: {what}",
            hint="this socket speaks HTTP/1.1: use fedctl, or curl --unix-socket",
        )
        document = error_document(detail, request_id)
        await reply(connection, error.error_status_hint, document, [("Connection", "close")])


def lines(*items: Mapping[str, Any]) -> Any:
    """Items of a stream, each a line, as one h11 event."""
    return h11.Data(data=b"".join(map(encode_document, items)))


def encode_document(document: Any) -> bytes:
    """JSON and a line end. Numbers that JSON lacks (infinities, NaN) become null."""
    try:
        text = json.dumps(document, allow_nan=False)
    except ValueError:
        text = json.dumps(_without_nan(document), allow_nan=False)
    return text.encode() + b"\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
