"""HTTP/1.1 as fedctl reads and writes it (RFC 9112): one request, one reply, from a server of our own.

Strict where h11 is lenient: every line ends with CRLF, and a reply has one length or comes in chunks. No
folded lines, no chunk extensions, no trailers, no body that only the connection's end ends. Sans-IO but for
`receive`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fedd.api.errors import InvalidParameter

# Our heads have some 100 bytes; this is what h11 allows, and the server of us.
MAX_HEAD_BYTES = 16_384

# Our server sends no interim reply (1xx) unasked. RFC 9110, 15.2, has a client read over them, not for ever.
MAX_INTERIM_REPLIES = 8

# 16 hexadecimal digits and CRLF: more than any body has.
_MAX_SIZE_LINE_BYTES = 18

_MAX_LENGTH_DIGITS = 19

_HEX = b"0123456789abcdefABCDEF"
_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TEXT = b"\t" + bytes(byte for byte in range(0x20, 0x100) if byte != 0x7F)


class NotHttp(Exception):
    """What came is no acceptable reply; the connection is of no use any more."""


def encode_request(method: str, target: str, content: bytes) -> bytes:
    """A request with its JSON body, which may be empty. Raises InvalidParameter on what none can hold."""
    if (
        not method.isalpha()
        or not target.startswith("/")
        or any(not "!" <= char <= "~" for char in method + target)
    ):
        raise InvalidParameter(f"{method} {target} is no request", hint="such as GET /v1/status")
    head = f"{method} {target} HTTP/1.1\r\nHost: fedd\r\nAccept: application/json\r\n"
    head += f"Content-Length: {len(content)}\r\n"
    if content:
        head += "Content-Type: application/json\r\n"
    return head.encode("ascii") + b"\r\n" + content


def encode_segment(text: str) -> str:
    """Percent-encode what may not stand in one segment of a path. Raises InvalidParameter on no UTF-8."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:  # bytes of the command line that are no UTF-8
        raise InvalidParameter(f"{text!r} is not UTF-8") from error
    return "".join(
        chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in "-_.~") else f"%{byte:02X}"
        for byte in data
    )


class ReplyReader:
    """Reads replies off one connection, one after the other: `read_head`, then `read_body` to its end."""

    def __init__(self, receive: Callable[[], bytes]) -> None:
        """`receive` waits for more bytes; it raises when none will come, and never returns b""."""
        self._receive = receive
        self._buffer = bytearray()
        self._keeps_open = False
        self._left = 0  # bytes of the body, or of its present chunk, that are still to come
        self._chunked = False
        self._done = True

    @property
    def reusable(self) -> bool:
        """Whether another request may follow: the reply is read to its end, and nothing came after it."""
        return self._done and self._keeps_open and not self._buffer

    def read_head(self, method: str) -> int:
        """The status of the reply to a request with `method`. Raises NotHttp, and what `receive` raises."""
        self._done = False
        for _ in range(MAX_INTERIM_REPLIES + 1):
            status_line, *lines = self._read_lines()
            status = self._parse_status(status_line)
            if status >= 200:
                break
        else:
            raise NotHttp(f"more than {MAX_INTERIM_REPLIES} interim replies")
        headers = _parse_headers(lines)
        if b"close" in [word.strip() for word in headers.get(b"connection", b"").lower().split(b",")]:
            self._keeps_open = False
        self._left, self._chunked = 0, False
        if method != "HEAD" and status not in (204, 304):
            self._left, self._chunked = _framing(headers)
        return status

    def read_body(self) -> Iterator[bytes]:
        """The body in parts as they come, none of them empty. Raises NotHttp, and what `receive` raises."""
        if self._chunked:
            while size := self._read_chunk_size():
                self._left = size
                yield from self._read_left()
                self._read_line_end()
            self._read_line_end()
        else:
            yield from self._read_left()
        self._done = True

    def _read_lines(self) -> list[bytes]:
        """The lines of the next head. What cannot become one is refused before its end."""
        while (end := self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)) < 0:
            if not self._buffer.startswith(b"HTTP/1.") and not b"HTTP/1.".startswith(self._buffer):
                raise NotHttp(f"it begins with {bytes(self._buffer[:20])!r}")
            if len(self._buffer) >= MAX_HEAD_BYTES:
                raise NotHttp(f"its head has more than {MAX_HEAD_BYTES} bytes")
            self._buffer += self._receive()
        head = self._take(end + 4)[:end]
        lines = head.split(b"\r\n")
        for line in lines:
            if line.translate(None, _TEXT):
                raise NotHttp(f"a line of its head has a control character: {line[:80]!r}")
        return lines

    def _parse_status(self, line: bytes) -> int:
        version, _, rest = line.partition(b" ")
        code, _, _ = rest.partition(b" ")
        if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(code) != 3 or not code.isdigit() or code < b"100":
            raise NotHttp(f"it begins with {line[:80]!r}")
        if code == b"101":
            raise NotHttp("it switches to a protocol that nobody asked for")
        self._keeps_open = version == b"HTTP/1.1"
        return int(code)

    def _read_left(self) -> Iterator[bytes]:
        while self._left:
            if not self._buffer:
                self._buffer += self._receive()
            part = self._take(min(self._left, len(self._buffer)))
            self._left -= len(part)
            yield part

    def _read_chunk_size(self) -> int:
        while (end := self._buffer.find(b"\r\n", 0, _MAX_SIZE_LINE_BYTES)) < 0:
            if len(self._buffer) >= _MAX_SIZE_LINE_BYTES:
                raise NotHttp(f"a chunk begins with {bytes(self._buffer[:_MAX_SIZE_LINE_BYTES])!r}")
            self._buffer += self._receive()
        digits = self._take(end + 2)[:end]
        if not digits or digits.strip(_HEX):  # int() alone would take a sign, blanks and underscores
            raise NotHttp(f"a chunk begins with {digits!r}")
        return int(digits, 16)

    def _read_line_end(self) -> None:
        while len(self._buffer) < 2:
            self._buffer += self._receive()
        if (end := self._take(2)) != b"\r\n":
            raise NotHttp(f"a chunk goes on with {end!r}")

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def _parse_headers(lines: list[bytes]) -> dict[bytes, bytes]:
    """Values by lower-case name; those of a name that comes twice are joined (RFC 9110, 5.3)."""
    headers: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name.strip(_TOKEN):
            raise NotHttp(f"a line of its head is no header: {line[:80]!r}")
        name, value = name.lower(), value.strip(b" \t")
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def _framing(headers: dict[bytes, bytes]) -> tuple[int, bool]:
    """The body's length in bytes, and whether it comes in chunks instead (RFC 9112, 6.3)."""
    coding, length = headers.get(b"transfer-encoding"), headers.get(b"content-length")
    if coding is not None:
        if coding.lower() != b"chunked" or length is not None:
            raise NotHttp("its body has an unknown encoding or two lengths")
        return 0, True
    if length is None or not length.isdigit() or len(length) > _MAX_LENGTH_DIGITS:
        raise NotHttp("its body has no length" if length is None else f"its body's length is {length[:80]!r}")
    return int(length), False
