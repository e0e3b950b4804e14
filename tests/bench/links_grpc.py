"""Ends of the links benchmark over gRPC with TLS by its asyncio API, payloads as plain bytes.

links_grpc.py serve|call DIRECTORY [ADDRESS]; DIRECTORY holds certificate.pem and key.pem.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import links_end

OPTIONS = [("grpc.max_receive_message_length", -1)]


async def count_upload(messages: AsyncIterator[bytes], context: Any) -> bytes:
    count = 0
    async for message in messages:
        count += len(message)
    return count.to_bytes(8, "big")


async def echo(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for message in messages:
        yield message


async def echo_one(message: bytes, context: Any) -> bytes:
    return message


async def answer(message: bytes, context: Any) -> bytes:
    return links_end.ANSWER


async def serve(directory: Path) -> None:
    server = grpc.aio.server(options=OPTIONS)
    handlers = {
        "Bulk": grpc.stream_unary_rpc_method_handler(count_upload),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
        "EchoOne": grpc.unary_unary_rpc_method_handler(echo_one),
        "Answer": grpc.unary_unary_rpc_method_handler(answer),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bench", handlers),))
    key, certificate = (directory / "key.pem").read_bytes(), (directory / "certificate.pem").read_bytes()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    await server.start()
    links_end.say(address=str(port))
    while await asyncio.to_thread(sys.stdin.readline):
        links_end.say(**links_end.usage())
    await server.stop(None)


class Caller:
    """One channel, and as many more as the cases ask for."""

    def __init__(self, directory: Path, address: str) -> None:
        self.credentials = grpc.ssl_channel_credentials((directory / "certificate.pem").read_bytes())
        self.address = address
        self.idle: list[Any] = []
        self.made = 0

    async def connect(self) -> Any:
        # Channels of equal options share one connection: a number of its own keeps them apart.
        self.made += 1
        options = [*OPTIONS, ("bench.channel", self.made)]
        channel = grpc.aio.secure_channel(f"127.0.0.1:{self.address}", self.credentials, options=options)
        await channel.channel_ready()
        return channel

    async def bulk(self, count: int) -> dict[str, float]:
        block = bytes(links_end.BLOCK)
        call = self.channel.stream_unary("/bench.Bench/Bulk")()
        start = time.perf_counter()
        left = count
        while left:
            size = min(left, len(block))
            await call.write(block if size == len(block) else block[:size])
            left -= size
        await call.done_writing()
        received = int.from_bytes(await call, "big")
        seconds = time.perf_counter() - start
        if received != count:
            raise EOFError(f"{received} of {count} bytes arrived")
        return {"seconds": seconds}

    async def small(self, count: int) -> dict[str, float]:
        """The better of a bidirectional stream and of unary calls."""
        streamed, unary = [], []
        stream = self.channel.stream_stream("/bench.Bench/Echo")()
        for _ in range(count):
            start = time.perf_counter()
            await stream.write(links_end.SMALL)
            await stream.read()
            streamed.append(time.perf_counter() - start)
        await stream.done_writing()
        await stream.read()
        call = self.channel.unary_unary("/bench.Bench/EchoOne")
        for _ in range(count):
            start = time.perf_counter()
            await call(links_end.SMALL)
            unary.append(time.perf_counter() - start)
        both = [links_end.percentiles(streamed), links_end.percentiles(unary)]
        return min(both, key=lambda result: result["p50_s"])

    async def handshakes(self, count: int) -> dict[str, float]:
        for _ in range(count):
            await (await self.connect()).close()
        return {}

    async def hold(self, count: int) -> dict[str, float]:
        self.idle += [await self.connect() for _ in range(count)]
        return {}

    async def streams(self, count: int) -> dict[str, float]:
        call = self.channel.unary_unary("/bench.Bench/Answer")
        start = time.perf_counter()
        for _ in range(count):
            await call(b"R")
        return {"seconds": time.perf_counter() - start}

    async def obey(self) -> None:
        self.channel = await self.connect()
        links_end.say(ready=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            if command["do"] == "usage":
                links_end.say(**links_end.usage())
            else:
                links_end.say(**await getattr(self, command["do"])(command["count"]))


async def call(directory: Path, address: str) -> None:
    await Caller(directory, address).obey()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(Path(sys.argv[2])))
    else:
        asyncio.run(call(Path(sys.argv[2]), sys.argv[3]))
