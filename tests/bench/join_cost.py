"""What a join costs: N whole daemons in one process, over TCP on the loopback, and their processor time.

    python tests/bench/join_cost.py                    # thirty, three times
    python tests/bench/join_cost.py --nodes 10 --leaves 5

Needs no root. Thirty daemons on two processors do nothing but compute, so what other programs take of those
would be most of a measurement of wall time. Here time is what the processes computed, divided by
`--processors`, and what they waited for others. A fast disk is assumed: waiting for it counts for nothing.
Multicast reaches everybody in both families, as on a network. Prints one JSON line a trial:
`all_see_all_s` in that time, `cpu_s` of all together, what came in and went out a daemon.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fedd.api.types import PeerId
from fedd.config import load
from fedd.control.listener import open_control_socket
from fedd.core.exchange import Exchange
from fedd.core.own_record import OwnRecord
from fedd.core.verdicts import MemberChange
from fedd.daemon import Daemon
from fedd.net.interfaces import Interface
from fedd.net.presence_link import PresenceLink
from fedd.net.swarm import Swarm
from fedd.notify import Notifier
from fedd.state import StateDirectory

PORT = 4747
PAUSE_S = 3.0
HEARD: Counter[str] = Counter()
"""How often everybody together did what is counted."""


class ProcessorClock(trio.abc.Clock, trio.abc.Instrument):
    """Goes on by what this process computes, shared by so many processors, and by what it waits for."""

    def __init__(self, processors: float) -> None:
        self._processors = processors
        self._idle_s = self._begun_s = self._waits_from_s = self._most_s = 0.0

    def start_clock(self) -> None:
        """Begin."""
        self._begun_s = time.process_time()

    def current_time(self) -> float:
        """Seconds."""
        return 1000 + (time.process_time() - self._begun_s) / self._processors + self._idle_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """How long to wait for it."""
        return max(0.0, deadline - self.current_time())

    def before_io_wait(self, timeout: float) -> None:
        """A wait begins."""
        self._waits_from_s, self._most_s = time.monotonic(), timeout

    def after_io_wait(self, timeout: float) -> None:
        """It has ended; the rest of it was other programs' time."""
        self._idle_s += min(time.monotonic() - self._waits_from_s, self._most_s)


class Multicast:
    """A network on which everybody hears everybody, themselves included, in both families."""

    def __init__(self) -> None:
        self._ears: list[trio.MemorySendChannel[bytes]] = []

    def ear(self) -> Lan:
        """Another device's part of it."""
        send, receive = trio.open_memory_channel[bytes](10_000)
        self._ears.append(send)
        return Lan(self, receive)

    def tell(self, data: bytes) -> None:
        """Let everybody hear it."""
        for ear in itertools.chain(self._ears, self._ears):
            ear.send_nowait(data)


class Lan:
    """See `fedd.net.multicast.Lan`; the one interface has the index 1."""

    def __init__(self, multicast: Multicast, ear: trio.MemoryReceiveChannel[bytes]) -> None:
        self._multicast = multicast
        self._ear = ear

    def use(self, wanted: list[Interface]) -> list[str]:
        """Nothing can go wrong."""
        return []

    def send(self, index: int, data: bytes) -> None:
        """Send to everybody."""
        self._multicast.tell(data)

    async def run(self, heard: Callable[[int, bytes], None]) -> None:
        """Hear."""
        async for data in self._ear:
            HEARD["multicast_heard"] += 1
            heard(1, data)


class Counted(Daemon):
    """A daemon without plugins, which shares its process with others."""

    async def _receive_signals(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()

    async def _load_plugins(self) -> None:
        pass


def count(owner: type, method: str, name: str, by: Callable[..., int] = lambda *_: 1) -> None:
    """Count calls of a method."""
    original = getattr(owner, method)

    def counted(self: object, *args: object, **options: object) -> object:
        HEARD[name] += by(*args)
        return original(self, *args, **options)

    setattr(owner, method, counted)


def make(place: int, root: Path, multicast: Multicast) -> Counted:
    """A daemon at an address of its own."""
    host = f"127.0.0.{place + 1}"
    config = load(None, {"name": f"n{place + 1}", "listen": [f"/ip4/{host}/tcp/{PORT}"], "connect": []})
    state = StateDirectory(str(root / config.name))
    daemon = Counted(config, lambda: config, state, state.load_or_create_identity(None), Notifier(""))
    assert daemon.discovery is not None
    daemon.discovery._lan = multicast.ear()
    daemon.own_addresses._look = lambda: [Interface("eth0", 1, False, True, (host,))]
    return daemon


async def noticed(daemons: list[Counted], peers: list[PeerId], state: str) -> float:
    """When the last of the daemons had come to think so of all these peers, itself excepted."""
    at: dict[int, float] = {}
    over = trio.Event()

    def watch(place: int, daemon: Counted) -> Callable[[MemberChange], None]:
        others = [peer for peer in peers if peer != daemon.swarm.peer_id]

        def changed(change: MemberChange) -> None:
            if all(daemon.presence.state_of(peer) == state for peer in others):
                at.setdefault(place, trio.current_time())
                if len(at) == len(daemons):
                    over.set()
            elif not over.is_set():
                at.pop(place, None)

        return changed

    for place, daemon in enumerate(daemons):
        daemon.presence.subscribe(watch(place, daemon))
    await over.wait()
    return max(at.values())


async def join(daemons: list[Counted], trial: int) -> dict[str, object]:
    """All but one join that one at once, until all see all."""
    first, *others = daemons
    first.admission.init(f"bench{trial}")
    token = first.admission.invite(1000, 3600).token
    HEARD.clear()
    begun_s, spent_s = trio.current_time(), time.process_time()
    peers = [daemon.swarm.peer_id for daemon in daemons]
    async with trio.open_nursery() as nursery:
        for other in others:
            nursery.start_soon(other.admission.join, token, 60.0)
        ended_s = await noticed(daemons, peers, "alive")
    links = statistics.mean(len(daemon.presence._table.links) for daemon in daemons)
    return {
        "case": "join",
        "nodes": len(daemons),
        "all_see_all_s": round(ended_s - begun_s, 3),
        "cpu_s": round(time.process_time() - spent_s, 2),
        "links": round(links, 1),
        **{name: round(number / len(daemons), 1) for name, number in sorted(HEARD.items())},
    }


async def leave(daemons: list[Counted]) -> dict[str, object]:
    """The last one leaves, until all others say so; it comes back."""
    *others, last = daemons
    begun_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(last.admission.leave)
        ended_s = await noticed(others, [last.swarm.peer_id], "left")
    await trio.sleep(PAUSE_S)
    await last.admission.join(daemons[0].admission.invite(1, 60).token, 20.0)
    await trio.sleep(PAUSE_S)
    return {"case": "leave", "nodes": len(daemons), "seen_by_all_s": round(ended_s - begun_s, 4)}


async def run(nodes: int, trials: int, leaves: int, root: Path) -> None:
    """All trials."""
    multicast = Multicast()
    daemons = [make(place, root, multicast) for place in range(nodes)]
    async with trio.open_nursery() as nursery:
        for daemon in daemons:
            socket = open_control_socket(str(root / daemon.config.name / "fedd.sock"))
            await nursery.start(daemon.run, [socket])
        for trial in range(trials):
            await trio.sleep(PAUSE_S)
            print(json.dumps(await join(daemons, trial)), flush=True)
            if trial == trials - 1:
                break
            async with trio.open_nursery() as leaving:
                for daemon in daemons:
                    leaving.start_soon(daemon.admission.leave)
        await trio.sleep(4 * PAUSE_S if leaves else 0)
        for _ in range(leaves):
            print(json.dumps(await leave(daemons)), flush=True)
        nursery.cancel_scope.cancel()


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=30, metavar="N")
    parser.add_argument("--trials", type=int, default=3, metavar="N")
    parser.add_argument("--leaves", type=int, default=0, metavar="N")
    parser.add_argument("--processors", type=float, default=2.0, metavar="N")
    options = parser.parse_args()
    count(Exchange, "accept", "records_in", lambda rows, *_: len(rows))
    count(OwnRecord, "publish", "versions")
    count(PresenceLink, "send", "messages_out")
    count(Swarm, "dial", "dials")
    root = Path(tempfile.mkdtemp(prefix="fedd-"))
    clock = ProcessorClock(options.processors)
    try:
        trio.run(run, options.nodes, options.trials, options.leaves, root, clock=clock, instruments=[clock])
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
