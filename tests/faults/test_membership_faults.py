"""What real daemons say of each other when one pauses, packets get lost, clocks are wrong, or all reboot.

A few trials each; `pytest -m long` makes twenty, and loses packets for five minutes. Figures beside those of
another system: tests/bench/membership.py.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from federation.clock import set_clock
from federation.daemons import GUARD_S, Daemon, Federation, federation
from federation.network import networked_federation, why_no_network
from federation.processor import Stopwatch
from federation.watching import Watch, watching
from net.federations import all_alive, nodes
from waiting import until

from fedd.control.client import Client

REBOOT_S = 10.0
YEAR_S = 366 * 86_400
LEAST_SILENCE_S = 5.2
"""From when a member is frozen until it is called dead, at least: its last heartbeat may be a second old."""
CLOCK = Path(__file__).parent.parent / "federation" / "clock.py"
NO_NETWORK = why_no_network()


@pytest.fixture(scope="module")
def fed() -> Iterator[Federation]:
    with federation(4) as found:
        yield found


@pytest.fixture(scope="module")
def watch(fed: Federation) -> Iterator[Watch]:
    with watching(fed) as found:
        yield found


def pause(daemon: Daemon, seconds: float) -> tuple[float, float]:
    """Stop a process for so long; when it was stopped and when it went on (monotonic)."""
    start_s = time.monotonic()
    daemon.signal(signal.SIGSTOP)
    time.sleep(seconds)
    daemon.signal(signal.SIGCONT)
    return start_s, time.monotonic()


def tolerate(fed: Federation, watch: Watch, seconds: float, trials: int) -> None:
    """Pause one after the other: nobody is called dead, no other's state changes, soon all see all."""
    for trial in range(trials):
        paused = fed[trial % len(fed)]
        start_s, woken_s = pause(paused, seconds)
        paused_s = woken_s - start_s  # this process may have been kept waiting too
        busy = Stopwatch(*(daemon.pid for daemon in fed))
        watch.wait_full(GUARD_S)
        others_load_s = time.monotonic() - woken_s - busy.seconds()
        silent_s = paused_s + others_load_s
        time.sleep(1.5)  # for a verdict that comes late
        seen = watch.since(start_s)
        assert silent_s > LEAST_SILENCE_S or not [one for one in seen if one.state == "dead"]
        assert not [one for one in seen if one.member != paused.name], "somebody else was harmed"
        assert max((one.at_s for one in seen), default=woken_s) - woken_s - others_load_s < 1.0


def called_dead(fed: Federation, watch: Watch, seconds: float, trials: int) -> int:
    """Pause one after the other: how often all others called it dead."""
    count = 0
    for trial in range(trials):
        paused = fed[trial % len(fed)]
        start_s, _ = pause(paused, seconds)
        watch.wait_full(GUARD_S)
        seen = watch.since(start_s)
        assert not [one for one in seen if one.state == "dead" and one.member != paused.name]
        dead = {one.observer for one in seen if one.state == "dead"}
        count += len(dead) == len(fed) - 1
        time.sleep(1.0)
    return count


@pytest.mark.slow
def test_a_pause_of_five_seconds_is_no_death(fed: Federation, watch: Watch) -> None:
    tolerate(fed, watch, 5.0, 2)


@pytest.mark.slow
def test_a_pause_of_eight_seconds_is_one(fed: Federation, watch: Watch) -> None:
    frozen, *others = fed
    load = Stopwatch(*(daemon.pid for daemon in others))
    frozen.signal(signal.SIGSTOP)
    try:
        watch.wait_dead(frozen.name, GUARD_S)
        assert load.seconds() < 8.0
    finally:
        frozen.signal(signal.SIGCONT)
    watch.wait_full(GUARD_S)


@pytest.mark.slow
def test_a_frozen_peer_harms_nobody_else(fed: Federation, watch: Watch) -> None:
    tolerate(fed, watch, 3.0, 1)


@pytest.mark.long
def test_twenty_pauses(fed: Federation, watch: Watch) -> None:
    tolerate(fed, watch, 5.0, 20)
    assert called_dead(fed, watch, 8.0, 20) >= 18
    for seconds in (3.0, 8.0, 30.0):
        tolerate(fed, watch, seconds, 2)


def survive_loss(percent: float, seconds: float) -> None:
    """Lose packets of five members: nobody is called dead."""
    with networked_federation(5) as (lan, fed), watching(fed) as watch:
        start_s = time.monotonic()
        lan.lose(percent)
        time.sleep(seconds)
        assert not [one for one in watch.since(start_s) if one.state == "dead"]
        lan.restore()
        watch.wait_full(GUARD_S)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(NO_NETWORK is not None, reason=NO_NETWORK or "")
def test_lost_packets_kill_nobody() -> None:
    survive_loss(20, 15.0)


@pytest.mark.root
@pytest.mark.long
@pytest.mark.skipif(NO_NETWORK is not None, reason=NO_NETWORK or "")
def test_five_minutes_of_lost_packets_kill_nobody() -> None:
    survive_loss(20, 300.0)


@pytest.mark.slow
def test_a_wall_clock_off_by_a_year_changes_nothing() -> None:
    with federation(2) as fed:
        clock = fed.root / "clock"
        set_clock(clock, 0)
        third = fed.add("n2")
        third.program = (str(CLOCK), str(clock))
        third.start().wait_ready().wait_plugins()
        token = fed[0].ctl("invite").ok()["token"]
        third.ctl("join", token).ok()
        fed.set_inputs([1.0, 2.0, 6.0])
        with watching(fed) as watch:
            start_s = time.monotonic()
            for offset_s in (YEAR_S, -YEAR_S):
                set_clock(clock, offset_s)
                time.sleep(3.0)
                result = third.ctl("run", "consensus", "--input", "x").ok()
                assert result["state"] == "finished"
                wait_for_stamp(third, time.time() + offset_s)
            assert not watch.since(start_s)


def wait_for_stamp(daemon: Daemon, unix_s: float) -> None:
    """Return when the daemon has told of an event with that date, give or take a minute."""
    with Client(str(daemon.socket)) as client:
        for event in client.stream("GET", "/v1/events", query={"since": "0"}):
            if event["kind"] == "run" and abs(event["unix_s"] - unix_s) < 60:
                return


async def reboot(count: int) -> float:
    """Reboot that many members over real TCP together; how long from the first start until all see all."""
    async with nodes(count, memory=False) as members, trio.open_nursery() as nursery:
        members[0].admission.init("plant7")
        token = members[0].admission.invite(uses=count).token
        for member in members[1:]:
            await member.admission.join(token)
        await until(lambda: all_alive(members), 2 * GUARD_S)
        await trio.sleep(2.0)  # what each knows is on disk
        for member in members:
            member.kill()
        await trio.sleep(0.5)  # until their ports are free
        watch = Stopwatch()
        for member in members:
            await member.start(nursery)
        await until(lambda: all_alive(members), 2 * GUARD_S)
        took_s = watch.seconds()
        nursery.cancel_scope.cancel()
        return took_s


@pytest.mark.slow
async def test_24_members_that_reboot_together_are_back_in_ten_seconds() -> None:
    """All of them on one processor, where 24 devices have 24; three times when others slow it down."""
    took_s = await reboot(24)
    for _ in range(2):
        if took_s > REBOOT_S:
            took_s = min(took_s, await reboot(24))
    print(f"24 members that reboot together, in one process: all see all alive within {took_s:.1f} s")
    assert took_s <= REBOOT_S


@pytest.mark.long
def test_24_daemons_that_reboot_together_are_back_in_ten_seconds() -> None:
    """From the moment when the last of them is ready: 24 starts share the processors of one machine."""
    with federation(24) as fed:
        time.sleep(3.0)
        for daemon in fed:
            daemon.kill()
        for daemon in fed:
            daemon.start()
        for daemon in fed:
            daemon.wait_ready()
        start_s = time.monotonic()
        with watching(fed):
            took_s = time.monotonic() - start_s
        print(f"24 daemons: all see all alive {took_s:.2f} s after the last was ready")
        assert took_s <= REBOOT_S
