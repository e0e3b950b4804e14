"""One worker process, and the daemon's end of its socket."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worker import strangers

from fedd.core import codec
from fedd.core.pipe import Frame, PipeDecoder, encode_frame

MEMBERS = ["p0", "p1", "p2"]


class Worker:
    """One worker and the daemon's end of its socket."""

    def __init__(self, site: Path) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(30)
        with theirs:
            self.process = subprocess.Popen(
                strangers.command(site, "run", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        self.decoder = PipeDecoder(1 << 24)
        self.frames: list[Frame] = []

    def send(self, header: dict[str, Any], *body: bytes) -> None:
        self.sock.sendall(b"".join(encode_frame(header, body)))

    def start(
        self, algorithm: str = "echo", plugin: str = "good", kind: str = "start", **more: Any
    ) -> Worker:
        fields = {
            "run_id": "r",
            "parameters": {},
            "me": "p0",
            "members": MEMBERS,
            "edges": [[0, 1], [2, 0]],
            "epoch": 1,
            "seed": 5,
            "quorum": 2,
            "input": {"kind": "value", "value": 20.5, "name": "x"},
            "max_payload_bytes": 100_000,
        }
        self.send({"kind": kind, "algorithm": algorithm, "plugin": plugin, **fields, **more})
        return self

    def receive(self) -> Frame:
        while not self.frames:
            data = self.sock.recv(1 << 16)
            assert data, self.process.communicate(timeout=30)
            self.frames = self.decoder.receive_data(data)
        return self.frames.pop(0)

    def next(self, kind: str) -> Frame:
        while (frame := self.receive()).header["kind"] != kind:
            assert frame.header["kind"] in ("ready", "report"), frame.header
        return frame

    def complete(self, exchange: Frame, **heard: Any) -> None:
        body = [codec.encode(heard[peer]) for peer in sorted(heard)]
        self.send(
            {"kind": "round", "round": exchange.header["round"], "from": sorted(heard), "gone": []}, *body
        )

    def end(self, status: int = 0) -> str:
        """Wait for the process; returns what it printed to stderr. Nothing may come over stdout."""
        printed, said = self.process.communicate(timeout=30)
        assert printed == b""
        assert self.process.returncode == status, said
        return said.decode()


@contextmanager
def workers(site: Path) -> Iterator[Callable[[], Worker]]:
    """Makes workers with the plugins below `site`; none of them is left afterwards."""
    started: list[Worker] = []

    def worker() -> Worker:
        started.append(Worker(site))
        return started[-1]

    try:
        yield worker
    finally:
        for each in started:
            each.sock.close()
            if each.process.poll() is None:
                each.process.kill()
            each.process.communicate()
