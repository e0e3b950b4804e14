"""The plugin host's words to the daemon, over a socket, without a process of its own."""

from __future__ import annotations

import mmap
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import trio

from fedd.api.command import CommandContext
from fedd.api.errors import InvalidParameter
from fedd.core.codec import encode
from fedd.core.command_messages import read_answer
from fedd.core.pipe import Frame, PipeDecoder, encode_frame
from fedd.worker import commands
from fedd.worker.commands import MAX_FRAME_BYTES, PAGE_BYTES, Gauge, PluginHost


@dataclass
class Told:
    """Say it, at once or after a turn of the event loop."""

    name: ClassVar[str] = "told"
    text: str
    turns: int = 0

    async def handle(self, context: CommandContext) -> str:
        """Write an event."""
        for _ in range(self.turns):
            await trio.lowlevel.checkpoint()
        context.event(self.text)
        return self.text.upper()


class Daemon:
    """The other end of the host's socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decoder = PipeDecoder(MAX_FRAME_BYTES)

    async def call(self, number: int, **parameters: Any) -> list[Frame]:
        """Have `told` handled; all that the host says until it has answered."""
        header = {"kind": "call", "call": number, "plugin": "p", "command": "told", "sender": "s"}
        frame = encode_frame({**header, "only_check": False}, [encode(parameters)])
        self._sock.sendall(b"".join(bytes(part) for part in frame))
        heard: list[Frame] = []
        while not any(each.header["kind"] == "answer" for each in heard):
            await trio.lowlevel.wait_readable(self._sock)
            heard += self._decoder.receive_data(self._sock.recv(65536))
        return [each for each in heard if each.header["kind"] != "ready"]


@asynccontextmanager
async def host() -> AsyncIterator[Daemon]:
    """A plugin host in this process."""
    ours, theirs = socket.socketpair()
    with ours, theirs, mmap.mmap(-1, PAGE_BYTES) as page:
        gauge = Gauge(page)
        trio.lowlevel.add_instrument(gauge)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(PluginHost(theirs, gauge).run)
                with trio.fail_after(10):
                    yield Daemon(ours)
                nursery.cancel_scope.cancel()
        finally:
            trio.lowlevel.remove_instrument(gauge)


async def test_that_a_call_began_is_said_unless_its_answer_comes_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[tuple[str, str]] = []

    def find(plugin: str, command: str) -> type[Told]:
        found.append((plugin, command))
        return Told

    monkeypatch.setattr(commands, "find_command", find)
    async with host() as daemon:
        for number, turns, kinds in [(1, 0, ["event", "answer"]), (2, 3, ["began", "event", "answer"])] * 2:
            heard = await daemon.call(number, text="hello", turns=turns)
            assert [frame.header["kind"] for frame in heard] == kinds
            assert {frame.header["call"] for frame in heard} == {number}
            assert read_answer(heard[-1].body[0], 1000) == "HELLO"
    assert found == [("p", "told")]


async def test_parameters_are_checked_with_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "find_command", lambda plugin, command: Told)
    async with host() as daemon:
        assert read_answer((await daemon.call(1, text="x"))[-1].body[0], 1000) == "X"
        for parameters, message in [({"txt": "x"}, "no parameter 'txt'"), ({}, "told needs text")]:
            answer = (await daemon.call(2, **parameters))[-1].body[0]
            with pytest.raises(InvalidParameter, match=message):
                read_answer(answer, 1000)
