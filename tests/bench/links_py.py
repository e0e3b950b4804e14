"""Ends of the links benchmark over py-libp2p, in its own environment, by its defaults: Noise, yamux.

links_py.py serve|call DIRECTORY [ADDRESS]
"""

from __future__ import annotations

import sys
from typing import Any

import links_end
import trio
from libp2p import new_host
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

PROTOCOL = TProtocol("/bench/1.0.0")
READ = 1 << 16  # py-libp2p has no default: without a number it reads to the end
ANY_PORT = Multiaddr("/ip4/127.0.0.1/tcp/0")


class PyStream:
    """py-libp2p's stream under trio's names."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | memoryview) -> None:
        await self._stream.write(bytes(data))

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            return bytes(await self._stream.read(max_bytes or READ))
        except StreamEOF:
            return b""

    async def send_eof(self) -> None:
        await self._stream.close_write()

    async def aclose(self) -> None:
        await self._stream.close()


async def handle(stream: Any) -> None:
    await links_end.serve_stream(PyStream(stream))


async def serve() -> None:
    host = new_host()
    async with host.run([ANY_PORT]):
        host.set_stream_handler(PROTOCOL, handle)
        links_end.say(address=str(host.get_addrs()[0]))
        await links_end.obey({})


async def call(address: str) -> None:
    host = new_host()
    target = info_from_p2p_addr(Multiaddr(address))
    async with trio.open_nursery() as nursery, host.run([ANY_PORT]):
        await host.connect(target)

        async def open_stream() -> PyStream:
            return PyStream(await host.new_stream(target.peer_id, [PROTOCOL]))

        async def bulk(count: int) -> dict[str, float]:
            return await links_end.send_bulk(await open_stream(), count)

        async def small(count: int) -> dict[str, float]:
            return await links_end.send_small(await open_stream(), count)

        async def streams(count: int) -> dict[str, float]:
            return await links_end.ask_streams(open_stream, count)

        async def handshakes(count: int) -> dict[str, float]:
            for _ in range(count):
                await host.disconnect(target.peer_id)
                await host.connect(target)
            return {}

        async def another(task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
            more = new_host()
            async with more.run([]):
                await more.connect(target)
                task_status.started()
                await trio.sleep_forever()

        async def hold(count: int) -> dict[str, float]:
            for _ in range(count):
                await nursery.start(another)
            return {}

        links_end.say(ready=True)
        commands = {"bulk": bulk, "small": small, "streams": streams, "handshakes": handshakes, "hold": hold}
        await links_end.obey(commands)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        trio.run(serve)
    else:
        trio.run(call, sys.argv[3])
