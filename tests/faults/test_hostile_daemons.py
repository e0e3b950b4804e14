"""What hostile peers try on real daemons: floods, slowness, reflections, storms. Each prints its number.

The rows are those of docs/explanation/security.md; `pytest -s` shows the numbers.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import statistics
import threading
import time
from collections.abc import Iterator

import pytest
from faults.hostile import (
    DATA,
    IP_BIND_ADDRESS_NO_PORT,
    RST,
    SYN,
    WINDOW,
    Endpoint,
    Peak,
    cpu_s,
    endpoint_of,
    frame,
    frames,
    handshake,
    is_open,
    knock,
    rss_kib,
    say,
    sockets,
    wait_closed,
)
from federation.daemons import GUARD_S, Daemon, Federation, eventually, federation
from federation.processor import Stopwatch

from fedd.api.errors import FeddError
from fedd.control.client import Client
from fedd.core.identity import PrivateKey
from fedd.core.multistream import Dialer


@pytest.fixture(scope="module")
def fed() -> Iterator[Federation]:
    """Two members; a third daemon, named late, has not joined yet."""
    with federation(2) as fed:
        late = Daemon(fed.root, "late").start().wait_ready()
        fed.late = late
        try:
            yield fed
        finally:
            late.destroy()


def door(daemon: Daemon) -> Endpoint:
    return endpoint_of(daemon.ctl("status").ok()["addresses"][0])


def member_ping_s(fed: Federation) -> float:
    """What a ping between the members takes with the request for it, in seconds: the median of five."""
    took = []
    with Client(str(fed[1].socket)) as client:
        for _ in range(5):
            watch = Stopwatch(fed[0].pid, fed[1].pid)
            client.request("POST", "/v1/ping", {"peer": fed[0].name, "count": 1})
            took.append(watch.seconds())
    return statistics.median(took)


def is_alive(daemon: Daemon, *, at: Daemon) -> bool:
    """Whether one daemon thinks so of another; asked without a fedctl, which takes its own time to start."""
    with Client(str(at.socket)) as client:
        members = client.request("GET", "/v1/members")
    return any((one["name"], one["state"]) == (daemon.name, "alive") for one in members)


class Flood:
    """Opens connections from given addresses as fast as it can, and says nothing on them."""

    AT_ONCE = 64
    """Connections begun and not yet accepted by the kernel: a tool for this would have more."""

    def __init__(self, to: Endpoint, hosts: list[str], count: int) -> None:
        self._to, self._hosts, self._count = to, hosts, count
        self.opened: list[socket.socket] = []
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        start = time.monotonic()
        begun = 0
        poll = select.epoll()
        waiting: dict[int, socket.socket] = {}
        while begun < self._count or waiting:
            while begun < self._count and len(waiting) < self.AT_ONCE:
                raw = socket.socket()
                raw.setblocking(False)
                raw.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                raw.bind((self._hosts[begun % len(self._hosts)], 0))
                begun += 1
                raw.connect_ex(self._to)
                waiting[raw.fileno()] = raw
                poll.register(raw, select.EPOLLOUT | select.EPOLLERR)
            for number, _ in poll.poll(1.0):
                poll.unregister(number)
                self.opened.append(waiting.pop(number))
        poll.close()
        self.seconds = time.monotonic() - start

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def join(self) -> None:
        self._thread.join()

    def held(self, most: int, pid: int) -> int:
        """How many the daemon has not closed, once it has looked at all that the kernel holds for it.

        It takes them in order, thus the last comes after all that the kernel has. What did not fit in there
        the kernel tries again after a second, or three.
        """
        with contextlib.suppress(ConnectionError), knock(self._to) as last:
            last.sendall(Dialer(["/noise"]).data_to_send())
            last.recv(1)
        watch = Stopwatch(pid)
        pause = threading.Event()
        while (held := sum(is_open(raw) for raw in self.opened)) > most and watch.seconds() < 5.0:
            pause.wait(0.05)
        return held

    def __exit__(self, *exc_info: object) -> None:
        self._thread.join()
        for raw in self.opened:
            raw.close()


def test_row_1_ten_thousand_half_open_connections_from_one_address(fed: Federation) -> None:
    victim, late = fed[0], fed.late
    token = victim.ctl("invite").ok()["token"]
    before, held_before = rss_kib(victim.pid), sockets(victim.pid)
    with (
        Peak(lambda: rss_kib(victim.pid)) as memory,
        Peak(lambda: sockets(victim.pid)) as seats,
        Flood(door(victim), ["127.0.0.66"], 10_000) as flood,
    ):
        eventually(lambda: len(flood.opened) > 500, GUARD_S, "the flood has begun")
        watch = Stopwatch(victim.pid, late.pid)
        with Client(str(late.socket)) as client:
            client.request("POST", "/v1/federation/join", {"token": token})
        joined_s = watch.seconds()
        flood.join()
        held = flood.held(8, victim.pid)
    grown = memory.highest - before
    say(
        1,
        f"{len(flood.opened)} half-open connections in {flood.seconds:.1f} s from one address: {held} held "
        f"at the end, at most {seats.highest - held_before} sockets more, RSS +{grown} KiB; an honest peer "
        f"joined in {joined_s:.2f} s",
    )
    assert held <= 8
    assert grown <= 8 * 1024
    assert joined_s < 1.0


def test_row_2_half_open_connections_from_256_addresses(fed: Federation) -> None:
    victim, member = fed[0], fed[1]
    hosts = [f"127.66.{number}.1" for number in range(256)]
    to = door(victim)
    before = rss_kib(victim.pid)
    with Peak(lambda: rss_kib(victim.pid)) as memory, Flood(to, hosts, 10_000) as flood:
        eventually(lambda: len(flood.opened) > 500, GUARD_S, "the flood has begun")
        member.kill()
        member.start().wait_ready()
        watch = Stopwatch(victim.pid, member.pid)
        eventually(lambda: is_alive(member, at=victim), GUARD_S, "the member is back")
        eventually(lambda: is_alive(victim, at=member), GUARD_S, "and sees the victim")
        back_s = watch.seconds()
        flood.join()
        held = flood.held(64, victim.pid)
    grown = memory.highest - before
    say(
        2,
        f"{len(flood.opened)} half-open connections in {flood.seconds:.1f} s from 256 addresses: {held} held "
        f"at the end, RSS +{grown} KiB; a member that restarted was back {back_s:.2f} s after it was ready",
    )
    assert held <= 64
    assert grown <= 8 * 1024
    assert back_s < 5.0


def test_rows_3_and_4_slow_handshakes_and_silence_after_one(fed: Federation) -> None:
    victim = fed[0]
    to = door(victim)
    held_before = sockets(victim.pid)
    silent = handshake(to)
    words = Dialer(["/noise"]).data_to_send() + b"\x00\x20" + bytes(32)
    slow = knock(to)
    watch = Stopwatch(victim.pid)

    def drip() -> None:
        pause = threading.Event()
        with contextlib.suppress(OSError):
            for byte in words:
                slow.sendall(bytes([byte]))
                pause.wait(1.0)

    dripping = threading.Thread(target=drip, daemon=True)
    dripping.start()
    wait_closed(slow)
    slow_s = watch.seconds()
    wait_closed(silent.raw)
    silent_s = watch.seconds()
    slow.close()
    silent.close()
    eventually(lambda: sockets(victim.pid) <= held_before, GUARD_S, "both seats are free again")
    say(3, f"one byte a second: closed after {slow_s:.1f} s")
    say(4, f"a handshake, then silence: closed after {silent_s:.1f} s, seat free")
    assert slow_s <= 10.5
    assert silent_s <= 20.0


def test_row_10_reflection_and_self_dial(fed: Federation) -> None:
    victim = fed[0]
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)

    def reflect() -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = listener.accept()
                with raw, contextlib.suppress(OSError):
                    while data := raw.recv(65536):
                        raw.sendall(data)

    threading.Thread(target=reflect, daemon=True).start()
    stranger = PrivateKey.from_seed(os.urandom(32)).peer_id
    me = victim.peer_id()
    host, port = door(victim)
    start = time.monotonic()
    mirror = f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}"
    replies = [
        victim.ctl("connect", f"{mirror}/p2p/{stranger}"),  # hears its own words
        victim.ctl("connect", f"{mirror}/p2p/{me}"),
        victim.ctl("connect", f"/ip4/{host}/tcp/{port}/p2p/{me}"),
        victim.ctl("connect", f"/ip4/{host}/tcp/{port}/p2p/{stranger}"),  # is itself under another name
    ]
    took = time.monotonic() - start
    listener.close()
    say(
        10,
        f"reflected and dialled to itself: exit codes {[reply.code for reply in replies]}, {took:.1f} s",
    )
    assert all(reply.code not in {0, 8} for reply in replies)
    assert victim.ctl("status").code == 0
    assert "Traceback" not in victim.log.read_text()


def test_row_12_the_cap_holds_in_a_daemon_too(fed: Federation) -> None:
    link = handshake(door(fed[0]))
    link.send(b"".join(frame(WINDOW, SYN, 2 * number + 1, 0) for number in range(500)))

    def resets(answers: bytes) -> int:
        return sum(1 for kind, flags, *_ in frames(answers) if kind == WINDOW and flags & RST)

    assert link.read_until(lambda answers: resets(answers) >= 500 - 16)
    assert member_ping_s(fed) < 1.0
    link.close()


def test_row_13_connections_opened_and_closed_in_a_storm(fed: Federation) -> None:
    victim = fed[0]
    to = door(victim)
    stop = threading.Event()
    counts = {"begun": 0, "done": 0}

    def storm() -> None:
        key = PrivateKey.from_seed(os.urandom(32))
        while not stop.is_set():
            counts["begun"] += 1
            with contextlib.suppress(OSError, EOFError, FeddError):
                handshake(to, key=key, host="127.0.0.77").close()
                counts["done"] += 1

    begun, cpu = time.monotonic(), cpu_s(victim.pid)
    thread = threading.Thread(target=storm, daemon=True)
    thread.start()
    ping_s = member_ping_s(fed)
    stop.wait(3.0 - min(2.5, time.monotonic() - begun))
    stop.set()
    thread.join()
    seconds = time.monotonic() - begun
    share = (cpu_s(victim.pid) - cpu) / seconds
    say(
        13,
        f"{counts['begun'] / seconds:.0f} connections/s opened and closed from one address: "
        f"{counts['done']} handshakes in {seconds:.1f} s, {share:.0%} of a core, a member's ping "
        f"{ping_s * 1e3:.1f} ms",
    )
    assert counts["done"] <= 16 + 0.2 * seconds + 1
    assert ping_s < 0.5


def test_row_13_streams_opened_and_reset_in_a_storm(fed: Federation) -> None:
    victim = fed[0]
    link = handshake(door(victim))
    before = rss_kib(victim.pid)
    words = Dialer(["/ipfs/ping/1.0.0"]).data_to_send()
    opened = 0
    pings: list[float] = []

    def measure() -> None:
        pings.append(member_ping_s(fed))

    measuring = threading.Thread(target=measure)
    measuring.start()
    begun = time.monotonic()
    with Peak(lambda: rss_kib(victim.pid)) as memory, contextlib.suppress(OSError, EOFError):
        while time.monotonic() - begun < 2.0:
            storm = b"".join(
                frame(DATA, SYN, 2 * number + 1, len(words), words) + frame(WINDOW, RST, 2 * number + 1, 0)
                for number in range(opened, opened + 200)
            )
            opened += 200
            link.send(storm)
            link.raw.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while link.raw.recv(65536):
                    pass
            link.raw.settimeout(5.0)
    seconds = time.monotonic() - begun
    measuring.join()
    link.close()
    grown = memory.highest - before
    say(
        13,
        f"{opened} streams opened and reset in {seconds:.1f} s: RSS +{grown} KiB, a member's ping "
        f"{pings[0] * 1e3:.1f} ms",
    )
    assert grown <= 8 * 1024
    assert pings[0] < 0.5
