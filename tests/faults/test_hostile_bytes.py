"""What hostile peers send: sizes, cuts, flipped bits, replays, downgrades. Each prints its number.

Against the links alone, in a process of their own. The rows are those of docs/explanation/security.md.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faults.hostile import (
    ACK,
    DATA,
    FREE,
    PING,
    RST,
    SYN,
    WINDOW,
    Endpoint,
    Peak,
    frame,
    frames,
    handshake,
    knock,
    read_to_end,
    rss_kib,
    say,
    sockets,
    swarm_process,
    wait_closed,
)
from federation.processor import Stopwatch

from fedd.api.errors import FeddError
from fedd.core.multistream import Dialer
from fedd.core.varint import encode_uvarint

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
            link.read(0.5)  # what it has to say to that, which may be nothing
        held = swarm.report()
        watch = Stopwatch(swarm.pid)
        with handshake(swarm.endpoint).raw:
            honest_s = watch.seconds()
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


def test_row_6_lengths_that_lie() -> None:
    with swarm_process(**FREE) as swarm:
        handshake(swarm.endpoint).close()
        swarm.settled(links=0)
        before = rss_kib(swarm.pid)
        slowest = 0.0
        for what, (plain, muxed) in _LENGTHS.items():
            watch = Stopwatch(swarm.pid)
            if plain is not None:
                raw = knock(swarm.endpoint)
                raw.sendall(plain)
                wait_closed(raw)
                took = watch.seconds()
                raw.close()
            else:
                link = handshake(swarm.endpoint)
                if muxed:
                    link.send(muxed)
                else:
                    link.tap.sendall(b"\x00\x00")
                wait_closed(link.raw)
                took = watch.seconds()
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
    link.read_until(lambda plaintext: any(kind == PING for kind, *_ in frames(plaintext)))
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
        watch = Stopwatch(swarm.pid)
        link.raw.sendall(sealed)
        wait_closed(link.raw)
        closed = watch.seconds()
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
            watch = Stopwatch(swarm.pid)
            raw.sendall(recorded)
            wait_closed(raw)
            assert watch.seconds() < 2.0
            raw.close()
        report = swarm.settled(links=0, pending=0)
        admitted = report["up"] - up
        link = handshake(swarm.endpoint)
        sealed = link.transport.encrypt(frame(PING, SYN, 0, 7))
        watch = Stopwatch(swarm.pid)
        link.raw.sendall(sealed + sealed)
        wait_closed(link.raw)
        closed_s = watch.seconds()
        link.close()
    say(
        9,
        f"a recorded handshake sent again: {admitted} admitted; a frame sent again: closed after "
        f"{closed_s * 1e3:.0f} ms",
    )
    assert admitted == 0
    assert closed_s < 2.0


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
        watch = Stopwatch(swarm.pid)
        for raw, words in zip(foreign, others, strict=True):
            raw.sendall(words)
        for raw, words in zip(foreign, others, strict=True):  # some wait for more of it, but not for long
            wait_closed(raw)
            assert watch.seconds() < 4.0, words
            raw.close()
            refused += 1
        link = handshake(swarm.endpoint, muxers=("/mplex/6.7.0",))  # nothing here but yamux
        words = Dialer(["/mplex/6.7.0"]).data_to_send()
        link.tap.sendall(link.transport.encrypt(words))
        assert link.read_until(lambda plaintext: plaintext.endswith(b"\x03na\n"))
        link.close()
        link = handshake(swarm.endpoint)  # a protocol for members, asked for by a stranger
        link.open("/fedd/runs/1.0.0", 1)
        assert link.read_until(lambda plaintext: b"\x03na\n" in plaintext)
        link.close()
        refused += 2
        report = swarm.settled(links=0, pending=0)
    say(11, f"{refused} unknown protocols and downgrades: all refused, {report['errors']} errors")
    assert report["errors"] == 0


# ---- row 12: too many -----------------------------------------------------------------


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

        def reset_and_taken(answers: bytes) -> tuple[int, int]:
            kinds = [(kind, flags) for kind, flags, *_ in frames(answers)]
            reset = sum(1 for kind, flags in kinds if kind == WINDOW and flags & RST)
            return reset, sum(1 for kind, flags in kinds if flags & ACK and kind != PING)

        answers += link.read_until(lambda more: sum(reset_and_taken(answers + more)) >= 10_000)
        reset, taken = reset_and_taken(answers)
        alive = swarm.report()["streams"]
        other.open("/ipfs/ping/1.0.0", 1, bytes(32))
        echoed = other.read_until(lambda plaintext: bytes(32) in plaintext)
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
