"""Ends of the links benchmark over raw trio TCP and over trio's SSLStream (TLS 1.3 only).

links_stream.py tcp|tls serve|call DIRECTORY [ADDRESS]; DIRECTORY holds certificate.pem and key.pem.
"""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import links_end
import trio


class TlsStream:
    """SSLStream with the half-close that TLS does not have: the other end sees the close."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.send_all = stream.send_all
        self.receive_some = stream.receive_some
        self.aclose = stream.aclose

    async def send_eof(self) -> None:
        await self.aclose()


def server_context(directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
    return context


def client_context(directory: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(directory / "certificate.pem"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


async def serve(tls: bool, directory: Path) -> None:
    context = server_context(directory)

    async def handle(connection: trio.SocketStream) -> None:
        if not tls:
            await links_end.serve_stream(connection)
            return
        stream = trio.SSLStream(connection, context, server_side=True, https_compatible=True)
        try:
            await links_end.serve_stream(TlsStream(stream))
        except (trio.BrokenResourceError, trio.ClosedResourceError, EOFError):
            # A caller that has seen its answer hangs up without waiting.
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, handle, 0)
        links_end.say(address=str(listeners[0].socket.getsockname()[1]))
        await links_end.obey({})
        nursery.cancel_scope.cancel()


async def call(tls: bool, directory: Path, address: str) -> None:
    context = client_context(directory)
    idle: list[links_end.ByteStream] = []

    async def connect() -> links_end.ByteStream:
        connection = await trio.open_tcp_stream("127.0.0.1", int(address))
        if not tls:
            return connection
        stream = trio.SSLStream(connection, context, server_hostname="127.0.0.1", https_compatible=True)
        await stream.do_handshake()
        return TlsStream(stream)

    async def bulk(count: int) -> dict[str, float]:
        return await links_end.send_bulk(await connect(), count)

    async def small(count: int) -> dict[str, float]:
        return await links_end.send_small(await connect(), count)

    async def handshakes(count: int) -> dict[str, float]:
        for _ in range(count):
            stream = await connect()
            await stream.send_all(b"R")
            await links_end.receive_exactly(stream, len(links_end.ANSWER))
            await stream.aclose()
        return {}

    async def hold(count: int) -> dict[str, float]:
        for _ in range(count):
            idle.append(await connect())
        return {}

    links_end.say(ready=True)
    await links_end.obey({"bulk": bulk, "small": small, "handshakes": handshakes, "hold": hold})


def main() -> None:
    stack, role, directory = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if role == "serve":
        trio.run(serve, stack == "tls", directory)
    else:
        trio.run(call, stack == "tls", directory, sys.argv[4])


if __name__ == "__main__":
    main()
