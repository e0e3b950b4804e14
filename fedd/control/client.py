"""The client of the control socket that fedctl itself uses. Synchronous: a socket, and light imports.

with Client("/run/fedd.sock") as client:
    print(client.request("GET", "/v1/status")["peer_id"])
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

from fedd.api import errors as api_errors
from fedd.api.errors import FeddError, InvalidParameter, TimedOut, Unhealthy
from fedd.control.plain_http import NotHttp, ReplyReader, encode_request, encode_segment
from fedd.paths import socket_address

# The daemon's own deadlines are shorter: joining, the longest, gives up after 20 s unless told otherwise.
DEFAULT_TIMEOUT_S = 60.0

# A reply is at most a result with its value; more than this is no daemon of ours.
MAX_REPLY_BYTES = 256 * 1024 * 1024

# A burst of connections is over in milliseconds; a daemon that takes none for so long is stopped.
BUSY_PATIENCE_S = 2.0

_READ_BYTES = 65_536

_RETRY_S = 0.05


class NoDaemon(FeddError):
    """Nobody answers at the socket."""

    code: ClassVar[str] = "no_daemon"


def path_of(*segments: str) -> str:
    """A path of the API from its segments, percent-encoded: `path_of("runs", run_id, "watch")`.

    Raises InvalidParameter for a segment that is empty, `.`, `..` or no text.
    """
    for segment in segments:
        if segment in ("", ".", ".."):
            raise InvalidParameter(f"{segment!r} is no name", hint=f"see `fedctl {segments[0]} --help`")
    return "/v1/" + "/".join(encode_segment(segment) for segment in segments)


class Client:
    """One connection to a daemon, used for one request after the other; close it, or use it with `with`."""

    def __init__(
        self, socket_path: str, timeout_s: float = DEFAULT_TIMEOUT_S, patience_s: float = 0.0
    ) -> None:
        """`patience_s`: how long to wait for a daemon that is only just starting."""
        self._path = socket_path
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._socket: socket.socket | None = None
        self._replies = ReplyReader(self._receive)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the daemon then ends what it still does for this client."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._replies = ReplyReader(self._receive)

    def request(
        self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None
    ) -> Any:
        """Send a request and return the reply's document.

        Raises NoDaemon, TimedOut, or the error that the daemon replied with, in its class.
        """
        with self._translated():
            status = self._exchange(method, path, body, query)
            data = self._whole_body()
            if not self._replies.reusable:
                self.close()
        document = self._decode(data)
        if status >= 400:
            raise _error_from(document)
        return document

    def stream(
        self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Send a request for a stream and yield its items, without the closing `end`.

        Waits for items as long as it takes. Errors as `request`; Unhealthy when the stream breaks off.
        """
        try:
            yield from self._items(method, path, body, query)
        finally:
            self.close()

    def _items(
        self, method: str, path: str, body: Any, query: Mapping[str, str] | None
    ) -> Iterator[dict[str, Any]]:
        with self._translated():
            status = self._exchange(method, path, body, query)
            if status >= 400:
                raise _error_from(self._decode(self._whole_body()))
            self._connected().settimeout(None)
            rest = b""
            for part in self._replies.read_body():
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    item = self._decode(line)
                    if item.get("kind") == "end":
                        return
                    if item.get("kind") == "error":
                        raise _error_from(item)
                    yield item
        raise Unhealthy("the daemon broke the stream off", hint="is it still running? see its log")

    def _exchange(self, method: str, path: str, body: Any, query: Mapping[str, str] | None) -> int:
        """Send a request, return the reply's status; its body is still to be read."""
        content = b"" if body is None else _encode(body)
        if query:
            path += "?" + "&".join(f"{encode_segment(k)}={encode_segment(v)}" for k, v in query.items())
        data = encode_request(method, path, content)
        sock = self._connected()
        with contextlib.suppress(BrokenPipeError):  # refused early: the reply says why
            sock.sendall(data)
        return self._replies.read_head(method)

    def _whole_body(self) -> bytes:
        data = bytearray()
        for part in self._replies.read_body():
            data += part
            if len(data) > MAX_REPLY_BYTES:
                self.close()
                raise FeddError(f"the reply from {self._path} has more than {MAX_REPLY_BYTES} bytes")
        return bytes(data)

    def _receive(self) -> bytes:
        data = self._connected().recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "it was closed")
        return data

    def _connected(self) -> socket.socket:
        if self._socket is None:
            start = time.monotonic()
            while (error := self._connect()) is not None:
                if isinstance(error, BlockingIOError):  # its queue of connections is full at this moment
                    patience_s = max(BUSY_PATIENCE_S, self._patience_s)
                elif isinstance(error, FileNotFoundError | ConnectionRefusedError):
                    patience_s = self._patience_s
                else:
                    patience_s = 0.0
                if time.monotonic() - start >= patience_s:
                    raise _no_daemon(self._path, error) from error
                time.sleep(_RETRY_S)
        return cast(socket.socket, self._socket)

    def _connect(self) -> OSError | None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self._timeout_s)
        try:
            with socket_address(os.path.abspath(self._path)) as address:
                sock.connect(address)
        except OSError as error:
            sock.close()
            return error
        self._socket = sock
        return None

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            self.close()
            raise TimedOut(
                f"the daemon at {self._path} did not answer within {self._timeout_s:g} s",
                hint="it may be busy or stopped; see its log",
            ) from error
        except NotHttp as error:
            self.close()
            raise FeddError(
                f"what answers at {self._path} does not speak fedd's protocol: {error}"
            ) from error
        except OSError as error:
            self.close()
            raise Unhealthy(
                f"the connection to the daemon at {self._path} broke: {error.strerror}",
                hint="is it still running? see its log",
            ) from error

    def _decode(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise FeddError(f"what answers at {self._path} does not reply in JSON") from error


def _encode(body: Any) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except ValueError as error:  # an infinity or a NaN, such as the value of 1e999
        raise InvalidParameter(
            "a number in the request is not finite", hint="write one between -1.8e308 and 1.8e308"
        ) from error


def _no_daemon(path: str, error: OSError) -> FeddError:
    if isinstance(error, PermissionError):
        return api_errors.Denied(
            f"you may not use the socket {path}", hint="join its group, or run fedctl as the daemon's user"
        )
    if isinstance(error, BlockingIOError | TimeoutError):
        return TimedOut(
            f"the daemon at {path} does not take connections", hint="it may be stopped or overrun"
        )
    return NoDaemon(
        f"no daemon answers at {path}", hint="start one with `fedd`, or name its socket with --socket"
    )


def _error_from(document: Any) -> FeddError:
    """The daemon's error in the class that has its code; FeddError for a code not known here."""
    if not isinstance(document, dict):
        return FeddError("the daemon refused, and did not say why")
    detail, hint, field = (str(document.get(name) or "") for name in ("detail", "hint", "field"))
    code = document.get("code")
    for kind in vars(api_errors).values():
        if isinstance(kind, type) and issubclass(kind, FeddError) and kind.code == code:
            return kind(detail, hint=hint, field=field)
    return FeddError(detail, hint=hint, field=field)
