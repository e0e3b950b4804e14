"""Foreign libp2p peers as processes that say JSON lines."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from interop import environments

START_S = 120.0  # a cold Node or Python with dozens of packages on a loaded machine
WORK_S = 120.0


class ForeignPeer:
    """A running peer: `said` returns its next line of the kind asked for."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = b""

    async def said(self, event: str, deadline_s: float = WORK_S) -> dict[str, Any]:
        """The next line whose "event" is this; lines of other kinds are passed over."""
        with trio.fail_after(deadline_s):
            while True:
                document: dict[str, Any] = json.loads(await self._line())
                if document["event"] == event:
                    return document

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            data = await self._process.stdout.receive_some()
            assert data, f"the foreign peer ended with code {await self._process.wait()}"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


@asynccontextmanager
async def foreign_peer(kind: str, *arguments: str) -> AsyncIterator[ForeignPeer]:
    """Run the "py" or "js" peer with these arguments; it is gone when the block is left."""
    async with peer_process([*environments.command_of(kind), *arguments]) as peer:
        yield peer


@asynccontextmanager
async def peer_process(command: Sequence[str]) -> AsyncIterator[ForeignPeer]:
    """Run any program that says JSON lines; it is gone when the block is left."""
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
        process: trio.Process = await nursery.start(run)
        try:
            yield ForeignPeer(process)
        finally:
            nursery.cancel_scope.cancel()
