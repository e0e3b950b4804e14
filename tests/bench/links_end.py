"""What all ends of the links benchmark share: commands, answers as JSON lines, and the load itself.

An end is a process: `links_STACK.py serve DIRECTORY` says its address and waits, `links_STACK.py call
DIRECTORY ADDRESS` connects and then does what each line of standard input says. It runs in whatever
environment its stack needs, so this file uses the standard library, and trio where it awaits.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

BLOCK = 1 << 20  # bytes written at once in the bulk case, by every stack: what served all of them best
ANSWER = bytes(1024)
SMALL = bytes(64)


class ByteStream(Protocol):
    """As much of a trio HalfCloseableStream as the load needs."""

    async def send_all(self, data: bytes | memoryview) -> None: ...
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray: ...
    async def send_eof(self) -> None: ...
    async def aclose(self) -> None: ...


def say(**document: Any) -> None:
    """One line of standard output."""
    print(json.dumps(document), flush=True)


def usage() -> dict[str, float]:
    """CPU seconds (user and system, all threads) and resident bytes of this process so far."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {"cpu_s": spent.ru_utime + spent.ru_stime, "rss_bytes": resident}


def percentiles(samples: list[float]) -> dict[str, float]:
    """The median and the 99th percentile, in seconds."""
    return {"p50_s": statistics.median(samples), "p99_s": sorted(samples)[int(len(samples) * 0.99)]}


async def obey(commands: dict[str, Callable[[int], Awaitable[dict[str, float]]]]) -> None:
    """Answer each command line {"do": name, "count": n} with one line, until standard input ends."""
    import trio

    while line := await trio.to_thread.run_sync(sys.stdin.readline):
        command = json.loads(line)
        if command["do"] == "usage":
            say(**usage())
        else:
            say(**await commands[command["do"]](command["count"]))


async def receive_exactly(stream: ByteStream, count: int) -> bytes:
    """Exactly `count` bytes, or EOFError."""
    data = bytes(await stream.receive_some(count))
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        if not more:
            raise EOFError(f"the stream ended after {len(data)} of {count} bytes")
        data += more
    return data


async def serve_stream(stream: ByteStream) -> None:
    """The listener's part of every case; the first byte of a stream says which."""
    case = bytes(await stream.receive_some(1))
    if case == b"B":
        left = int.from_bytes(await receive_exactly(stream, 8), "big")
        while left:
            data = await stream.receive_some()  # as much as the stack likes
            if not data:
                raise EOFError(f"the upload ended {left} bytes early")
            left -= len(data)
        await stream.send_all(b"k")
    elif case == b"P":
        while True:
            try:
                message = await receive_exactly(stream, len(SMALL))
            except EOFError:
                break
            await stream.send_all(message)
    elif case == b"R":
        await stream.send_all(ANSWER)
    await stream.aclose()


async def send_bulk(stream: ByteStream, count: int) -> dict[str, float]:
    """Send `count` bytes; the time ends when the listener says that it holds them all."""
    block = memoryview(bytes(BLOCK))
    start = time.perf_counter()
    await stream.send_all(b"B" + count.to_bytes(8, "big"))
    left = count
    while left:
        size = min(left, BLOCK)
        await stream.send_all(block[:size])
        left -= size
    await receive_exactly(stream, 1)
    seconds = time.perf_counter() - start
    await stream.aclose()
    return {"seconds": seconds}


async def send_small(stream: ByteStream, count: int) -> dict[str, float]:
    """`count` round trips of 64 bytes, one after the other."""
    samples = []
    await stream.send_all(b"P")
    for _ in range(count):
        start = time.perf_counter()
        await stream.send_all(SMALL)
        await receive_exactly(stream, len(SMALL))
        samples.append(time.perf_counter() - start)
    await stream.send_eof()
    await stream.aclose()
    return percentiles(samples)


async def ask_streams(open_stream: Callable[[], Awaitable[ByteStream]], count: int) -> dict[str, float]:
    """Open a stream, have 1 KiB answered, close: `count` times, one after the other."""
    start = time.perf_counter()
    for _ in range(count):
        stream = await open_stream()
        await stream.send_all(b"R")
        await receive_exactly(stream, len(ANSWER))
        await stream.aclose()
    return {"seconds": time.perf_counter() - start}
