"""Do heartbeats wait behind bulk data? Pings beside bulk streams, on loopback and on a narrow link.

    python tests/bench/fairness.py [--seconds 10] [--rate 10mbit]

Two processes, one connection. Prints one JSON line for each case, with its targets; exits 1 when one is
missed. The narrow link is a pair of network namespaces joined by a veth pair that tbf shapes in both
directions, which takes root, `ip` and `tc`: elsewhere its cases say why they are skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from fedd.core.identity import PrivateKey
from fedd.net.ping import PAYLOAD_BYTES, serve_ping
from fedd.net.ping import PROTOCOL as PING
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm

SINK, COUNT = "/bench/sink/1.0.0", "/bench/count/1.0.0"
BLOCK_BYTES = 256 * 1024
INTERVAL_S = 0.005
WARM_UP_S = 2.0
"""Windows and TCP find their size; not measured."""

TBF_BURST, TBF_LATENCY = "16kb", "50ms"
"""A queue of 50 ms, as a home router has: it is a part of every ping beside bulk data."""


@dataclass(frozen=True)
class Case:
    """What runs beside the pings, and what must hold. Times in milliseconds, None: not judged."""

    name: str
    bulk_streams: int
    pings: bool
    p50_ms: float | None = None
    p99_ms: float | None = None
    of_alone: float | None = None
    """The least share of the rate that the bulk streams have without pings."""
    spread: float | None = None
    """By how much any stream's share may differ from an equal one."""


LOOPBACK = (
    Case("loopback, idle", 0, True),
    Case("loopback, bulk beside pings", 1, True, p99_ms=5.0),
    Case("loopback, eight bulk streams beside pings", 8, True, spread=0.1),
)
NARROW = (
    Case("narrow, idle", 0, True),
    Case("narrow, bulk alone", 1, False),
    Case("narrow, bulk beside pings", 1, True, p50_ms=80.0, p99_ms=250.0, of_alone=0.95),
    Case("narrow, eight bulk streams beside pings", 8, True, p50_ms=80.0, p99_ms=250.0, spread=0.1),
)


# ---- the two ends -----------------------------------------------------------------------------


async def serve(address: str) -> None:
    """Swallow bulk data and say how much there was of each stream; until stdin ends."""
    swarm = Swarm(PrivateKey.from_seed(b"s" * 32))
    swarm.member_check = lambda peer_id: True
    received: list[int] = []

    async def sink(stream: Stream) -> None:
        place = len(received)
        received.append(0)
        while data := await stream.receive_some():
            received[place] += len(data)

    async def count(stream: Stream) -> None:
        while await stream.receive_some(1):
            answer = json.dumps({"at_s": trio.current_time(), "bytes": received}).encode()
            await stream.send_all(len(answer).to_bytes(4, "big") + answer)

    swarm.handle(SINK, sink)
    swarm.handle(COUNT, count)
    serve_ping(swarm)
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        print((await swarm.listen(address))[0], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


async def measure(address: str, bulk_streams: int, pings: bool, seconds: float) -> dict[str, Any]:
    """Run one case from the dialling end."""
    swarm = Swarm(PrivateKey.from_seed(b"c" * 32))
    found: dict[str, Any] = {}
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        peer_id = (await swarm.dial([address])).peer_id
        streams = [await swarm.open_stream(peer_id, SINK) for _ in range(bulk_streams)]
        counter = await swarm.open_stream(peer_id, COUNT)
        for stream in streams:
            nursery.start_soon(_send_for_ever, stream)
        await trio.sleep(WARM_UP_S)
        before = await _count(counter)
        if pings:
            times_ms = sorted([time_s * 1000 for time_s in await _pings(swarm, peer_id, seconds)])
            found["pings"] = len(times_ms)
            found["p50_ms"] = round(statistics.median(times_ms), 3)
            found["p99_ms"] = round(times_ms[int(len(times_ms) * 0.99)], 3)
        else:
            await trio.sleep(seconds)
        after = await _count(counter)
        took_s = after["at_s"] - before["at_s"]
        each = [late - early for early, late in zip(before["bytes"], after["bytes"], strict=True)]
        each = each[-bulk_streams:] if bulk_streams else []  # those before are of earlier cases
        found["mb_per_s"] = round(sum(each) / took_s / 1e6, 3)
        if len(each) > 1:
            share = sum(each) / len(each)
            found["spread"] = round(max(abs(one - share) for one in each) / share, 3)
        nursery.cancel_scope.cancel()
    return found


async def _pings(swarm: Swarm, peer_id: str, seconds: float) -> list[float]:
    """Round trips, in seconds, of small messages on a stream of their own, at most 200 in a second."""
    stream = await swarm.open_stream(peer_id, PING)
    times = []
    end = trio.current_time() + seconds
    while (sent_at := trio.current_time()) < end:
        with trio.fail_after(10):
            await stream.send_all(bytes(PAYLOAD_BYTES))
            await stream.receive_exactly(PAYLOAD_BYTES)
        times.append(trio.current_time() - sent_at)
        await trio.sleep_until(sent_at + INTERVAL_S)
    await stream.aclose()
    return times


async def _send_for_ever(stream: Stream) -> None:
    block = bytes(BLOCK_BYTES)
    with contextlib.suppress(trio.BrokenResourceError):  # the connection ends with the measurement
        while True:
            await stream.send_all(block)


async def _count(counter: Stream) -> dict[str, Any]:
    await counter.send_all(b"?")
    size = int.from_bytes(await counter.receive_exactly(4), "big")
    found: dict[str, Any] = json.loads(await counter.receive_exactly(size))
    return found


# ---- where they run ---------------------------------------------------------------------------


def why_no_narrow_link() -> str | None:
    """What keeps this process from making network namespaces with a shaped link, None if nothing does."""
    missing = [name for name in ("ip", "tc") if shutil.which(name) is None]
    if missing:
        return f"needs {' and '.join(missing)} (iproute2)"
    if os.geteuid() != 0:
        return "needs root"
    return None


@contextlib.contextmanager
def narrow_link(rate: str) -> Iterator[tuple[list[str], list[str], str]]:
    """Two namespaces with a shaped link between them.

    Gives the prefixes of commands that run in them, and the first one's IPv4 address.
    """
    names = [f"fedd-fair-{os.getpid()}-{end}" for end in "ab"]
    made: list[str] = []

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip(
            "link",
            "add",
            "fair0",
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            "fair0",
            "netns",
            names[1],
        )
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.87.0.{number}/24", "dev", "fair0")
            ip("-n", name, "link", "set", "fair0", "up")
            shape = ["tc", "qdisc", "add", "dev", "fair0", "root", "tbf", "rate", rate]
            shape += ["burst", TBF_BURST, "latency", TBF_LATENCY]
            subprocess.run(["ip", "netns", "exec", name, *shape], check=True, capture_output=True, text=True)
        yield ["ip", "netns", "exec", names[0]], ["ip", "netns", "exec", names[1]], "10.87.0.1"
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def run_cases(
    cases: Sequence[Case],
    seconds: float,
    here: Sequence[str] = (),
    there: Sequence[str] = (),
    host: str = "127.0.0.1",
) -> bool:
    """Run the cases between two new processes, print their figures, and say whether all targets are met."""
    me = [sys.executable, str(Path(__file__).resolve())]
    server = subprocess.Popen(
        [*there, *me, "--serve", f"/ip4/{host}/tcp/0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    good = True
    alone = 0.0
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        for case in cases:
            wish = json.dumps([address, case.bulk_streams, case.pings, seconds])
            done = subprocess.run(
                [*here, *me, "--measure", wish],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                timeout=seconds + 60,
            )
            found = json.loads(done.stdout)
            if case.of_alone is not None:
                found["of_alone"] = round(found["mb_per_s"] / alone, 3)
            elif not case.pings:
                alone = found["mb_per_s"]
            met = meets(case, found)
            good &= met
            wanted = {
                name: value
                for name, value in asdict(case).items()
                if value is not None and name not in ("name", "bulk_streams", "pings")
            }
            print(json.dumps({"case": case.name, **found, "target": wanted, "met": met}), flush=True)
    finally:
        server.communicate()
    return good


def meets(case: Case, found: dict[str, Any]) -> bool:
    """Whether the figures reach the case's targets."""
    return (
        (case.p50_ms is None or found["p50_ms"] <= case.p50_ms)
        and (case.p99_ms is None or found["p99_ms"] <= case.p99_ms)
        and (case.of_alone is None or found["of_alone"] >= case.of_alone)
        and (case.spread is None or found["spread"] <= case.spread)
    )


def main() -> int:
    """Entry point; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each case is measured")
    parser.add_argument("--rate", default="10mbit", help="of the narrow link, as tc writes it")
    parser.add_argument("--only", choices=("loopback", "narrow"), help="leave the other cases out")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        trio.run(serve, options.serve)
        return 0
    if options.measure:
        found: dict[str, Any] = trio.run(measure, *json.loads(options.measure))
        print(json.dumps(found))
        return 0
    good = True
    if options.only != "narrow":
        good &= run_cases(LOOPBACK, options.seconds)
    if options.only != "loopback":
        if reason := why_no_narrow_link():
            print(json.dumps({"case": "narrow", "skipped": reason}))
        else:
            with narrow_link(options.rate) as (there, here, host):
                good &= run_cases(NARROW, options.seconds, here, there, host)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
