"""The control API's server: HTTP/1.1 (h11) on trio, over Unix sockets.

A connection costs a seat. Seats are bounded, and when all are taken the most silent connection gives way, so
that idle clients never lock the operator out. A client that goes away cancels the work it asked for.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import h11
import trio

from fedd.api.errors import FeddError, InvalidParameter, Unhealthy
from fedd.control.listener import ControlSocket, caller_uid
from fedd.control.requests import MethodNotAllowed, check_body, check_query, decode_segment, match
from fedd.control.schema import Route, error_document, error_kind
from fedd.control.seats import BUSY, IDLE, STREAMING, Seat, Seats

if TYPE_CHECKING:
    from trio_typing import TaskStatus

logger = logging.getLogger("fedd.control")


class ServerLimits(NamedTuple):
    """Bounds of the server, each against one client that hogs or dawdles."""

    connections: int = 64
    reserved: int = 16  # seats that only the owner (the daemon's user and root) may take
    header_bytes: int = 16_384
    body_bytes: int = 1024 * 1024  # the largest request is `set` with nested lists
    idle_s: float = 60.0  # between requests; scripts that ask once a minute keep their connection
    request_s: float = 10.0  # from a request's first byte to its last
    send_s: float = 30.0  # for a reply; streams may stall, because they hold nothing but a position


class Request(NamedTuple):
    """A checked request: `path` holds the path's variables, `body` and `query` every field of the route."""

    route: Route
    path: Mapping[str, str]
    body: Mapping[str, Any]
    query: Mapping[str, Any]
    caller_uid: int
    request_id: str


Operation = Callable[[Request], Awaitable[Any]]
"""Returns the reply's document; for a route that streams, an asynchronous iterator of documents."""


class ControlServer:
    """Serves `operations`, keyed by `Route.operation`, to whoever connects."""

    def __init__(self, operations: Mapping[str, Operation], limits: ServerLimits | None = None) -> None:
        self._operations = dict(operations)
        self._limits = limits or ServerLimits()
        self._seats = Seats(self._limits.connections, self._limits.reserved)
        self._owners = frozenset({0, os.geteuid()})

    async def serve(
        self,
        sockets: Sequence[ControlSocket],
        *,
        task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept connections on `sockets` until cancelled. Started once they are accepted."""
        listeners = [sock.listener() for sock in sockets]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._accept, listeners)
            task_status.started()

    async def _accept(self, stream: trio.SocketStream) -> None:
        try:
            uid = caller_uid(stream)
        except OSError:
            await trio.aclose_forcefully(stream)
            return
        await self.serve_stream(stream, uid)

    async def serve_stream(self, stream: trio.abc.Stream, uid: int) -> None:
        """Serve one connection of user `uid` to its end. Raises nothing that its client caused."""
        seat = self._seats.take(uid in self._owners, trio.current_time())
        async with AsyncExitStack() as stack:
            stack.push_async_callback(trio.aclose_forcefully, stream)
            if seat is None:
                error = Unhealthy("all connections are taken", hint="close some, or wait")
                connection = _Connection(stream, uid, Seat(False, 0.0), self._limits)
                with trio.move_on_after(1):
                    await _reply_error(connection, error, _new_id())
                return
            stack.callback(self._seats.give_back, seat)
            with seat.scope:
                await self._converse(_Connection(stream, uid, seat, self._limits))

    async def _converse(self, connection: _Connection) -> None:
        try:
            while await self._serve_request(connection):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return  # the client went away or stopped reading

    async def _serve_request(self, connection: _Connection) -> bool:
        """Serve the next request; False when the connection is to be closed."""
        request_id = _new_id()
        try:
            received = await connection.next_request()
            if received is None:
                return False
            request = _check_request(*received, connection.uid, request_id)
        except h11.RemoteProtocolError as error:
            await _reply_malformed(connection, error, request_id)
            return False
        except FeddError as error:
            await _reply_error(connection, error, request_id)
            return connection.next_cycle()
        if request.route.changes:
            logger.info("uid %d: %s %s [%s]", connection.uid, request.route.method, received[1], request_id)
        connection.seat.state = STREAMING if request.route.streams else BUSY
        await self._work(connection, request)
        connection.seat.state = IDLE
        return connection.next_cycle()

    async def _work(self, connection: _Connection, request: Request) -> None:
        """Do what is asked, and give up as soon as the client is gone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_closed, connection, nursery.cancel_scope)
            try:
                await self._answer(connection, request)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                connection.broken = True
            nursery.cancel_scope.cancel()

    async def _answer(self, connection: _Connection, request: Request) -> None:
        """Do what is asked and reply. Raises trio's errors when the client cannot be reached."""
        try:
            result = await self._operations[request.route.operation](request)
        except Exception as raised:
            await _reply_error(connection, _deliberate(raised, request), request.request_id)
            return
        if request.route.streams:
            await _reply_stream(connection, result, request)
        else:
            await _reply(connection, 200, result)


class _Connection:
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


def _check_request(method: str, target: str, body: bytes, uid: int, request_id: str) -> Request:
    path, _, query_text = target.partition("?")
    route, variables = match(method, path)
    query: dict[str, str] = {}
    for part in filter(None, query_text.split("&")):
        name, _, value = part.partition("=")
        name = decode_segment(name)
        if name in query:
            raise InvalidParameter(f"{name} is given twice", field=name)
        query[name] = decode_segment(value)
    document = _parse_body(body) if body else {}
    return Request(route, variables, check_body(route, document), check_query(route, query), uid, request_id)


def _parse_body(body: bytes) -> Any:
    try:
        return json.loads(body, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(
            f"the request's body is no JSON: {error}", hint="send a JSON object"
        ) from error


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name!r} is given twice")
        found[name] = value
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


async def _cancel_when_closed(connection: _Connection, work: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await connection.wait_closed()
    connection.broken = True
    work.cancel()


async def _reply(
    connection: _Connection, status: int, document: Any, headers: Sequence[tuple[str, str]] = ()
) -> None:
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


async def _reply_error(connection: _Connection, error: FeddError, request_id: str) -> None:
    if not connection.may_reply:
        connection.broken = True
        return
    status, headers = error_kind(error.code).status, []
    if isinstance(error, MethodNotAllowed):
        status, headers = 405, [("Allow", ", ".join(error.allowed))]
    await _reply(connection, status, error_document(error, request_id), headers)


async def _reply_malformed(connection: _Connection, error: h11.RemoteProtocolError, request_id: str) -> None:
    if connection.may_reply:
        detail = InvalidParameter(f"not an acceptable HTTP request: {error}")
        document = error_document(detail, request_id)
        await _reply(connection, error.error_status_hint, document, [("Connection", "close")])


async def _reply_stream(
    connection: _Connection, items: AsyncIterator[Mapping[str, Any]], request: Request
) -> None:
    head = h11.Response(
        status_code=200, headers=[("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")]
    )
    async with AsyncExitStack() as stack:
        close = getattr(items, "aclose", None)
        if close is not None:  # a generator holds a subscription until it is closed
            stack.push_async_callback(close)
        await connection.send_in_time(head)
        while True:
            try:
                item = await anext(items)
            except StopAsyncIteration:
                break
            except Exception as raised:
                error = _deliberate(raised, request)
                item = {"kind": "error", **error_document(error, request.request_id)}
                await connection.send(_line(item))
                break
            await connection.send(_line(item))
            connection.seat.last_heard = trio.current_time()
        await connection.send_in_time(_line({"kind": "end"}), h11.EndOfMessage())


def _line(item: Mapping[str, Any]) -> Any:
    return h11.Data(data=encode_document(item))


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


def _deliberate(raised: BaseException, request: Request) -> FeddError:
    """The one deliberate error inside `raised`; anything else is our mistake, and goes into the log."""
    error = raised
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, FeddError):
        return error
    logger.error("%s failed [%s]", request.route.operation, request.request_id, exc_info=raised)
    return FeddError(
        f"the daemon failed at {request.route.operation}: {type(error).__name__}",
        hint=f"its log says more at request {request.request_id}",
    )


def _new_id() -> str:
    return os.urandom(4).hex()
