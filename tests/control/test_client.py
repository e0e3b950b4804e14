import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedd.api import errors
from fedd.api.errors import Denied, FeddError, InvalidParameter, NotFound, TimedOut, Unhealthy
from fedd.control.client import Client, NoDaemon, path_of
from fedd.control.schema import ERRORS


def reply(document: object, status: int = 200) -> bytes:
    body = json.dumps(document).encode()
    return f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(*chunks: bytes, end: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + (b"0\r\n\r\n" if end else b"")


@contextmanager
def daemon(tmp_path: Path, *replies: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Something that answers each request on one connection with the next of `replies`, then closes."""
    path = str(tmp_path / "fedd.sock")
    requests: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for answer in replies:
                    requests.append(connection.recv(65_536))
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path, requests
        finally:
            thread.join(5)


def test_requests_share_a_connection(tmp_path: Path) -> None:
    with daemon(tmp_path, reply({"a": 1}), reply([2])) as (path, requests), Client(path) as client:
        assert client.request("GET", "/v1/status") == {"a": 1}
        assert client.request("POST", path_of("runs", "3f/9", "stop"), {"x": 1}, {"q": "a b"}) == [2]
    assert requests[0].startswith(b"GET /v1/status HTTP/1.1\r\n")
    assert requests[1].startswith(b"POST /v1/runs/3f%2F9/stop?q=a%20b HTTP/1.1\r\n")
    assert requests[1].endswith(b'\r\n\r\n{"x": 1}')


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_an_error_comes_back_in_its_class(tmp_path: Path, code: str) -> None:
    document = {"code": code, "detail": "no", "hint": "try", "field": "f", "title": "T", "request_id": "r"}
    with daemon(tmp_path, reply(document, ERRORS[code].status)) as (path, _), Client(path) as client:
        with pytest.raises(FeddError) as caught:
            client.request("GET", "/v1/status")
        assert caught.value.code == code
        assert (caught.value.detail, caught.value.hint, caught.value.field) == ("no", "try", "f")
        assert type(caught.value) in vars(errors).values()


@pytest.mark.parametrize("document", [{"code": "from the future", "detail": "no"}, ["no"]])
def test_an_error_that_this_client_does_not_know(tmp_path: Path, document: object) -> None:
    with daemon(tmp_path, reply(document, 418)) as (path, _), Client(path) as client:
        with pytest.raises(FeddError) as caught:
            client.request("GET", "/v1/status")
        assert type(caught.value) is FeddError


def test_a_stream_yields_its_items_whatever_the_chunks(tmp_path: Path) -> None:
    answer = chunked(b'{"kind": "progress", "ro', b'und": 1}\n{"kind"', b': "result"}\n{"kind": "end"}\n')
    with daemon(tmp_path, answer) as (path, _), Client(path) as client:
        items = list(client.stream("GET", "/v1/events", query={"since": "0"}))
    assert items == [{"kind": "progress", "round": 1}, {"kind": "result"}]


def test_a_stream_that_is_refused_or_fails_midway(tmp_path: Path) -> None:
    refusal = reply({"code": "not_found", "detail": "no run"}, 404)
    with (
        daemon(tmp_path, refusal) as (path, _),
        Client(path) as client,
        pytest.raises(NotFound, match="no run"),
    ):
        list(client.stream("GET", "/v1/runs/x/watch"))
    (tmp_path / "fedd.sock").unlink()
    answer = chunked(b'{"kind": "a"}\n', b'{"kind": "error", "code": "denied", "detail": "gone"}\n')
    with daemon(tmp_path, answer) as (path, _), Client(path) as client:
        items = client.stream("GET", "/v1/events")
        assert next(items) == {"kind": "a"}
        with pytest.raises(Denied, match="gone"):
            next(items)


@pytest.mark.parametrize("end", [True, False])
def test_a_stream_that_breaks_off_is_no_end(tmp_path: Path, end: bool) -> None:
    with daemon(tmp_path, chunked(b'{"kind": "a"}\n', end=end)) as (path, _), Client(path) as client:
        items = client.stream("GET", "/v1/events")
        assert next(items) == {"kind": "a"}
        with pytest.raises(Unhealthy, match="broke"):
            next(items)


def test_after_a_stream_the_client_connects_anew(tmp_path: Path) -> None:
    with daemon(tmp_path, chunked(b'{"kind": "a"}\n')) as (path, _), Client(path) as client:
        next(client.stream("GET", "/v1/events"))
    (tmp_path / "fedd.sock").unlink()
    with daemon(tmp_path, reply(1)) as (path, _):
        assert client.request("GET", "/v1/status") == 1


def test_what_http_cannot_carry_is_wrong_usage(tmp_path: Path) -> None:
    with Client(str(tmp_path / "fedd.sock")) as client:
        for value in (float("inf"), float("nan"), [1e999]):
            with pytest.raises(InvalidParameter, match="not finite"):
                client.request("PUT", "/v1/inputs/x", {"value": value})
    for segment in ("", ".", ".."):
        with pytest.raises(InvalidParameter, match="is no name"):
            path_of("runs", segment)


def test_nobody_at_the_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "fedd.sock")
    with pytest.raises(NoDaemon, match=path):
        Client(path).request("GET", "/v1/status")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(NoDaemon, match=path):
        Client(path, patience_s=0.01).request("GET", "/v1/status")


def test_a_starting_daemon_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []

    def start_meanwhile(seconds: float) -> None:
        if not started:
            started.append(context.__enter__())

    monkeypatch.setattr("fedd.control.client.time.sleep", start_meanwhile)
    context = daemon(tmp_path, reply("there"))
    with Client(str(tmp_path / "fedd.sock"), patience_s=60) as client:
        assert client.request("GET", "/v1/status") == "there"
    context.__exit__(None, None, None)


def test_a_socket_that_is_not_for_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(str(tmp_path / "fedd.sock"))
    monkeypatch.setattr(client, "_connect", lambda: PermissionError(13, "Permission denied"))
    with pytest.raises(Denied, match="you may not use the socket"):
        client.request("GET", "/v1/status")
    monkeypatch.setattr(client, "_connect", lambda: BlockingIOError(11, "busy"))
    monkeypatch.setattr("fedd.control.client.BUSY_PATIENCE_S", 0.01)
    with pytest.raises(TimedOut, match="does not take connections"):
        client.request("GET", "/v1/status")


def test_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(tmp_path / "fedd.sock"))
        frozen.listen()
        with pytest.raises(TimedOut, match=r"within 0\.05 s"):
            Client(str(tmp_path / "fedd.sock"), timeout_s=0.05).request("GET", "/v1/status")


@pytest.mark.parametrize(
    ("answer", "said", "kind"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak", FeddError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nfoo", "does not reply in JSON", FeddError),
        (b"", "broke", Unhealthy),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{", "broke", Unhealthy),
    ],
)
def test_what_is_no_daemon_of_ours(tmp_path: Path, answer: bytes, said: str, kind: type[FeddError]) -> None:
    with daemon(tmp_path, answer) as (path, _), Client(path) as client, pytest.raises(kind, match=said):
        client.request("GET", "/v1/status")


def test_a_reply_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedd.control.client.MAX_REPLY_BYTES", 10)
    with (
        daemon(tmp_path, reply("x" * 20)) as (path, _),
        Client(path) as client,
        pytest.raises(FeddError, match="more than 10 bytes"),
    ):
        client.request("GET", "/v1/status")


@pytest.mark.parametrize("answer", [reply({}), reply({}).replace(b"{}", b"{}HTTP/1.1"), reply({}, 400)])
def test_the_connection_is_kept_only_when_it_is_clean(tmp_path: Path, answer: bytes) -> None:
    with daemon(tmp_path, answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as (path, _):
        client = Client(path)
        with contextlib.suppress(FeddError):
            client.request("GET", "/v1/status")
    (tmp_path / "fedd.sock").unlink()
    with daemon(tmp_path, reply(1)) as (path, _), client:
        assert client.request("GET", "/v1/status") == 1


@pytest.mark.parametrize("status", [200, 404])
def test_rubbish_in_the_midst_of_a_stream(tmp_path: Path, status: int) -> None:
    answer = chunked(b'{"kind": "a"}\n', end=False).replace(b"200", b"%d" % status) + b"rubbish\r\n"
    with (
        daemon(tmp_path, answer) as (path, _),
        Client(path) as client,
        pytest.raises(FeddError, match="does not speak fedd's protocol: a chunk begins with b'rubbish'"),
    ):
        list(client.stream("GET", "/v1/events"))
