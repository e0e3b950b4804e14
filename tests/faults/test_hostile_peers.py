"""What hostile peers try on the links, against real daemons and real sockets; each test prints its number.

The rows are those of docs/explanation/security.md. `pytest -s` shows the numbers.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.hostile import (
    ACK,
    DATA,
    IP_BIND_ADDRESS_NO_PORT,
    PING,
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
    read_to_end,
    rss_kib,
    seconds_until_closed,
    sockets,
    swarm_process,
)
from federation.daemons import Daemon, Federation, eventually, federation

from fedd.api.errors import FeddError
from fedd.control.client import Client
from fedd.core.identity import PrivateKey
from fedd.core.multistream import Dialer
from fedd.core.varint import encode_uvarint

FREE = {"handshakes_per_s": 1e6, "failures_burst": 1_000_000, "stranger_streams_burst": 1_000_000}
"""Limits for what is tried thousands of times: the doors are tested elsewhere."""


def say(row: int, text: str) -> None:
    """State a number, and keep it where FEDD_HOSTILE_NUMBERS says."""
    line = f"row {row}: {text}"
    print(line)
    if path := os.environ.get("FEDD_HOSTILE_NUMBERS"):
        with Path(path).open("a") as file:
            file.write(line + "\n")


@pytest.fixture(scope="module")
def fed() -> Iterator[Federation]:
    """Two members; a third daemon, named late, has not joined yet."""
    with federation(2) as fed:
        late = Daemon(fed.root, "late").start().wait_ready()
        fed.late = late  # type: ignore[attr-defined]
        try:
            yield fed
        finally:
            late.destroy()


def door(daemon: Daemon) -> Endpoint:
    return endpoint_of(daemon.ctl("status").ok()["addresses"][0])


def member_ping_s(fed: Federation) -> float:
    """Round trip between the members, in seconds."""
    reply = fed[1].ctl("ping", fed[0].peer_id(), "-c", "5").ok()
    return statistics.median(reply["rtt_ms"]) / 1000


# ---- rows 1 and 2: half-open connections ---------------------------------------------------


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

    def __exit__(self, *exc_info: object) -> None:
        self._thread.join()
        for raw in self.opened:
            raw.close()


def test_row_1_ten_thousand_half_open_connections_from_one_address(fed: Federation) -> None:
    victim, late = fed[0], fed.late  # type: ignore[attr-defined]
    token = victim.ctl("invite").ok()["token"]
    before, held_before = rss_kib(victim.pid), sockets(victim.pid)
    with (
        Peak(lambda: rss_kib(victim.pid)) as memory,
        Peak(lambda: sockets(victim.pid)) as seats,
        Flood(door(victim), ["127.0.0.66"], 10_000) as flood,
    ):
        eventually(lambda: len(flood.opened) > 500, 10, "the flood has begun")
        start = time.monotonic()
        with Client(str(late.socket)) as client:
            client.request("POST", "/v1/federation/join", {"token": token})
        joined_s = time.monotonic() - start
        flood.join()
        held = sum(is_open(raw) for raw in flood.opened)
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
        eventually(lambda: len(flood.opened) > 500, 10, "the flood has begun")
        member.kill()
        member.start().wait_ready()
        start = time.monotonic()
        eventually(lambda: victim.states().get(member.name) == "alive", 20, "the member is back")
        eventually(lambda: member.states().get(victim.name) == "alive", 20, "and sees the victim")
        back_s = time.monotonic() - start
        flood.join()
        held = sum(is_open(raw) for raw in flood.opened)
    grown = memory.highest - before
    say(
        2,
        f"{len(flood.opened)} half-open connections in {flood.seconds:.1f} s from 256 addresses: {held} held "
        f"at the end, RSS +{grown} KiB; a member that restarted was back {back_s:.2f} s after it was ready",
    )
    assert held <= 64
    assert grown <= 8 * 1024
    assert back_s < 5.0


# ---- rows 3 and 4: slow and silent ---------------------------------------------------------


def test_rows_3_and_4_slow_handshakes_and_silence_after_one(fed: Federation) -> None:
    victim = fed[0]
    to = door(victim)
    held_before = sockets(victim.pid)
    silent = handshake(to)
    words = Dialer(["/noise"]).data_to_send() + b"\x00\x20" + bytes(32)
    slow = knock(to)
    start = time.monotonic()

    def drip() -> None:
        pause = threading.Event()
        with contextlib.suppress(OSError):
            for byte in words:
                slow.sendall(bytes([byte]))
                pause.wait(1.0)

    dripping = threading.Thread(target=drip, daemon=True)
    dripping.start()
    slow_s = seconds_until_closed(slow, 15.0)
    with contextlib.suppress(EOFError):
        while time.monotonic() - start < 30:
            silent.read(1.0)
    silent_s = time.monotonic() - start
    slow.close()
    silent.close()
    eventually(lambda: sockets(victim.pid) <= held_before, 5, "both seats are free again")
    say(3, f"one byte a second: closed after {slow_s:.1f} s")
    say(4, f"a handshake, then silence: closed after {silent_s:.1f} s, seat free")
    assert slow_s <= 11.0  # 10 s and a loaded machine
    assert silent_s <= 20.0


# ---- rows 5 and 6: sizes ---------------------------------------------------------------------


@pytest.mark.parametrize(("members", "streams", "bound_kib"), [(False, 16, 4096), (True, 256, 48 * 1024)])
def test_row_5_the_largest_frames_to_readers_that_stall(members: bool, streams: int, bound_kib: int) -> None:
    window = 256 * 1024
    with swarm_process(members=members, **FREE) as swarm:
        handshake(swarm.endpoint).close()  # what the first link costs once is not of this row
        swarm.settled(links=0)
        link = handshake(swarm.endpoint)
        before = rss_kib(swarm.pid)
        with Peak(lambda: rss_kib(swarm.pid)) as memory, contextlib.suppress(OSError, EOFError):
            for stream_id in range(1, 2 * streams, 2):
                link.open("/stall/1", stream_id)
                room = window - len(Dialer(["/stall/1"]).data_to_send())
                link.send(frame(DATA, 0, stream_id, room, bytes(room)))
            link.read(0.5)
        held = swarm.report()
        start = time.monotonic()
        with handshake(swarm.endpoint).raw:
            honest_s = time.monotonic() - start
        link.close()
    grown = memory.highest - before
    who = "member" if members else "stranger"
    say(
        5,
        f"{streams} windows of 256 KiB filled by a {who}, nobody reads: RSS +{grown} KiB, "
        f"{held['streams']} streams left, another's handshake took {honest_s * 1e3:.0f} ms",
    )
    assert grown <= bound_kib
    assert honest_s < 1.0


_LENGTHS = {
    "multistream 2^32-1": (encode_uvarint(2**32 - 1) + b"/noise\n", None),
    "multistream 0": (b"\x00\x00", None),
    "multistream cap+1": (encode_uvarint(1025) + bytes(1025), None),
    "noise 65535": (Dialer(["/noise"]).data_to_send() + b"\xff\xff" + bytes(4100), None),
    "noise 0": (Dialer(["/noise"]).data_to_send() + b"\x00\x00", None),
    "noise cap+1": (Dialer(["/noise"]).data_to_send() + (4097).to_bytes(2, "big") + bytes(4097), None),
    "yamux 2^32-1": (None, frame(DATA, SYN, 1, 2**32 - 1)),
    "yamux window+1": (None, frame(DATA, SYN, 1, 256 * 1024 + 1)),
    "yamux 2^32-1 to an unknown stream": (None, frame(DATA, 0, 99, 2**32 - 1)),
    "yamux window of 2^32-1": (None, frame(WINDOW, SYN, 1, 2**32 - 1)),
    "frame of 0": (None, b""),
    "another version": (None, b"\x01" + bytes(11)),
}


def test_row_6_lengths_that_lie(fed: Federation) -> None:
    with swarm_process(**FREE) as swarm:
        handshake(swarm.endpoint).close()
        swarm.settled(links=0)
        before = rss_kib(swarm.pid)
        slowest = 0.0
        for what, (plain, muxed) in _LENGTHS.items():
            start = time.monotonic()
            if plain is not None:
                raw = knock(swarm.endpoint)
                raw.sendall(plain)
                took = seconds_until_closed(raw, 5.0)
                raw.close()
            else:
                link = handshake(swarm.endpoint)
                if muxed:
                    link.send(muxed)
                else:
                    link.tap.sendall(b"\x00\x00")
                with contextlib.suppress(EOFError):
                    while time.monotonic() - start < 5:
                        link.read(0.5)
                took = time.monotonic() - start
                link.close()
            assert took < 4.0, what
            slowest = max(slowest, took)
        swarm.settled(links=0, pending=0)
        grown = rss_kib(swarm.pid) - before
    say(
        6,
        f"{len(_LENGTHS)} lengths that lie: all closed within {slowest * 1e3:.0f} ms, RSS +{grown} KiB",
    )
    assert grown <= 1024


# ---- rows 7 to 11: handshakes that are none ---------------------------------------------------


def _recorded(to: Endpoint) -> bytes:
    """What an honest dialler sends, with the first frame."""
    link = handshake(to)
    link.send(frame(PING, SYN, 0, 7))
    link.read(0.3)
    link.close()
    return bytes(link.tap.sent)


def _try(to: Endpoint, **change: Any) -> None:
    with contextlib.suppress(EOFError, OSError, FeddError):
        link = handshake(to, **change)
        try:
            link.send(frame(PING, SYN, 0, 7))
            link.raw.shutdown(socket.SHUT_WR)
            read_to_end(link.raw)
        finally:
            link.close()


def test_row_7_a_handshake_cut_at_every_byte() -> None:
    with swarm_process(**FREE) as swarm:
        length = len(_recorded(swarm.endpoint)) - 30  # the frame; its cuts are cut links
        swarm.settled(links=0)
        before, held, up = rss_kib(swarm.pid), sockets(swarm.pid), swarm.report()["up"]
        for cut in range(length):
            _try(swarm.endpoint, cut=cut)
        report = swarm.settled(links=0, pending=0, up=up)
        grown = rss_kib(swarm.pid) - before
        left = sockets(swarm.pid) - held
    say(
        7,
        f"cut at each of {length}: {report['errors']} tracebacks, {left} sockets more, RSS +{grown} KiB",
    )
    assert report["errors"] == 0
    assert left == 0
    assert grown <= 1024


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.long), 8])
def test_row_8_each_bit_flipped(every: int) -> None:
    with swarm_process(
        **FREE, handshake_s=2.0, pending_handshakes=4096, pending_handshakes_per_address=4096
    ) as swarm:
        length = len(_recorded(swarm.endpoint)) - 30
        swarm.settled(links=0)
        up = swarm.report()["up"]
        flips = [8 * byte + byte % 8 for byte in range(length)] if every == 8 else list(range(8 * length))
        for flip in flips:
            _try(swarm.endpoint, flip=flip)
        report = swarm.settled(links=0, pending=0)
        admitted = report["up"] - up
        link = handshake(swarm.endpoint)  # and of a frame behind a good handshake
        sealed = bytearray(link.transport.encrypt(frame(PING, SYN, 0, 7)))
        sealed[-1] ^= 1
        link.raw.sendall(sealed)
        closed = seconds_until_closed(link.raw, 5.0)
        link.close()
    say(
        8,
        f"{len(flips)} handshakes with one bit flipped: {admitted} admitted; a flipped frame ends its link",
    )
    assert admitted == 0
    assert report["errors"] == 0
    assert closed < 2.0


def test_row_9_replayed_handshakes_and_frames() -> None:
    with swarm_process(**FREE) as swarm:
        recorded = _recorded(swarm.endpoint)
        up = swarm.settled(links=0)["up"]
        for host in (None, "127.0.0.1"):
            raw = knock(swarm.endpoint, host)
            raw.sendall(recorded)
            assert seconds_until_closed(raw, 5.0) < 2.0
            raw.close()
        report = swarm.settled(links=0, pending=0)
        admitted = report["up"] - up
        link = handshake(swarm.endpoint)
        sealed = link.transport.encrypt(frame(PING, SYN, 0, 7))
        link.raw.sendall(sealed + sealed)
        closed_s = seconds_until_closed(link.raw, 5.0)
        link.close()
    say(
        9,
        f"a recorded handshake sent again: {admitted} admitted; a frame sent again: closed after "
        f"{closed_s * 1e3:.0f} ms",
    )
    assert admitted == 0
    assert closed_s < 2.0


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


def test_row_11_unknown_protocols_and_downgrades() -> None:
    with swarm_process(**FREE, handshake_s=2.0, negotiation_s=1.0) as swarm:
        refused = 0
        for protocol in ("/plaintext/2.0.0", "/secio/1.0.0", "/tls/1.0.0", "/noise/../plaintext", "/noise2"):
            raw = knock(swarm.endpoint)
            dialer = Dialer([protocol])
            raw.sendall(dialer.data_to_send())
            raw.shutdown(socket.SHUT_WR)
            answer = read_to_end(raw)
            raw.close()
            assert answer.endswith(b"\x03na\n"), (protocol, answer)
            refused += 1
        others = (
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"SSH-2.0-x\r\n",
        )
        foreign = [knock(swarm.endpoint) for _ in others]
        for raw, words in zip(foreign, others, strict=True):
            raw.sendall(words)
        for raw, words in zip(foreign, others, strict=True):  # some wait for more of it, but not for long
            assert seconds_until_closed(raw, 6.0) < 4.0, words
            raw.close()
            refused += 1
        link = handshake(swarm.endpoint, muxers=("/mplex/6.7.0",))  # nothing here but yamux
        words = Dialer(["/mplex/6.7.0"]).data_to_send()
        link.tap.sendall(link.transport.encrypt(words))
        assert link.read(0.5).endswith(b"\x03na\n")
        link.close()
        link = handshake(swarm.endpoint)  # a protocol for members, asked for by a stranger
        link.open("/fedd/runs/1.0.0", 1)
        answered = link.read(0.5)
        assert b"\x03na\n" in answered
        link.close()
        refused += 2
        report = swarm.settled(links=0, pending=0)
    say(11, f"{refused} unknown protocols and downgrades: all refused, {report['errors']} errors")
    assert report["errors"] == 0


# ---- rows 12 and 13: too many -----------------------------------------------------------------


@pytest.mark.parametrize(("members", "cap"), [(False, 16), (True, 256)])
def test_row_12_ten_thousand_streams_on_a_link(members: bool, cap: int) -> None:
    with swarm_process(members=members, **FREE) as swarm:
        other = handshake(swarm.endpoint)
        link = handshake(swarm.endpoint)
        before = rss_kib(swarm.pid)
        answers = b""
        with Peak(lambda: rss_kib(swarm.pid)) as memory:
            for start in range(0, 10_000, 500):
                link.send(
                    b"".join(frame(WINDOW, SYN, 2 * number + 1, 0) for number in range(start, start + 500))
                )
                with contextlib.suppress(EOFError):
                    answers += link.read(0.02)
        answers += link.read(0.5)
        reset = sum(1 for kind, flags, *_ in frames(answers) if kind == WINDOW and flags & RST)
        taken = sum(1 for kind, flags, *_ in frames(answers) if flags & ACK and kind != PING)
        alive = swarm.report()["streams"]
        other.open("/ipfs/ping/1.0.0", 1, bytes(32))
        echoed = other.read(0.5)
        link.close()
        other.close()
    grown = memory.highest - before
    say(
        12,
        f"10,000 streams on a link: {alive} live, {reset} reset, RSS +{grown} KiB; another link is served",
    )
    assert alive <= cap
    assert reset >= 10_000 - taken
    assert bytes(32) in echoed
    assert grown <= 8 * 1024


def test_row_12_the_cap_holds_in_a_daemon_too(fed: Federation) -> None:
    link = handshake(door(fed[0]))
    link.send(b"".join(frame(WINDOW, SYN, 2 * number + 1, 0) for number in range(500)))
    answers = link.read(0.5)
    reset = sum(1 for kind, flags, *_ in frames(answers) if kind == WINDOW and flags & RST)
    assert reset >= 500 - 16
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


# ---- row 14: random frames ---------------------------------------------------------------------


@pytest.mark.parametrize("count", [100_000, pytest.param(10_000_000, marks=pytest.mark.long)])
def test_row_14_random_frames(count: int) -> None:
    script = Path(__file__).with_name("random_frames.py")
    output = subprocess.run(
        [sys.executable, str(script), str(count)], capture_output=True, text=True, timeout=3600, check=False
    )
    assert output.returncode == 0, output.stderr
    numbers = json.loads(output.stdout)
    say(
        14,
        f"{numbers['frames']:,} random frames: {numbers['refused']:,} sessions ended by the protocol error, "
        f"{numbers['other']} by anything else, RSS +{numbers['rss_kib']} KiB after the first tenth",
    )
    assert numbers["other"] == 0
    assert numbers["refused"] > 0
    assert numbers["rss_kib"] <= 1024


def test_row_14_random_bytes_at_the_door() -> None:
    """Also through the sockets, of which a hundred are as good as any number."""
    rng = random.Random(14)
    with swarm_process(**FREE, handshake_s=2.0) as swarm:
        for _ in range(60):
            raw = knock(swarm.endpoint)
            with contextlib.suppress(OSError):
                raw.sendall(rng.randbytes(rng.randrange(1, 3000)))
                raw.shutdown(socket.SHUT_WR)
            read_to_end(raw)
            raw.close()
        for _ in range(20):
            link = handshake(swarm.endpoint)
            with contextlib.suppress(OSError, EOFError):
                link.send(rng.randbytes(rng.randrange(1, 3000)))
                link.raw.shutdown(socket.SHUT_WR)
                read_to_end(link.raw)
            link.close()
        report = swarm.settled(links=0, pending=0)
    assert report["errors"] == 0
