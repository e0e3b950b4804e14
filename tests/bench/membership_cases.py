"""What is done to the members, and what is measured. Both systems suffer the same fault at the same time."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from federation.clock import set_clock
from federation.network import Network
from membership_systems import Fedd, System
from membership_views import Change
from processes import rss_bytes

YEAR_S = 366 * 86_400
DETECT_S = 45.0
"""A death that some survivor has not noticed by then counts as missed."""
FULL_S = 120.0
"""Serf looks for members that failed every 30 s, one at a time."""

WARM_UP = 3
"""Broadcasts that are not measured: the first find the ways that they take cold."""

Figures = dict[str, Any]


@dataclass
class Bench:
    """A network with both systems on it, everybody a member."""

    lan: Network
    systems: Sequence[System]
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    @property
    def count(self) -> int:
        """How many members."""
        return len(self.lan)

    def settle(self) -> None:
        """Return when everybody sees everybody alive, in both systems, and nothing moves."""
        for system in self.systems:
            for place in range(self.count):
                if not system.views.full():
                    system.help_home(place)
            if not system.views.wait(system.views.full, FULL_S):
                raise RuntimeError(f"{system.name} does not come together again: {missing(system)}")
        time.sleep(1.0)

    def pick(self, number: int) -> list[int]:
        """Places of different members."""
        return self.rng.sample(range(self.count), number)


def missing(system: System) -> str:
    """Who does not see whom alive."""
    lines = [
        f"{one} thinks {other} {system.views._states[one].get(other)}"
        for one in system.names
        for other in system.names
        if one != other and system.views._states[one].get(other) != "alive"
    ]
    return f"{len(lines)} views: " + ", ".join(lines[:8])


def spread(times_s: Sequence[float | None]) -> Figures:
    """The figures of some durations, None being one that did not end."""
    good = sorted(one for one in times_s if one is not None)
    if not good:
        return {"trials": len(times_s), "missed": len(times_s), "p50_s": None}
    return {
        "trials": len(times_s),
        "missed": len(times_s) - len(good),
        "p50_s": round(statistics.median(good), 4),
        "p90_s": round(good[min(len(good) - 1, int(len(good) * 0.9))], 4),
        "max_s": round(good[-1], 4),
    }


def all_say_dead(system: System, victims: Sequence[str], observers: Sequence[str]) -> bool:
    """Whether all observers call all victims dead."""
    return all(system.views.say(victim, ("dead",), observers) for victim in victims)


def last_seen(
    system: System, start_s: float, member: str, states: Sequence[str], observers: Sequence[str]
) -> float | None:
    """How long after `start_s` the last observer thought one of `states` of the member; None: not all did."""
    first: dict[str, float] = {}
    for change in system.views.since(start_s):
        if change.member == member and change.new in states and change.observer in observers:
            first.setdefault(change.observer, change.at_s)
    return max(first.values()) - start_s if len(first) == len(observers) else None


# ---- the cases ----------------------------------------------------------------------------------


def join(bench: Bench, trials: int) -> dict[str, Figures]:
    """Everybody but one joins that one at the same moment: until all see all."""
    found: dict[str, Figures] = {}
    for system in bench.systems:
        times: list[float | None] = []
        for trial in range(trials):
            if trial:
                system.part_all()
                time.sleep(2.0)
            start_s = system.join_all()
            full = system.views.wait(system.views.full, FULL_S)
            times.append(system.views.changes[-1].at_s - start_s if full else None)
        found[system.name] = spread(times)
        if isinstance(system, Fedd):
            found[system.name]["refusals"] = dict(system.refusals)
    return found


def kill(bench: Bench, trials: int, at_once: int) -> dict[str, Figures]:
    """`kill -9`: until every survivor says dead."""

    def strike(places: Sequence[int]) -> dict[str, dict[int, float]]:
        return {system.name: {place: system.kill(place) for place in places} for system in bench.systems}

    def mend(places: Sequence[int]) -> None:
        for system in bench.systems:
            for place in places:
                system.start(place)

    return _deaths(bench, trials, at_once, strike, mend)


def silence(bench: Bench, trials: int, at_once: int) -> dict[str, Figures]:
    """All packets from and to a member vanish: until every other says dead."""

    def strike(places: Sequence[int]) -> dict[str, dict[int, float]]:
        start_s = time.monotonic()
        bench.lan.cut(*(bench.lan[place] for place in places))
        return {system.name: dict.fromkeys(places, start_s) for system in bench.systems}

    def mend(places: Sequence[int]) -> None:
        bench.lan.restore()
        for system in bench.systems:
            for place in places:
                system.help_home(place)

    return _deaths(bench, trials, at_once, strike, mend)


def _deaths(
    bench: Bench,
    trials: int,
    at_once: int,
    strike: Callable[[Sequence[int]], dict[str, dict[int, float]]],
    mend: Callable[[Sequence[int]], None],
) -> dict[str, Figures]:
    times: dict[str, list[float | None]] = {system.name: [] for system in bench.systems}
    others: dict[str, int] = {system.name: 0 for system in bench.systems}
    while any(len(found) < trials for found in times.values()):
        bench.settle()
        places = bench.pick(at_once)
        victims = [f"n{place + 1}" for place in places]
        survivors = [name for name in (f"n{n + 1}" for n in range(bench.count)) if name not in victims]
        begun_s = time.monotonic()
        struck = strike(places)
        for system in bench.systems:
            views = system.views
            all_dead = partial(all_say_dead, system, victims, survivors)
            views.wait(all_dead, max(0.0, begun_s + DETECT_S - time.monotonic()))
            for place, victim in zip(places, victims, strict=True):
                times[system.name].append(
                    last_seen(system, struck[system.name][place], victim, ("dead",), survivors)
                )
            others[system.name] += sum(
                change.new == "dead" and change.observer in survivors and change.member in survivors
                for change in views.since(begun_s)
            )
        mend(places)
    bench.settle()
    return {
        system.name: {**spread(times[system.name]), "others_called_dead": others[system.name]}
        for system in bench.systems
    }


def pause(bench: Bench, seconds: float, trials: int, at_once: int) -> dict[str, Figures]:
    """SIGSTOP for so long: how often anybody was called dead, and how often the stopped one was by all."""
    calls = {system.name: 0 for system in bench.systems}
    by_all = {system.name: 0 for system in bench.systems}
    rest_s = 2.0
    for _ in range(0, trials, at_once):
        bench.settle()
        places = bench.pick(at_once)
        victims = [f"n{place + 1}" for place in places]
        start_s = time.monotonic()
        _signal(bench, places, signal.SIGSTOP)
        time.sleep(seconds)
        _signal(bench, places, signal.SIGCONT)
        time.sleep(rest_s)
        for system in bench.systems:
            dead = [change for change in system.views.since(start_s) if change.new == "dead"]
            calls[system.name] += len(dead)
            for victim in victims:
                who = {change.observer for change in dead if change.member == victim}
                by_all[system.name] += len(who) >= bench.count - len(victims)
    return {
        system.name: {
            "trials": -(-trials // at_once) * at_once,
            "called_dead": calls[system.name],
            "dead_to_all": by_all[system.name],
        }
        for system in bench.systems
    }


def _signal(bench: Bench, places: Sequence[int], number: signal.Signals) -> None:
    for system in bench.systems:
        for place in places:
            system.signal(place, number)


def freeze(bench: Bench, seconds: float, trials: int) -> dict[str, Figures]:
    """One member stopped: changes of any other member's state, and the time from waking to full views."""
    harmed: dict[str, list[Change]] = {system.name: [] for system in bench.systems}
    times: dict[str, list[float | None]] = {system.name: [] for system in bench.systems}
    begun_s = time.monotonic()
    for _ in range(trials):
        bench.settle()
        place = bench.pick(1)[0]
        victim = f"n{place + 1}"
        start_s = time.monotonic()
        _signal(bench, [place], signal.SIGSTOP)
        time.sleep(seconds)
        woken_s = time.monotonic()
        _signal(bench, [place], signal.SIGCONT)
        time.sleep(0.3)  # that its own views show what it thinks now
        for system in bench.systems:
            full = system.views.wait(system.views.full, FULL_S)
            changes = system.views.since(start_s)
            late = [change.at_s for change in changes if change.at_s > woken_s]
            times[system.name].append(max(late, default=woken_s) - woken_s if full else None)
            harmed[system.name] += [change for change in changes if change.member != victim]
    return {
        system.name: {
            **spread(times[system.name]),
            "others_changed": len(harmed[system.name]),
            "which": [list(change[1:]) for change in harmed[system.name][:6]],
            **_broken(system, begun_s),
        }
        for system in bench.systems
    }


def loss(bench: Bench, percent: float, seconds: float) -> dict[str, Figures]:
    """So many of all packets vanish for so long: how often anybody was called dead, or suspected."""
    bench.settle()
    start_s = time.monotonic()
    bench.lan.lose(percent)
    time.sleep(seconds)
    found = {}
    for system in bench.systems:
        changes = system.views.since(start_s)
        found[system.name] = {
            "percent": percent,
            "seconds": seconds,
            "called_dead": sum(change.new == "dead" for change in changes),
            "suspected": sum(change.new == "suspect" for change in changes),
        }
    bench.lan.restore()
    return found


def broadcast(bench: Bench, trials: int, burst: int, rate: float, size: int) -> dict[str, Figures]:
    """Messages of `size` bytes: until each has reached all; then `burst` of them, `rate` a second.

    First as serf sends its own, asking nobody whether they came. Then fedd's once more, and the burst, with
    everybody's acknowledgement.
    """
    found: dict[str, Figures] = {}
    for system in bench.systems:
        bench.settle()
        for other in bench.systems:
            other.awake.clear()
        views = system.views
        times = until_all_have(bench, system, range(-WARM_UP, trials), size, confirmed=False)[WARM_UP:]
        further = range(trials, 2 * trials) if isinstance(system, Fedd) else range(0)
        confirmed = until_all_have(bench, system, further, size, confirmed=True)
        messages = [message(number, size) for number in range(2 * trials, 2 * trials + burst)]
        begun_s = time.monotonic()
        for count, (_, text) in enumerate(messages):
            time.sleep(max(0.0, begun_s + count / rate - time.monotonic()))
            system.broadcast(count % bench.count, text, confirmed=True)
        sent_s = time.monotonic() - begun_s
        views.wait(partial(views.reached, [marker for marker, _ in messages]), 10)
        found[system.name] = {
            **spread(times),
            "burst": burst,
            "per_s": round(burst / sent_s, 1),
            "reached_all": sum(views.reached([marker]) for marker, _ in messages),
            "doubles": views.doubles,
        }
        if isinstance(system, Fedd):
            found[system.name] |= {"unconfirmed": system.unconfirmed, "refusals": dict(system.refusals)}
            found[system.name] |= {"confirmed_p50_s": spread(confirmed).get("p50_s")}
        for other in bench.systems:
            other.awake.set()
    return found


def until_all_have(
    bench: Bench, system: System, numbers: Iterable[int], size: int, *, confirmed: bool
) -> list[float | None]:
    """One message after the other, each from anybody: seconds until all had it, None for more than ten."""
    times: list[float | None] = []
    for number in numbers:
        marker, text = message(number, size)
        start_s = system.broadcast(bench.pick(1)[0], text, confirmed)
        done = system.views.wait(partial(system.views.reached, [marker]), 10)
        times.append(max(system.views.arrived[marker].values()) - start_s if done else None)
    return times


def message(number: int, size: int) -> tuple[str, str]:
    """What a broadcast of `size` bytes is known by, and the whole of it."""
    marker = f"bench-{number + WARM_UP:06}-"
    return marker, marker.ljust(size, "x")


def leave(bench: Bench, trials: int) -> dict[str, Figures]:
    """One leaves for good: until every other says so. Serf's `leaving` counts as `left`."""
    found: dict[str, Figures] = {}
    for system in bench.systems:
        times: list[float | None] = []
        otherwise = 0
        for _ in range(trials):
            bench.settle()
            place = bench.rng.randrange(1, bench.count)  # the first lets others in
            name = system.names[place]
            others = [other for other in system.names if other != name]
            start_s = system.leave(place)
            gone = ("left", "leaving")
            system.views.wait(partial(system.views.say, name, gone, others), 20)
            time.sleep(0.5 if system.name == "fedd" else 3.0)
            times.append(last_seen(system, start_s, name, gone, others))
            wrong = [c for c in system.views.since(start_s) if c.member == name and c.observer != name]
            otherwise += any(change.new in ("dead", "suspect") for change in wrong)
            system.come_back(place)
        found[system.name] = {**spread(times), "seen_as_dead": otherwise}
    return found


def partition(bench: Bench, trials: int, cut_s: float) -> dict[str, Figures]:
    """Two halves that do not hear each other: until all say so, and from its end until all see all."""
    noticed: dict[str, list[float | None]] = {system.name: [] for system in bench.systems}
    healed: dict[str, list[float | None]] = {system.name: [] for system in bench.systems}
    for _ in range(trials):
        bench.settle()
        one = bench.pick(bench.count // 2)
        halves = [[f"n{place + 1}" for place in one]]
        halves.append([f"n{n + 1}" for n in range(bench.count) if n not in one])
        nodes = [[bench.lan[int(name[1:]) - 1] for name in half] for half in halves]
        start_s = time.monotonic()
        bench.lan.partition(*nodes)
        time.sleep(max(0.0, start_s + cut_s - time.monotonic()))
        for system in bench.systems:
            each = [
                last_seen(system, start_s, member, ("dead",), here)
                for here, there in (halves, reversed(halves))
                for member in there
            ]
            noticed[system.name].append(None if None in each else max(e for e in each if e is not None))
        ended_s = time.monotonic()
        bench.lan.restore()
        for system in bench.systems:
            full = system.views.wait(system.views.full, ended_s + FULL_S - time.monotonic())
            late = [change.at_s for change in system.views.since(ended_s)]
            healed[system.name].append(max(late, default=ended_s) - ended_s if full else None)
    return {
        system.name: {
            "detected": spread(noticed[system.name]),
            "healed": spread(healed[system.name]),
            "cut_s": cut_s,
        }
        for system in bench.systems
    }


def idle(bench: Bench, seconds: float) -> dict[str, Figures]:
    """What nothing costs: traffic at the machines' cards, processor time and memory. For one system alone."""
    (system,) = bench.systems
    bench.settle()
    system.awake.clear()
    places = range(bench.count)
    before = [bench.lan[place].traffic() for place in places]
    spent = [_processor_s(system.pid(place)) for place in places]
    time.sleep(seconds)
    after = [bench.lan[place].traffic() for place in places]
    sent = [(late.bytes_out - early.bytes_out) / seconds for early, late in zip(before, after, strict=True)]
    packets = [
        (late.packets_out - early.packets_out) / seconds for early, late in zip(before, after, strict=True)
    ]
    cpu = [
        (_processor_s(system.pid(place)) - early) / seconds * 100
        for place, early in zip(places, spent, strict=True)
    ]
    found = {
        "bytes_per_s": round(statistics.mean(sent), 1),
        "bytes_per_s_most": round(max(sent), 1),
        "packets_per_s": round(statistics.mean(packets), 2),
        "cpu_percent": round(statistics.mean(cpu), 2),
        "cpu_percent_most": round(max(cpu), 2),
        "rss_mib": round(statistics.median(rss_bytes(system.pid(p)) for p in places) / 2**20, 1),
    }
    if isinstance(system, Fedd):
        links = [system.links(place) for place in places]
        found["links"] = round(statistics.mean(links), 2)
        found["bytes_per_s_a_link"] = round(sum(sent) / sum(links), 1)
    system.awake.set()
    return {system.name: found}


def _processor_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _broken(system: System, start_s: float) -> Figures:
    """The reading of whose event log broke off since then, and why."""
    broken = system.broken if isinstance(system, Fedd) else []
    return {"broken": [line for at_s, *line in broken if at_s >= start_s]}


def clock(bench: Bench, wait_s: float) -> dict[str, Figures]:
    """The wall clock of fedd's last member a year forward, then back: what changes."""
    found: dict[str, Figures] = {}
    for system in bench.systems:
        if not isinstance(system, Fedd):
            continue
        bench.settle()
        start_s = time.monotonic()
        for offset_s in (YEAR_S, -YEAR_S, 0):
            set_clock(system.clock, offset_s)
            time.sleep(wait_s)
        changes = system.views.since(start_s)
        found[system.name] = {
            "changes": len(changes),
            "which": [change[1:] for change in changes],
            **_broken(system, start_s),
            "links": system.links(bench.count - 1),
        }
    return found
