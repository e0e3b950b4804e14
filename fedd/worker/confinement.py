"""What a process that runs other people's code gives up before it imports any of it.

`confine` is for every program of the worker; `wall_off` for those that import plugins: after it they reach
neither the daemon's files, memory and processes nor the network. What holds and what does not is told in
docs/explanation/security.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import stat
import struct
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

from fedd.worker import landlock, seccomp
from fedd.worker.landlock import READ, WRITE, Grant, Restricted

_PR_SET_NO_NEW_PRIVS: Final = 38
"""prctl(2): no program that is started gains rights by its file's mode or capabilities."""

OOM_SCORE_ADJ: Final = 500
"""proc(5), of -1000 to 1000: when memory runs out the kernel ends this process rather than one that uses
up to half of the device's memory more, so a run is lost and not the daemon's links."""

_CAPABILITIES: Final = struct.Struct("=6I")
"""capget(2), version 3: effective, permitted and inheritable ones below 32, then those above."""
_CAPABILITIES_VERSION: Final = 0x20080522
_OVER_FILES: Final = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: root without them would read less than it is used to. All else
that sets root apart is no affair of plugins."""

_TEMPORARY: Final = ("/tmp", "/var/tmp")  # noqa: S108 - shared by design, as by every program
_DEVICES: Final = "/dev"
_DEVICES_OF_OTHERS: Final = re.compile(
    r"mem|kmem|port|mapper|raw|sg\d+|bsg|pts|console|tty\d*|vcs.*|input|uinput"
)
"""Memory, disks by another name, terminals and keyboards: the machine's, or the operator's."""

FILES: Final = "the daemon's files"
NETWORK: Final = "the network"
UNIX_AND_UDP: Final = "UDP and Unix sockets"
PROCESSES: Final = "other processes"


class Walls(NamedTuple):
    """What the daemon says of a process that it starts. Paths are absolute.

    Of the directories `hidden` it reads nothing; it writes in `own`, wherever that is, in the temporary
    directories and in those of `writable`. `network` opens IPv4 and IPv6.
    """

    hidden: tuple[str, ...] = ()
    own: str = ""
    writable: tuple[str, ...] = ()
    network: bool = False


class Confinement(NamedTuple):
    """What came of it: Landlock's version (0: none), whether there is a seccomp filter, what is not kept from
    this process although it should be, and whether `keep_signals` has still something to do."""

    landlock: int
    seccomp: bool
    open: tuple[str, ...]
    signals_left: bool = False


def confine() -> None:
    """Give up, for this process and all that it starts: more rights, core dumps, a place among the last that
    the kernel ends, and more private memory than the device has (RLIMIT_DATA: then MemoryError).

    What the kernel does not know or allow is left out: the daemon's own limits stand in any case.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_DATA, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:
        if int(file.read()) < OOM_SCORE_ADJ:
            file.seek(0)
            file.write(str(OOM_SCORE_ADJ))


def wall_off(walls: Walls, *, parent: bool = False) -> Confinement:
    """Give up, after `confine`, all beyond `walls`. Never raises: what the kernel lacks is in the answer.

    A `parent` must be able to end its children: where Landlock does not tell them from strangers, signals are
    left to `keep_signals`, for the children to call.
    """
    _drop_capabilities()
    restricted = Restricted()
    with contextlib.suppress(OSError):  # a container may forbid it
        restricted = landlock.restrict(_grants(walls), network=walls.network)
    filtered = False
    if seccomp.knows_this_machine():
        with contextlib.suppress(OSError):
            seccomp.restrict(network=walls.network, truncate=restricted.truncation or not restricted.files)
            filtered = True
    done = Confinement(
        restricted.abi, filtered, tuple(_missing(walls, restricted, filtered)), not restricted.signals
    )
    if not parent:
        keep_signals(done)
    return done


def keep_signals(done: Confinement) -> None:
    """What `wall_off` has left to do: without Landlock, signals reach this process and its group only."""
    if done.seccomp and done.signals_left:
        seccomp.keep_signals()


def _missing(walls: Walls, restricted: Restricted, filtered: bool) -> Iterator[str]:
    """What should be out of reach, and is not."""
    if not restricted.files:
        yield FILES
    if not filtered:
        if not walls.network:
            yield UNIX_AND_UDP if restricted.tcp else NETWORK
        if not restricted.signals:
            yield PROCESSES


def _grants(walls: Walls) -> Iterator[Grant]:
    """Almost everything may be read, little be written."""
    hidden = tuple(os.path.realpath(path) for path in walls.hidden)
    if walls.own:
        yield Grant(os.path.realpath(walls.own), WRITE)
    for path in {sys.prefix, sys.base_prefix, *filter(os.path.isabs, sys.path)}:
        code = os.path.realpath(path)
        if any(code.startswith(f"{each}/") for each in hidden):  # a virtual environment beside the state
            yield Grant(code, READ)
    writable = [os.path.realpath(path) for path in (*_TEMPORARY, *walls.writable)]
    yield from (Grant(path, WRITE, hidden) for path in writable)
    yield from _devices()
    # What may be written is read too: those around something hidden need not be walked through twice.
    walked = [path for path in writable if any(each.startswith(f"{path}/") for each in hidden)]
    yield Grant("/", READ, (*hidden, *walked, _DEVICES))


def _devices() -> Iterator[Grant]:
    """What a plugin may open below /dev: no disk, from which any file could be read, and no terminal."""
    with contextlib.suppress(OSError), os.scandir(_DEVICES) as entries:
        for entry in entries:
            if entry.is_symlink() or _DEVICES_OF_OTHERS.fullmatch(entry.name):
                continue
            if not stat.S_ISBLK(entry.stat(follow_symlinks=False).st_mode):
                yield Grant(entry.path, WRITE)


def _drop_capabilities() -> None:
    """A worker of root's is root towards files only. Programs that it starts get no more: no_new_privs."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        header = struct.pack("=Ii", _CAPABILITIES_VERSION, 0)
        held = ctypes.create_string_buffer(_CAPABILITIES.size)
        if libc.capget(header, held) == 0:
            low = [sets & _OVER_FILES for sets in _CAPABILITIES.unpack(held.raw)[:3]]
            libc.capset(header, _CAPABILITIES.pack(*low, 0, 0, 0))


def _lower(limit: int, most: int) -> None:
    """Set both ends of a resource limit, unless it is lower already."""
    hard = resource.getrlimit(limit)[1]
    if hard == resource.RLIM_INFINITY or hard > most:
        resource.setrlimit(limit, (most, most))
