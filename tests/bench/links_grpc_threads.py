"""Ends of the links benchmark over gRPC with TLS by its threaded API, payloads as plain bytes.

links_grpc_threads.py serve|call DIRECTORY [ADDRESS]; DIRECTORY holds certificate.pem and key.pem.
"""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import links_end

OPTIONS = [("grpc.max_receive_message_length", -1)]


def count_upload(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    return sum(map(len, messages)).to_bytes(8, "big")


def echo(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from messages


def answer(message: bytes, context: grpc.ServicerContext) -> bytes:
    return links_end.ANSWER


def serve(directory: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(max_workers=8), options=OPTIONS)
    handlers = {
        "Bulk": grpc.stream_unary_rpc_method_handler(count_upload),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
        "EchoOne": grpc.unary_unary_rpc_method_handler(lambda message, context: message),
        "Answer": grpc.unary_unary_rpc_method_handler(answer),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bench", handlers),))
    key, certificate = (directory / "key.pem").read_bytes(), (directory / "certificate.pem").read_bytes()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()
    links_end.say(address=str(port))
    for _ in sys.stdin:
        links_end.say(**links_end.usage())
    server.stop(None)


class Caller:
    """One channel, and as many more as the cases ask for."""

    def __init__(self, directory: Path, address: str) -> None:
        self.credentials = grpc.ssl_channel_credentials((directory / "certificate.pem").read_bytes())
        self.address = address
        self.idle: list[grpc.Channel] = []
        self.made = 0
        self.channel = self.connect()

    def connect(self) -> grpc.Channel:
        # Channels of equal options share one connection: a number of its own keeps them apart.
        self.made += 1
        options = [*OPTIONS, ("bench.channel", self.made)]
        channel = grpc.secure_channel(f"127.0.0.1:{self.address}", self.credentials, options=options)
        grpc.channel_ready_future(channel).result(timeout=10)
        return channel

    def bulk(self, count: int) -> dict[str, float]:
        block = bytes(links_end.BLOCK)

        def blocks() -> Iterator[bytes]:
            left = count
            while left:
                size = min(left, len(block))
                yield block if size == len(block) else block[:size]
                left -= size

        call = self.channel.stream_unary("/bench.Bench/Bulk")
        start = time.perf_counter()
        received = int.from_bytes(call(blocks()), "big")
        seconds = time.perf_counter() - start
        if received != count:
            raise EOFError(f"{received} of {count} bytes arrived")
        return {"seconds": seconds}

    def small(self, count: int) -> dict[str, float]:
        """The better of a bidirectional stream and of unary calls."""
        outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        incoming = self.channel.stream_stream("/bench.Bench/Echo")(iter(outgoing.get, None))
        streamed, unary = [], []
        for _ in range(count):
            start = time.perf_counter()
            outgoing.put(links_end.SMALL)
            next(incoming)
            streamed.append(time.perf_counter() - start)
        outgoing.put(None)
        call = self.channel.unary_unary("/bench.Bench/EchoOne")
        for _ in range(count):
            start = time.perf_counter()
            call(links_end.SMALL)
            unary.append(time.perf_counter() - start)
        both = [links_end.percentiles(streamed), links_end.percentiles(unary)]
        return min(both, key=lambda result: result["p50_s"])

    def handshakes(self, count: int) -> dict[str, float]:
        for _ in range(count):
            self.connect().close()
        return {}

    def hold(self, count: int) -> dict[str, float]:
        self.idle += [self.connect() for _ in range(count)]
        return {}

    def streams(self, count: int) -> dict[str, float]:
        call = self.channel.unary_unary("/bench.Bench/Answer")
        start = time.perf_counter()
        for _ in range(count):
            call(b"R")
        return {"seconds": time.perf_counter() - start}


def call(directory: Path, address: str) -> None:
    caller = Caller(directory, address)
    links_end.say(ready=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "usage":
            links_end.say(**links_end.usage())
        else:
            links_end.say(**getattr(caller, command["do"])(command["count"]))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]))
    else:
        call(Path(sys.argv[2]), sys.argv[3])
