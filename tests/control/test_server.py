import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import h11
import pytest
import trio
import trio.testing

from fedd.api.errors import NotFound, Refused
from fedd.control.http import ServerLimits, encode_document
from fedd.control.schema import ROUTES
from fedd.control.server import MAX_LINES_AT_ONCE, ControlServer, Request
from fedd.net.events import EventLog

ME, STRANGER = 0, 4711


class Api:
    """A server with operations of the test's own, and clients in memory."""

    def __init__(
        self, limits: ServerLimits | None = None, **operations: Callable[[Request], Awaitable[Any]]
    ) -> None:
        self.requests: list[Request] = []
        answers: dict[str, Callable[[Request], Awaitable[Any]]] = {r.operation: self.echo for r in ROUTES}
        self.server = ControlServer({**answers, **operations}, limits)

    async def echo(self, request: Request) -> Any:
        self.requests.append(request)
        return {"operation": request.route.operation}

    def connect(self, nursery: trio.Nursery, uid: int = ME) -> trio.abc.Stream:
        client, server = trio.testing.memory_stream_pair()
        nursery.start_soon(self.server.serve_stream, server, uid)
        return client


def head(method: str, path: str, body: bytes = b"", *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: fedd", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def answer(stream: trio.abc.Stream, sent: bytes = b"") -> tuple[int, Any, dict[str, str]]:
    """Status, document and headers of the next reply."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "fedd")]))
    http.send(h11.EndOfMessage())
    if sent:
        await stream.send_all(sent)
    status, headers, body = 0, {}, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(65_536))
        elif isinstance(event, h11.Response):
            status, headers = event.status_code, {k.decode(): v.decode() for k, v in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            if headers["content-type"] == "application/x-ndjson":
                return status, [json.loads(line) for line in body.splitlines()], headers
            return status, json.loads(body), headers


async def test_requests_follow_each_other_on_one_connection(nursery: trio.Nursery) -> None:
    api = Api()
    client = api.connect(nursery)
    for _ in range(3):
        status, document, headers = await answer(client, head("GET", "/v1/status"))
        assert (status, document) == (200, {"operation": "status"})
        assert headers["content-type"] == "application/json"
    status, document, _ = await answer(client, head("PUT", "/v1/inputs/temp%20a", b'{"value": [1.5]}'))
    assert document == {"operation": "set"}
    assert api.requests[-1].path == {"name": "temp a"}
    assert api.requests[-1].body == {"value": [1.5]}
    assert api.requests[-1].caller_uid == ME


async def test_a_request_sent_before_its_turn_is_not_lost(nursery: trio.Nursery) -> None:
    client = Api().connect(nursery)
    await client.send_all(head("GET", "/v1/status") + head("GET", "/v1/members") + head("GET", "/v1/ru")[:9])
    assert (await answer(client))[1] == {"operation": "status"}
    assert (await answer(client))[1] == {"operation": "members"}
    assert (await answer(client, head("GET", "/v1/runs")[9:]))[1] == {"operation": "runs"}


async def test_a_request_sent_while_the_last_is_worked_on_is_not_lost(nursery: trio.Nursery) -> None:
    done = trio.Event()

    async def wait(request: Request) -> Any:
        await done.wait()
        return {}

    client = Api(status=wait).connect(nursery)
    await client.send_all(head("GET", "/v1/status"))
    await trio.testing.wait_all_tasks_blocked()
    await client.send_all(head("GET", "/v1/members"))
    await trio.testing.wait_all_tasks_blocked()
    done.set()
    assert (await answer(client))[1] == {}
    with trio.fail_after(5):
        assert (await answer(client))[1] == {"operation": "members"}


async def test_one_byte_at_a_time_is_a_request_too(nursery: trio.Nursery) -> None:
    client = Api().connect(nursery)
    for byte in head("POST", "/v1/federation/init", b'{"federation": "plant7"}'):
        await client.send_all(bytes([byte]))
    assert (await answer(client))[1] == {"operation": "init"}


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"rubbish\r\n\r\n", 400, "not an acceptable HTTP request"),
        (bytes(range(256)) + b"\r\n\r\n", 400, "not an acceptable HTTP request"),
        (b"GET /v1/status HTTP/1.1\nHost: fedd\n\n", 400, "without CR"),
        (b"GET /v1/status HTTP/1.1\r\nHost: fedd\nX: y\r\n\r\n", 400, "without CR"),
        (
            b"GET /v1/status HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
            "HTTP",
        ),
        (b"GET /v1/status HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431, "HTTP"),
        (b"GET /v1/status HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n", 431, "HTTP"),
        (b"GET /v1/status HTTP/1.1\r\n\r\n", 400, "Host"),
        (head("POST", "/v1/runs", b"x", "Content-Type: application/cbor"), 415, "JSON"),
        (b"POST /v1/runs HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413, "too large"),
        (
            b"POST /v1/runs HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"10000\r\n"
            + b"x" * 65_536
            + b"\r\n"
            + b"f0001\r\n"
            + b"x" * 983_041
            + b"\r\n",
            413,
            "too large",
        ),
    ],
)
async def test_what_is_no_http_gets_a_4xx_and_the_door(
    nursery: trio.Nursery, sent: bytes, status: int, said: str
) -> None:
    api = Api()
    client = api.connect(nursery)
    nursery.start_soon(client.send_all, sent)
    got, document, headers = await answer(client)
    assert got == status
    assert said in document["detail"]
    assert "bytearray" not in document["detail"]
    assert "curl" in document["hint"]
    assert document["code"] == "invalid"
    assert headers["connection"] == "close"
    assert await client.receive_some(1) == b""
    assert (await answer(api.connect(nursery), head("GET", "/v1/status")))[0] == 200


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (head("GET", "/v1/nothing"), 404, "no route"),
        (head("GET", "/v1/../status"), 400, "dotted"),
        (head("GET", "/v1/runs/%00"), 400, "unprintable"),
        (head("DELETE", "/v1/status"), 405, "not possible"),
        (head("POST", "/v1/runs", b"{"), 400, "no JSON"),
        (head("POST", "/v1/runs", b"\xff"), 400, "no JSON"),
        (head("POST", "/v1/runs", b"[" * 100_000), 400, "no JSON"),
        (head("POST", "/v1/runs", b"1" * 5000), 400, "no JSON"),
        (head("POST", "/v1/runs", b'{"algorithm": "a", "algorithm": "b"}'), 400, "twice"),
        (head("POST", "/v1/runs", b'{"algorithm": "a", "pace_s": NaN}'), 400, "NaN"),
        (head("PUT", "/v1/inputs/x", b'{"value": [-1e999]}'), 400, "-1e999 is too large"),
        (head("POST", "/v1/runs", b"[]"), 400, "no JSON object"),
        (head("POST", "/v1/runs", b'{"algoritm": "a"}'), 400, "algoritm"),
        (head("GET", "/v1/events?since=1&since=2"), 400, "twice"),
        (head("GET", "/v1/events?until=1"), 400, "until"),
        (head("GET", "/v1/status?verbose"), 400, "verbose"),
    ],
)
async def test_a_bad_request_is_answered_and_the_connection_goes_on(
    nursery: trio.Nursery, sent: bytes, status: int, said: str
) -> None:
    client = Api().connect(nursery)
    got, document, headers = await answer(client, sent)
    assert got == status
    assert said in document["detail"]
    assert set(document) == {"code", "title", "detail", "hint", "field", "request_id"}
    if status == 405:
        assert headers["allow"] == "GET"
    assert (await answer(client, head("GET", "/v1/status")))[0] == 200


async def test_deliberate_errors_travel_and_mistakes_of_ours_stay(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    async def missing(request: Request) -> Any:
        raise NotFound("no run 'x'", hint="see `fedctl runs`", field="run")

    async def nested(request: Request) -> Any:
        async with trio.open_nursery():
            raise Refused("nobody wants to")

    async def broken(request: Request) -> Any:
        raise trio.BrokenResourceError("a link of the daemon's own")

    client = Api(show=missing, run=nested, ping=broken).connect(nursery)
    status, document, _ = await answer(client, head("GET", "/v1/runs/x"))
    assert status == 404
    assert (document["code"], document["detail"], document["hint"]) == (
        "not_found",
        "no run 'x'",
        "see `fedctl runs`",
    )
    status, document, _ = await answer(client, head("POST", "/v1/runs", b'{"algorithm": "a"}'))
    assert (status, document["detail"]) == (422, "nobody wants to")
    status, document, _ = await answer(client, head("POST", "/v1/ping", b'{"peer": "b"}'))
    assert (status, document["code"]) == (500, "failed")
    assert "BrokenResourceError" in document["detail"]
    assert "a link of the daemon's own" not in json.dumps(document)
    assert document["request_id"] in caplog.text


async def test_a_stream_ends_with_end(nursery: trio.Nursery) -> None:
    async def watch(request: Request) -> AsyncIterator[dict[str, Any]]:
        async def items() -> AsyncIterator[dict[str, Any]]:
            yield {"kind": "progress", "residual": float("inf")}
            yield {"kind": "result"}

        return items()

    client = Api(watch=watch).connect(nursery)
    status, items, headers = await answer(client, head("GET", "/v1/runs/x/watch"))
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    assert items == [{"kind": "progress", "residual": None}, {"kind": "result"}, {"kind": "end"}]
    assert (await answer(client, head("GET", "/v1/status")))[0] == 200


async def test_what_happens_in_one_moment_is_sent_as_one(nursery: trio.Nursery) -> None:
    log = EventLog(wall_clock=lambda: 0.0)
    for number in range(MAX_LINES_AT_ONCE + 2):
        log.publish("node", what=str(number))

    async def events(request: Request) -> AsyncIterator[dict[str, Any]]:
        return log.subscribe(0)

    client = Api(events=events).connect(nursery)
    http = h11.Connection(h11.CLIENT)
    await client.send_all(head("GET", "/v1/events"))
    http.send(h11.Request(method="GET", target="/v1/events", headers=[("Host", "fedd")]))
    pieces: list[list[str]] = []
    while sum(map(len, pieces)) < MAX_LINES_AT_ONCE + 2:
        http.receive_data(await client.receive_some(65_536))
        while isinstance(event := http.next_event(), h11.Response | h11.Data):
            if isinstance(event, h11.Data):
                pieces.append([json.loads(text)["what"] for text in bytes(event.data).splitlines()])
    assert [len(piece) for piece in pieces] == [MAX_LINES_AT_ONCE, 2]
    assert [what for piece in pieces for what in piece] == [str(n) for n in range(MAX_LINES_AT_ONCE + 2)]
    log.publish("node", what="later")
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await client.receive_some(65_536))
    assert json.loads(bytes(event.data))["what"] == "later"


async def test_a_stream_that_fails_says_so(nursery: trio.Nursery) -> None:
    async def watch(request: Request) -> AsyncIterator[dict[str, Any]]:
        async def items() -> AsyncIterator[dict[str, Any]]:
            yield {"kind": "progress"}
            raise NotFound("the run is gone")

        return items()

    _, items, _ = await answer(Api(watch=watch).connect(nursery), head("GET", "/v1/runs/x/watch"))
    assert [item["kind"] for item in items] == ["progress", "error", "end"]
    assert items[1]["code"] == "not_found"


@pytest.mark.parametrize("streams", [False, True])
async def test_a_client_that_goes_away_cancels_its_work(nursery: trio.Nursery, streams: bool) -> None:
    started, ended = trio.Event(), trio.Event()

    async def forever() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async def work(request: Request) -> Any:
        async def items() -> AsyncIterator[dict[str, Any]]:
            yield {}
            await forever()

        return items() if streams else await forever()

    client = Api(run=work, watch=work).connect(nursery)
    request = head("GET", "/v1/runs/x/watch") if streams else head("POST", "/v1/runs", b'{"algorithm": "a"}')
    await client.send_all(request)
    await started.wait()
    await client.aclose()
    with trio.fail_after(5):
        await ended.wait()


async def test_the_silent_and_the_slow_lose_their_connection(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    api = Api()
    silent = api.connect(nursery)
    start = trio.current_time()
    assert await silent.receive_some(1) == b""
    assert trio.current_time() - start == ServerLimits().idle_s
    slow = api.connect(nursery)
    start = trio.current_time()
    status, document, _ = await answer(slow, b"GET /v1/sta")
    assert status == 408
    assert "too long" in document["detail"]
    assert trio.current_time() - start == ServerLimits().request_s


async def test_a_client_that_does_not_read_its_reply_loses_its_connection(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    api = Api()
    client, server = trio.testing.lockstep_stream_pair()
    start = trio.current_time()
    nursery.start_soon(client.send_all, head("GET", "/v1/status"))
    await api.server.serve_stream(server, ME)
    assert trio.current_time() - start == ServerLimits().send_s


async def test_idle_clients_do_not_lock_anybody_out(nursery: trio.Nursery) -> None:
    api = Api(ServerLimits(connections=8, reserved=2))
    idle = []
    for index in range(50):  # one after the other: trio starts tasks in any order
        idle.append(api.connect(nursery, STRANGER if index % 2 else ME))
        await trio.testing.wait_all_tasks_blocked()
    for uid in (ME, STRANGER):
        assert (await answer(api.connect(nursery, uid), head("GET", "/v1/status")))[0] == 200
    for client in idle:
        await client.aclose()


async def test_when_all_are_busy_the_next_is_told_so(nursery: trio.Nursery) -> None:
    done = trio.Event()

    async def wait(request: Request) -> Any:
        await done.wait()
        return {}

    api = Api(ServerLimits(connections=3, reserved=1), status=wait)
    busy = [api.connect(nursery, STRANGER) for _ in range(2)]
    for client in busy:
        await client.send_all(head("GET", "/v1/status"))
    await trio.testing.wait_all_tasks_blocked()
    refused = api.connect(nursery, STRANGER)
    status, document, _ = await answer(refused)
    assert (status, document["code"]) == (503, "unhealthy")
    assert (await answer(api.connect(nursery, ME), head("GET", "/v1/members")))[0] == 200
    done.set()
    for client in busy:
        assert (await answer(client))[0] == 200


async def test_continue_is_sent_to_those_who_wait_for_it(nursery: trio.Nursery) -> None:
    client = Api().connect(nursery)
    body = b'{"federation": "plant7"}'
    request = head("POST", "/v1/federation/init", body, "Expect: 100-continue")
    await client.send_all(request[: -len(body)])
    assert (await client.receive_some(1000)).startswith(b"HTTP/1.1 100")
    assert (await answer(client, body))[1] == {"operation": "init"}


async def test_changes_are_logged_with_the_callers_user_id(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fedd.control")
    client = Api().connect(nursery, STRANGER)
    await answer(client, head("GET", "/v1/status"))
    await answer(client, head("POST", "/v1/federation/join", b'{"token": "fedd1-secret"}'))
    assert [record.getMessage()[:40] for record in caplog.records] == [
        "uid 4711: POST /v1/federation/join [" + caplog.records[0].getMessage()[36:40]
    ]
    assert "secret" not in caplog.text


def test_numbers_that_json_lacks_become_null() -> None:
    document = {"a": float("nan"), "b": [1.5, float("-inf"), (2,)], "c": "x\x1b"}
    assert json.loads(encode_document(document)) == {"a": None, "b": [1.5, None, [2]], "c": "x\x1b"}
    assert b"\x1b" not in encode_document(document)
