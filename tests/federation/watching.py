"""What real daemons say of each other while something is done to them, from their event logs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from federation.daemons import GUARD_S, Daemon, Federation

from fedd.api.errors import FeddError
from fedd.control.client import Client


@dataclass(frozen=True)
class Seen:
    """At `at_s` (monotonic) the observer said so of the member."""

    at_s: float
    observer: str
    member: str
    state: str


class Watch:
    """Reads the event logs of all daemons of a federation, and knows what each thinks now."""

    def __init__(self, fed: Federation) -> None:
        self.names = [daemon.name for daemon in fed]
        self._seen: list[Seen] = []
        self._states: dict[tuple[str, str], str] = {}
        self._news = threading.Condition()
        self._over = False
        for daemon in fed:
            threading.Thread(target=self._read, args=(daemon,), daemon=True).start()

    def since(self, start_s: float) -> list[Seen]:
        """What was said after `start_s`."""
        with self._news:
            return [seen for seen in self._seen if seen.at_s >= start_s]

    def wait_full(self, within_s: float) -> float:
        """Wait until everybody thinks everybody alive; when that came about (monotonic)."""
        with self._news:
            assert self._news.wait_for(self._full, within_s), f"not within {within_s} s: {self._missing()}"
        return self._seen[-1].at_s

    def wait_dead(self, member: str, within_s: float) -> None:
        """Wait until everybody else thinks this member dead."""
        others = [name for name in self.names if name != member]
        with self._news:
            assert self._news.wait_for(
                lambda: all(self._states.get((other, member)) == "dead" for other in others), within_s
            ), f"not within {within_s} s: {[self._states.get((other, member)) for other in others]}"

    def _full(self) -> bool:
        return not self._missing()

    def _missing(self) -> list[str]:
        return [
            f"{one} says {other} is {self._states.get((one, other))}"
            for one in self.names
            for other in self.names
            if one != other and self._states.get((one, other)) != "alive"
        ]

    def _read(self, daemon: Daemon) -> None:
        while not self._over:
            with contextlib.suppress(FeddError, OSError), Client(str(daemon.socket)) as client:
                for number, event in enumerate(client.stream("GET", "/v1/events", query={"since": "0"})):
                    self._take(daemon.name, event, first=number == 0)
            time.sleep(0.05)

    def _take(self, observer: str, event: dict[str, Any], first: bool) -> None:
        with self._news:
            if first:  # a new life
                self._states = {pair: state for pair, state in self._states.items() if pair[0] != observer}
            if event["kind"] == "member":
                self._states[observer, event["name"]] = event["state"]
                self._seen.append(Seen(time.monotonic(), observer, event["name"], event["state"]))
            self._news.notify_all()

    def close(self) -> None:
        """Stop reading; the daemons may end after it."""
        self._over = True


@contextlib.contextmanager
def watching(fed: Federation) -> Iterator[Watch]:
    """A watch that has seen everybody alive.

    Start it before the faults: the logs are read from their beginning.
    """
    watch = Watch(fed)
    try:
        watch.wait_full(GUARD_S)
        yield watch
    finally:
        watch.close()
