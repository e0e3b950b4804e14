"""serf's RPC protocol, as far as a measurement needs it: MessagePack over TCP.

https://github.com/hashicorp/serf/blob/master/docs/internals, "Agent RPC": each request is a header
`{Command, Seq}` and a body, each reply a header `{Seq, Error}` and a body; a stream goes on with such pairs.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO


class SerfError(Exception):
    """The agent refused, or is gone."""


class SerfClient:
    """One connection to an agent."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._file: BinaryIO = sock.makefile("rb")
        self._seq = 0
        self.request("handshake", {"Version": 1}, replies=False)

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def request(self, command: str, body: Any = None, *, replies: bool = True) -> Any:
        """Ask, and return the body of the reply, None when the command has none."""
        self._send(command, body)
        self._header()
        return unpack(self._file) if replies else None

    def stream(self, events: str) -> Iterator[dict[str, Any]]:
        """The agent's events, such as of type `user:note`; when the first is asked for, it has subscribed."""
        self._send("stream", {"Type": events})
        self._header()
        self._socket.settimeout(None)
        return self._events()

    def _events(self) -> Iterator[dict[str, Any]]:
        while True:
            self._header()
            yield unpack(self._file)

    def _send(self, command: str, body: Any) -> None:
        self._seq += 1
        data = pack({"Command": command, "Seq": self._seq})
        self._socket.sendall(data if body is None else data + pack(body))

    def _header(self) -> None:
        header = unpack(self._file)
        if header["Error"]:
            raise SerfError(header["Error"].decode())


def pack(value: Any) -> bytes:
    """MessagePack of None, booleans, integers from 0 to 2^32 - 1, texts, bytes, lists and dictionaries."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return bytes([value]) if value < 128 else struct.pack(">BI", 0xCE, value)
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        small = len(value) < 32
        return (bytes([0xA0 | len(value)]) if small else struct.pack(">BH", 0xDA, len(value))) + value
    if isinstance(value, list):
        return struct.pack(">BH", 0xDC, len(value)) + b"".join(map(pack, value))
    pairs = b"".join(pack(key) + pack(item) for key, item in value.items())
    return struct.pack(">BH", 0xDE, len(value)) + pairs


_FIXED = {
    0xC0: (None, 0),
    0xC2: (False, 0),
    0xC3: (True, 0),
    0xCA: (">f", 4),
    0xCB: (">d", 8),
    0xCC: (">B", 1),
    0xCD: (">H", 2),
    0xCE: (">I", 4),
    0xCF: (">Q", 8),
    0xD0: (">b", 1),
    0xD1: (">h", 2),
    0xD2: (">i", 4),
    0xD3: (">q", 8),
}
# first byte: (kind, format of the length)
_SIZED = {
    0xC4: ("raw", ">B"),
    0xC5: ("raw", ">H"),
    0xC6: ("raw", ">I"),
    0xD9: ("raw", ">B"),
    0xDA: ("raw", ">H"),
    0xDB: ("raw", ">I"),
    0xDC: ("list", ">H"),
    0xDD: ("list", ">I"),
    0xDE: ("map", ">H"),
    0xDF: ("map", ">I"),
}


def unpack(file: BinaryIO) -> Any:
    """The next value. Texts come as bytes, but as texts where they are keys. SerfError at the end."""
    first = _read(file, 1)[0]
    if first < 0x80:
        return first
    if first >= 0xE0:
        return first - 256
    if first in _FIXED:
        layout, size = _FIXED[first]
        return struct.unpack(layout, _read(file, size))[0] if isinstance(layout, str) else layout
    if first < 0x90:
        kind, size = "map", first & 0x0F
    elif first < 0xA0:
        kind, size = "list", first & 0x0F
    elif first < 0xC0:
        kind, size = "raw", first & 0x1F
    elif first in _SIZED:
        kind, layout = _SIZED[first]
        size = struct.unpack(layout, _read(file, struct.calcsize(layout)))[0]
    else:
        raise SerfError(f"MessagePack type {first:#x}")
    if kind == "raw":
        return _read(file, size)
    if kind == "list":
        return [unpack(file) for _ in range(size)]
    return {unpack(file).decode(): unpack(file) for _ in range(size)}


def _read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size) if size else b""
    if len(data) != size:
        raise SerfError("the agent is gone")
    return data
