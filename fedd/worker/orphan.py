"""The end of a process whose daemon is gone."""

from __future__ import annotations

import os
import select
import signal
import threading
import time

ORPHAN_GRACE_S = 5.0
"""A worker without a daemon ends by itself; one that burns its processor is ended this long after."""


def end_with_the_daemon(descriptor: int) -> None:
    """End this process when the daemon is gone, even if a plugin never comes back to the event loop."""

    def watch() -> None:
        daemon_is_gone(descriptor, wait=True)
        time.sleep(ORPHAN_GRACE_S)
        end_group()
        os._exit(1)

    threading.Thread(target=watch, name="daemon-watch", daemon=True).start()


def daemon_is_gone(descriptor: int, *, wait: bool) -> bool:
    """Whether the other end of the socket is closed; with `wait`, when it is."""
    poll = select.poll()
    poll.register(descriptor, 0)  # without flags only a hang-up is reported
    return bool(poll.poll(None if wait else 0))


def end_group() -> None:
    """End this process and what a plugin started in it, as the daemon would have done."""
    if os.getpgrp() == os.getpid():  # the daemon made it the leader of a group of its own
        os.killpg(0, signal.SIGKILL)
