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
from fedd.control.http import HttpConnection, ServerLimits, lines, reply, reply_error, reply_malformed
from fedd.control.listener import ControlSocket, caller_uid
from fedd.control.requests import check_body, check_query, decode_segment, match
from fedd.control.schema import Route, error_document
from fedd.control.seats import BUSY, IDLE, STREAMING, Seat, Seats
from fedd.net.bounds import Bound

if TYPE_CHECKING:
    from trio_typing import TaskStatus

logger = logging.getLogger("fedd.control")

MAX_LINES_AT_ONCE = 64
"""Of a stream, in one piece, which a reader that stalls keeps in memory: events have some 200 bytes each."""


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
        self._working = 0
        self._idle = trio.lowlevel.ParkingLot()

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

    def bounds(self) -> list[Bound]:
        """The seats of this socket."""
        return self._seats.bounds()

    async def wait_idle(self) -> None:
        """Return when no request is being worked on and no stream is open."""
        while self._working:
            await self._idle.park()

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
                connection = HttpConnection(stream, uid, Seat(False, 0.0), self._limits)
                with trio.move_on_after(1):
                    await reply_error(connection, error, _new_id())
                return
            stack.callback(self._seats.give_back, seat)
            with seat.scope:
                await self._converse(HttpConnection(stream, uid, seat, self._limits))

    async def _converse(self, connection: HttpConnection) -> None:
        try:
            while await self._serve_request(connection):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return  # the client went away or stopped reading

    async def _serve_request(self, connection: HttpConnection) -> bool:
        """Serve the next request; False when the connection is to be closed."""
        request_id = _new_id()
        try:
            received = await connection.next_request()
            if received is None:
                return False
            request = _check_request(*received, connection.uid, request_id)
        except h11.RemoteProtocolError as error:
            await reply_malformed(connection, error, request_id)
            return False
        except FeddError as error:
            await reply_error(connection, error, request_id)
            return connection.next_cycle()
        if request.route.changes:
            logger.info("uid %d: %s %s [%s]", connection.uid, request.route.method, received[1], request_id)
        connection.seat.state = STREAMING if request.route.streams else BUSY
        self._working += 1
        try:
            await self._work(connection, request)
        finally:
            self._working -= 1
            self._idle.unpark_all()
        connection.seat.state = IDLE
        return connection.next_cycle()

    async def _work(self, connection: HttpConnection, request: Request) -> None:
        """Do what is asked, and give up as soon as the client is gone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_closed, connection, nursery.cancel_scope)
            try:
                await self._answer(connection, request)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                connection.broken = True
            nursery.cancel_scope.cancel()

    async def _answer(self, connection: HttpConnection, request: Request) -> None:
        """Do what is asked and reply. Raises trio's errors when the client cannot be reached."""
        try:
            result = await self._operations[request.route.operation](request)
        except Exception as raised:
            await reply_error(connection, _deliberate(raised, request), request.request_id)
            return
        if request.route.streams:
            await _reply_stream(connection, result, request)
        else:
            await reply(connection, 200, result)


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
        return json.loads(
            body, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
        )
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


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large for a number of 64 bits")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


async def _cancel_when_closed(connection: HttpConnection, work: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await connection.wait_closed()
    connection.broken = True
    work.cancel()


async def _reply_stream(
    connection: HttpConnection, items: AsyncIterator[Mapping[str, Any]], request: Request
) -> None:
    head = h11.Response(
        status_code=200, headers=[("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")]
    )
    async with AsyncExitStack() as stack:
        close = getattr(items, "aclose", None)
        if close is not None:  # a generator holds a subscription until it is closed
            stack.push_async_callback(close)
        await connection.send_in_time(head)
        # What happens in one moment (a crowd joins) is sent as one, where the items are known beforehand.
        at_hand: Callable[[int], Iterable[Mapping[str, Any]]] = getattr(items, "take_ready", lambda most: ())
        while True:
            try:
                item = await anext(items)
            except StopAsyncIteration:
                break
            except Exception as raised:
                error = _deliberate(raised, request)
                item = {"kind": "error", **error_document(error, request.request_id)}
                await connection.send(lines(item))
                break
            await connection.send(lines(item, *at_hand(MAX_LINES_AT_ONCE - 1)))
            connection.seat.last_heard = trio.current_time()
        await connection.send_in_time(lines({"kind": "end"}), h11.EndOfMessage())


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
