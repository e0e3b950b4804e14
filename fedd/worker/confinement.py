"""What a process that runs other people's code gives up before it imports any of it.

This is no sandbox: a plugin has the rights of the daemon's user (see docs/explanation/security.md). It keeps
a plugin from gaining more, and a device whose memory runs out from losing its daemon.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
"""prctl(2): no program that is started gains rights by its file's mode or capabilities."""

OOM_SCORE_ADJ: Final = 500
"""proc(5), of -1000 to 1000: when memory runs out the kernel ends this process rather than one that uses
up to half of the device's memory more, so a run is lost and not the daemon's links."""


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


def _lower(limit: int, most: int) -> None:
    """Set both ends of a resource limit, unless it is lower already."""
    hard = resource.getrlimit(limit)[1]
    if hard == resource.RLIM_INFINITY or hard > most:
        resource.setrlimit(limit, (most, most))
