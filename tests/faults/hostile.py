"""A peer that speaks libp2p as badly as its test wants, over plain blocking sockets."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from federation.daemons import GUARD_S, eventually

from fedd.core.identity import PrivateKey
from fedd.core.multistream import Dialer
from fedd.core.noise import NoiseTransport
from fedd.core.noise_handshake import NoiseHandshake
from fedd.core.yamux import Session

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
IP_BIND_ADDRESS_NO_PORT = 24
"""Choose the port when connecting, per destination (ip(7)): many connections from one address."""
Endpoint = tuple[str, int]
FREE = {"handshakes_per_s": 1e6, "failures_burst": 1_000_000, "stranger_streams_burst": 1_000_000}
"""Limits for what is tried thousands of times: the doors are tested elsewhere."""

_sources = itertools.count(1)


def source() -> str:
    """A loopback address that nobody has dialled from yet: the door counts by address."""
    number = next(_sources)
    return f"127.9.{number >> 8}.{number & 255}"


def endpoint_of(address: str) -> Endpoint:
    """Host and port of a /ip4/.../tcp/... multiaddress."""
    parts = address.split("/")
    return parts[2], int(parts[4])


def knock(to: Endpoint, host: str | None = None, timeout_s: float = GUARD_S) -> socket.socket:
    """A TCP connection from a loopback address of its own, or from `host`."""
    raw = socket.socket()
    raw.settimeout(timeout_s)
    raw.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    raw.bind((host or source(), 0))
    raw.connect(to)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return raw


def read_to_end(raw: socket.socket) -> bytes:
    """All that the other end says before it closes, whichever way."""
    parts: list[bytes] = []
    with contextlib.suppress(ConnectionError):
        while data := raw.recv(65536):
            parts.append(data)
    return b"".join(parts)


def is_open(raw: socket.socket) -> bool:
    """Whether the other end has not closed."""
    raw.setblocking(False)
    try:
        while raw.recv(65536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def wait_closed(raw: socket.socket) -> None:
    """Return when the other end has closed the connection, whatever it says before."""
    end = time.monotonic() + GUARD_S
    raw.settimeout(GUARD_S)
    with contextlib.suppress(ConnectionError):
        while raw.recv(65536):
            assert time.monotonic() < end, f"not closed within {GUARD_S} s"


def frame(kind: int, flags: int, stream_id: int, length: int, payload: bytes = b"") -> bytes:
    """A yamux frame that says what it is told to say."""
    return struct.pack(">BBHII", 0, kind, flags, stream_id, length) + payload


class Tap:
    """A socket that records what is sent, and may change or cut it."""

    def __init__(self, raw: socket.socket, cut: int | None = None, flip: int | None = None) -> None:
        self.raw = raw
        self.sent = bytearray()
        self._cut = cut
        self._flip = flip

    def sendall(self, data: bytes) -> None:
        """Send; raises EOFError when it was cut."""
        start = len(self.sent)
        out = bytearray(data)
        if self._flip is not None and start <= self._flip // 8 < start + len(out):
            out[self._flip // 8 - start] ^= 1 << (self._flip % 8)
        self.sent += out
        if self._cut is not None and len(self.sent) >= self._cut:
            self.raw.sendall(out[: self._cut - start])
            raise EOFError
        self.raw.sendall(out)

    def recv(self) -> bytes:
        """Receive some; raises EOFError at the end."""
        data = self.raw.recv(65536)
        if not data:
            raise EOFError
        return data


class Link:
    """An authenticated connection on which any bytes can be sent."""

    def __init__(self, tap: Tap, transport: NoiseTransport, first: bytes) -> None:
        self.tap = tap
        self.raw = tap.raw
        self.transport = transport
        self.session = Session(True)  # to read with
        self.first = first

    def send(self, plaintext: bytes) -> None:
        """Encrypt and send."""
        for start in range(0, len(plaintext), 65_000):
            self.tap.sendall(self.transport.encrypt(plaintext[start : start + 65_000]))

    def read(self, wait_s: float) -> bytes:
        """The plaintext that arrives until nothing has come for `wait_s`; EOFError at the end."""
        parts: list[bytes] = []
        data, self.first = self.first, b""
        self.raw.settimeout(wait_s)
        while True:
            if data:
                parts += self.transport.receive_data(data)
            try:
                data = self.raw.recv(65536)
            except TimeoutError:
                return b"".join(parts)
            except ConnectionError:
                data = b""
            if not data:
                if parts:
                    return b"".join(parts)
                raise EOFError

    def read_until(self, enough: Callable[[bytes], bool]) -> bytes:
        """The plaintext until it is `enough`; EOFError at the end, TimeoutError after a long silence."""
        plaintext = b""
        data, self.first = self.first, b""
        self.raw.settimeout(GUARD_S)
        while True:
            if data:
                plaintext += b"".join(self.transport.receive_data(data))
            if enough(plaintext):
                return plaintext
            data = self.tap.recv()

    def open(self, protocol: str, stream_id: int, more: bytes = b"") -> None:
        """Open a stream and name its protocol, without waiting for the answer."""
        words = Dialer([protocol]).data_to_send() + more
        self.send(frame(DATA, SYN, stream_id, len(words), words))

    def close(self) -> None:
        self.raw.close()


def frames(plaintext: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(type, flags, stream, length) of each whole yamux frame."""
    offset = 0
    while offset + 12 <= len(plaintext):
        _, kind, flags, stream_id, length = struct.unpack_from(">BBHII", plaintext, offset)
        yield kind, flags, stream_id, length
        offset += 12 + (length if kind == DATA else 0)


def handshake(
    to: Endpoint,
    *,
    key: PrivateKey | None = None,
    host: str | None = None,
    cut: int | None = None,
    flip: int | None = None,
    muxers: tuple[str, ...] = ("/yamux/1.0.0",),
) -> Link:
    """Dial and shake hands; EOFError when the other end closes, or after `cut` bytes."""
    raw = knock(to, host)
    tap = Tap(raw, cut, flip)
    try:
        dialer = Dialer(["/noise"])
        tap.sendall(dialer.data_to_send())
        while not dialer.finished:
            dialer.receive_data(tap.recv())
        machine = NoiseHandshake(key or PrivateKey.from_seed(secrets.token_bytes(32)), True, muxers=muxers)
        tap.sendall(machine.data_to_send())
        done: list[Any] = []
        data = dialer.trailing
        while not done:
            done = machine.receive_data(data or tap.recv())
            data = b""
            if out := machine.data_to_send():
                tap.sendall(out)
        return Link(tap, done[0].transport, done[0].trailing)
    except BaseException:
        raw.close()
        raise


def rss_kib(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} has ended")


def cpu_s(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def sockets(pid: int) -> int:
    """How many sockets a process holds."""
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += entry.readlink().name.startswith("socket:")
    return count


class Peak:
    """The highest of a number that is read over and over in a thread."""

    def __init__(self, read: Any) -> None:
        self._read = read
        self.highest = read()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self.highest = max(self.highest, self._read())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()
        self.highest = max(self.highest, self._read())


class SwarmProcess:
    """tests/faults/swarm_process.py, running."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        hello = json.loads(process.stdout.readline())
        self.endpoint = endpoint_of(hello["address"])
        self.address: str = hello["address"]
        self.pid = process.pid

    def report(self) -> dict[str, Any]:
        """What it has counted: links up, links now, pending, refused, errors logged."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("report\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))

    def settled(self, **expected: Any) -> dict[str, Any]:
        """The report once it says `expected`."""
        report: dict[str, Any] = {}

        def agrees() -> bool:
            report.update(self.report())
            return all(report[name] == value for name, value in expected.items())

        eventually(agrees, GUARD_S, f"the swarm's process reports {expected}")
        return report


@contextmanager
def swarm_process(**options: Any) -> Iterator[SwarmProcess]:
    """A Swarm in a process of its own; `options` are its limits, and `members`."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("swarm_process.py")), json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield SwarmProcess(process)
        assert process.poll() is None, "the swarm's process ended"
    finally:
        process.kill()
        _, errors = process.communicate()
    assert "Traceback" not in errors, errors


def say(row: int, text: str) -> None:
    """State a number, and keep it where FEDD_HOSTILE_NUMBERS says."""
    line = f"row {row}: {text}"
    print(line)
    if path := os.environ.get("FEDD_HOSTILE_NUMBERS"):
        with Path(path).open("a") as file:
            file.write(line + "\n")
