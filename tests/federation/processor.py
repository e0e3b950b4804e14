"""What a thing takes on a machine that has time for it: the load of others is not ours."""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from fedd.core import codec

MOST_TIMES = 60
HONEST = codec.encode([7] * 65_000)
HONEST_S = 0.008
"""What decoding HONEST takes where the bounds in processor seconds were set."""


def least_cpu_s(work: Callable[[], object], enough_s: float) -> float:
    """Processor seconds of this thread that `work` takes at best, three times or until it is `enough_s`.

    Another program on the same core makes everything slow for a while, processor time included.
    """
    seconds: list[float] = []
    while len(seconds) < 3 or (min(seconds) > enough_s and len(seconds) < MOST_TIMES):
        start_s = time.thread_time()
        work()
        seconds.append(time.thread_time() - start_s)
    return min(seconds)


def on_this_machine_s(bound_s: float) -> float:
    """A bound of processor seconds, as much longer as this machine is slower now than one that is up to it.

    The yardstick is work of the same kind, done side by side: an honest message of 64 KiB is decoded.
    """
    return bound_s * max(1.0, least_cpu_s(lambda: codec.decode(HONEST), math.inf) / HONEST_S)


def waited_for_processor_s(task: int | str = "thread-self") -> float:
    """How long a task (a process id: its main thread) could have run while others did, by sched-stats."""
    try:
        return int(Path(f"/proc/{task}/schedstat").read_text().split()[1]) / 1e9
    except OSError:  # it has ended, or the kernel keeps no such count
        return 0.0


def _spent_s() -> tuple[float, float]:
    """Processor seconds that all processors have spent on anything, and those of this process's children."""
    first = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    user, nice, system, _, _, irq, softirq, stolen = map(int, first[:8])
    ticks = user + nice + system + irq + softirq + stolen
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ticks / os.sysconf("SC_CLK_TCK"), ours.ru_utime + ours.ru_stime


class Race:
    """Seconds for what is started and has ended since it was made: processes, without others' load.

    Whatever else the machine has computed meanwhile may have kept them waiting for as long.
    """

    def __init__(self) -> None:
        self._spent_s, self._ours_s = _spent_s()
        self._start_s = time.monotonic()

    def seconds(self) -> float:
        """How long it has been at least, on a machine that does nothing else."""
        spent_s, ours_s = _spent_s()
        others_s = (spent_s - self._spent_s) - (ours_s - self._ours_s)
        return time.monotonic() - self._start_s - max(0.0, others_s)


class Stopwatch:
    """Seconds since it was made, without those in which one of those that do the work waited for a processor.

    These are the calling thread and the main threads of the given processes, which live on meanwhile. For
    what they do by turns, as a question and its answer: then a wait of one is a wait of all.
    """

    def __init__(self, *pids: int) -> None:
        self._tasks: tuple[int | str, ...] = ("thread-self", *pids)
        self._waited_s = self._all_waited_s()
        self._start_s = time.monotonic()

    def _all_waited_s(self) -> float:
        return sum(waited_for_processor_s(task) for task in self._tasks)

    def seconds(self) -> float:
        """How long it has been."""
        took_s = time.monotonic() - self._start_s
        return took_s - (self._all_waited_s() - self._waited_s)
