"""The client's side of HTTP: a reply is read whatever the pieces, and all else is refused with a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import InvalidParameter
from fedd.control.plain_http import (
    MAX_HEAD_BYTES,
    MAX_INTERIM_REPLIES,
    NotHttp,
    ReplyReader,
    encode_request,
)

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n[1, 2]\n"
CHUNKED = (
    b"HTTP/1.1 200 \r\nTRANSFER-Encoding:Chunked\r\n\r\n"
    b'4\r\n{"a"\r\n00B\r\n: 1}\n{"b": \r\n3\r\n2}\n\r\n0\r\n\r\n'
)
REFUSED = b"HTTP/1.1 404 Not Found\r\nConnection: keep-alive, Close\r\nContent-Length:\t2\r\n\r\n{}"
INTERIM = b"HTTP/1.1 100 Continue\r\nDate: now\r\n\r\n"


class Ended(Exception):
    """The connection ended."""


def receiving(pieces: Iterable[bytes]) -> Callable[[], bytes]:
    waiting = iter(pieces)

    def receive() -> bytes:
        for piece in waiting:
            return piece
        raise Ended

    return receive


def read(*pieces: bytes, method: str = "GET") -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection is good for another request."""
    reader = ReplyReader(receiving(pieces))
    status = reader.read_head(method)
    parts = list(reader.read_body())
    assert b"" not in parts
    return status, b"".join(parts), reader.reusable


def with_headers(*lines: bytes, status_line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status_line, *lines, b"", b""])


REPLIES = [
    (PLAIN, (200, b"[1, 2]\n", True)),
    (CHUNKED, (200, b'{"a": 1}\n{"b": 2}\n', True)),
    (REFUSED, (404, b"{}", False)),
    (INTERIM * MAX_INTERIM_REPLIES + PLAIN, (200, b"[1, 2]\n", True)),
    (b"HTTP/1.1 204\r\n\r\n", (204, b"", True)),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", (304, b"", True)),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1", (200, b"1", False)),
    (b"HTTP/1.1 200 OK\r\nX-Odd: caf\xe9\tau lait\r\nx-odd: \r\nContent-Length: 0\r\n\r\n", (200, b"", True)),
]


@pytest.mark.parametrize(("data", "expected"), REPLIES)
def test_a_reply_is_the_same_wherever_it_is_cut(data: bytes, expected: tuple[int, bytes, bool]) -> None:
    assert read(data) == expected
    for cut in range(1, len(data)):
        assert read(data[:cut], data[cut:]) == expected
    assert read(*(data[place : place + 1] for place in range(len(data)))) == expected


@pytest.mark.parametrize("data", [data for data, _ in REPLIES])
def test_a_reply_cut_short_waits_for_the_rest(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(Ended):
            read(*([data[:length]] if length else []))


def test_parts_of_a_body_come_at_once() -> None:
    head, _, body = CHUNKED.partition(b"\r\n\r\n")
    reader = ReplyReader(receiving([head + b"\r\n\r\n", body[:6]]))
    reader.read_head("GET")
    parts = reader.read_body()
    assert next(parts) == b'{"a'
    assert not reader.reusable
    with pytest.raises(Ended):
        next(parts)


def test_one_reply_after_the_other() -> None:
    reader = ReplyReader(receiving([PLAIN, CHUNKED, REFUSED]))
    for status, reusable in ((200, True), (200, True), (404, False)):
        assert reader.read_head("GET") == status
        assert not reader.reusable
        assert list(reader.read_body())
        assert reader.reusable is reusable


def test_what_nobody_asked_for_ends_the_connection() -> None:
    assert read(PLAIN + b"H") == (200, b"[1, 2]\n", False)


def test_a_reply_to_head_has_no_body() -> None:
    assert read(PLAIN.partition(b"[")[0], method="HEAD") == (200, b"", True)


@pytest.mark.parametrize(
    "start",
    [b"S", b"SSH-2.0-OpenSSH\r\n", b"HTTP/2", b"\r\n", b" HTTP/1.1", b"http/1.1 200 OK", b"\x16\x03\x01"],
)
def test_rubbish_is_refused_before_its_end(start: bytes) -> None:
    with pytest.raises(NotHttp, match="begins with"):
        read(start)


@pytest.mark.parametrize(
    "status_line",
    [
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1 20",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/1.10 200 OK",
    ],
)
def test_a_status_line_has_one_form(status_line: bytes) -> None:
    with pytest.raises(NotHttp, match="begins with"):
        read(with_headers(b"Content-Length: 0", status_line=status_line))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([b"Content-Length: 0", b"no header"], "no header"),
        ([b": 1", b"Content-Length: 0"], "no header"),
        ([b"Content-Length : 0"], "no header"),
        ([b"Content-Length: 0", b" folded: 1"], "no header"),
        ([b"Content-Length: 0\nX: 1"], "control character"),
        ([b"Content-Length: 0", b"X: \r1"], "control character"),
        ([b"Content-Length: 0", b"X: \x00"], "control character"),
        ([b"Content-Length: 0", b"X: \x7f"], "control character"),
        ([], "no length"),
        ([b"Content-Length:"], "length is"),
        ([b"Content-Length: -1"], "length is"),
        ([b"Content-Length: 1_0"], "length is"),
        ([b"Content-Length: 0x1"], "length is"),
        ([b"Content-Length: 0", b"content-length: 0"], "length is"),
        ([b"Content-Length: " + b"1" * 20], "length is"),
        ([b"Transfer-Encoding: gzip, chunked"], "unknown encoding"),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], "unknown encoding"),
        ([b"Transfer-Encoding: chunked", b"Content-Length: 0"], "two lengths"),
    ],
)
def test_odd_headers_are_refused(lines: list[bytes], said: str) -> None:
    with pytest.raises(NotHttp, match=said):
        read(with_headers(*lines))


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b" 1\r\n",
        b"1;a=b\r\nx\r\n0\r\n\r\n",
        b"1\r\nxy\r\n",
        b"1\r\nx\n\n",
        b"0\r\nTrailer: 1\r\n\r\n",
        b"0" * 18,
        b"0" * 17 + b"\r\n",
    ],
)
def test_odd_chunks_are_refused(body: bytes) -> None:
    with pytest.raises(NotHttp, match="a chunk"):
        read(with_headers(b"Transfer-Encoding: chunked"), body)


def test_a_head_is_bounded() -> None:
    rest = b"Content-Length: 0\r\n\r\n"
    start = b"HTTP/1.1 200 OK\r\nX: "
    fits = start + b"x" * (MAX_HEAD_BYTES - len(start + rest) - 2) + b"\r\n" + rest
    assert len(fits) == MAX_HEAD_BYTES
    assert read(fits) == (200, b"", True)
    for pieces in ([start + b"x" + fits[len(start) :]], [start, *[b"x" * 1024] * 16]):
        with pytest.raises(NotHttp, match="more than 16384 bytes"):
            read(*pieces)


def test_interim_replies_come_to_an_end() -> None:
    with pytest.raises(NotHttp, match="interim"):
        read(INTERIM * (MAX_INTERIM_REPLIES + 1) + PLAIN)
    with pytest.raises(NotHttp, match="switches"):
        read(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 50), st.booleans())
@settings(max_examples=100, deadline=None)
def test_what_h11_writes_is_read(parts: list[bytes], step: int, chunked: bool) -> None:
    server = h11.Connection(h11.SERVER)
    server.receive_data(encode_request("GET", "/v1/events?since=0", b""))
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (b"GET", b"/v1/events?since=0")
    assert isinstance(server.next_event(), h11.EndOfMessage)
    length = [] if chunked else [("Content-Length", str(len(b"".join(parts))))]
    data = server.send(h11.Response(status_code=200, headers=length)) or b""
    for part in parts:
        data += server.send(h11.Data(data=part)) or b""
    data += server.send(h11.EndOfMessage()) or b""
    pieces = [data[place : place + step] for place in range(0, len(data), step)]
    assert read(*pieces) == (200, b"".join(parts), True)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_bytes_do_worse_than_be_refused(tail: bytes) -> None:
    for data in (tail, b"HTTP/1.1 200 OK\r\n" + tail, with_headers(b"Transfer-Encoding: chunked") + tail):
        try:
            read(*([data] if data else []))
        except (NotHttp, Ended):
            continue


def test_a_request_says_what_it_brings() -> None:
    assert encode_request("PUT", "/v1/inputs/x", b"{}") == (
        b"PUT /v1/inputs/x HTTP/1.1\r\nHost: fedd\r\nAccept: application/json\r\n"
        b"Content-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"
    )
    assert encode_request("GET", "/", b"").endswith(b"Content-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/a b"),
        ("GET", "/a\r\nX: 1"),
        ("GET", "/\xe9"),
        ("GET", "v1"),
        ("GET", ""),
        ("", "/"),
        ("G T", "/"),
    ],
)
def test_a_request_that_http_cannot_carry(method: str, target: str) -> None:
    with pytest.raises(InvalidParameter, match="is no request"):
        encode_request(method, target, b"")
