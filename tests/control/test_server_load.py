"""Many clients at real sockets: the idle and the stalled cost little and lock nobody out."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import trio
import trio.to_thread

from fedd.control.client import Client
from fedd.control.listener import open_control_socket
from fedd.control.server import ControlServer
from fedd.net.events import EventLog


def resident_kib() -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def connections(path: str, count: int, request: bytes = b"") -> list[socket.socket]:
    made = []
    for _ in range(count):
        made.append(socket.socket(socket.AF_UNIX))
        made[-1].connect(path)
        made[-1].sendall(request)
    return made


async def test_five_hundred_idle_connections_leave_room_for_one_more(tmp_path: Path) -> None:
    async def status(request: Any) -> Any:
        return {"name": "a"}

    server = ControlServer({"status": status})
    sock = open_control_socket(str(tmp_path / "fedd.sock"))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [sock])
        idle = await trio.to_thread.run_sync(connections, sock.path, 500)

        def ask() -> Any:
            with Client(sock.path) as client:
                return client.request("GET", "/v1/status")

        with trio.fail_after(5):
            assert await trio.to_thread.run_sync(ask) == {"name": "a"}
        for connection in idle:
            connection.close()
        nursery.cancel_scope.cancel()
    sock.release()


async def test_stalled_readers_of_events_cost_little(tmp_path: Path) -> None:
    log = EventLog()

    async def events(request: Any) -> Any:
        return log.subscribe(0)

    server = ControlServer({"events": events})
    sock = open_control_socket(str(tmp_path / "fedd.sock"))
    request = b"GET /v1/events?since=0 HTTP/1.1\r\nHost: fedd\r\n\r\n"
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [sock])
        stalled = await trio.to_thread.run_sync(connections, sock.path, 20, request)
        await trio.to_thread.run_sync(stalled[-1].recv, 1)
        before = resident_kib()
        for number in range(100_000):
            log.publish("member", peer_id="12D3KooW" + "x" * 44, name="b", state="alive")
            if number % 100 == 0:
                await trio.lowlevel.checkpoint()
        assert resident_kib() - before <= 8 * 1024
        for connection in stalled:
            connection.close()
        nursery.cancel_scope.cancel()
    sock.release()
