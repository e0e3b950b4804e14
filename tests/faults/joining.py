"""A newcomer that asks `/fedd/join/1.0.0` as badly as its test wants."""

from __future__ import annotations

import struct
import threading
import time
from contextlib import suppress
from typing import Any

from faults.hostile import DATA, RST, Link, handshake
from federation.daemons import GUARD_S

from fedd.net.join_messages import JOIN_PROTOCOL
from fedd.net.join_messages import encode_message as encode_join

ECHO = b"\x13/multistream/1.0.0\n" + bytes([len(JOIN_PROTOCOL) + 1]) + JOIN_PROTOCOL.encode() + b"\n"
"""What stands before the answer on a stream whose protocol was accepted."""


class Answers:
    """Reads the data of every stream of a hostile link."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.streams: dict[int, bytes] = {}
        self.reset: set[int] = set()
        """Streams that the other end has given up."""
        self._buffer = b""

    def read(self) -> None:
        """Take what comes next; EOFError at the end."""
        data, self.link.first = self.link.first, b""
        if not data:
            data = self.link.tap.recv()
        self._buffer += b"".join(self.link.transport.receive_data(data))
        while len(self._buffer) >= 12:
            _, kind, flags, stream_id, length = struct.unpack_from(">BBHII", self._buffer)
            size = 12 + (length if kind == DATA else 0)
            if len(self._buffer) < size:
                return
            if kind == DATA:
                self.streams[stream_id] = self.streams.get(stream_id, b"") + self._buffer[12:size]
            if flags & RST:
                self.reset.add(stream_id)
            self._buffer = self._buffer[size:]

    def answer(self, stream_id: int) -> bytes | None:
        """The whole answer on a stream, with its length, once it is there."""
        data = self.streams.get(stream_id, b"")
        if not data.startswith(ECHO) or len(data) < len(ECHO) + 2:
            return None
        body = data[len(ECHO) :]
        size = 2 + int.from_bytes(body[:2], "big")
        return body[:size] if len(body) >= size else None


def ask(answers: Answers, stream_id: int, message: dict[str, Any]) -> tuple[bytes, float]:
    """The answer to a join request, and how many seconds it took."""
    start = time.perf_counter()
    answers.link.open(JOIN_PROTOCOL, stream_id, encode_join(message))
    while True:
        answer = answers.answer(stream_id)
        if answer is not None:
            return answer, time.perf_counter() - start
        answers.read()


def meet(to: tuple[str, int]) -> Link:
    """A link of a new identity; the door lets fifty a second in."""
    pause = threading.Event()
    end = time.monotonic() + GUARD_S
    while time.monotonic() < end:
        with suppress(EOFError, OSError):
            return handshake(to)
        pause.wait(0.1)
    raise AssertionError("the door stays closed")


def ask_once(daemon_door: tuple[str, int], message: dict[str, Any]) -> bytes:
    link = meet(daemon_door)
    try:
        return ask(Answers(link), 1, message)[0]
    finally:
        link.close()
