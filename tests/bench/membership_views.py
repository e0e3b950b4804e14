"""What every member of a measured federation thinks of every other, as it was seen to change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple


class Change(NamedTuple):
    """At `at_s` (monotonic) the observer was seen to think so of the member."""

    at_s: float
    observer: str
    member: str
    old: str | None
    new: str


class Views:
    """What every observer thinks of everybody, the history of it, and which broadcasts have arrived."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)
        self.changes: list[Change] = []
        self.arrived: dict[str, dict[str, float]] = {}
        """Of each marker, when it came to whom."""
        self.doubles = 0
        self._states: dict[str, dict[str, str]] = {name: {} for name in self.names}
        self._news = threading.Condition()

    def note(self, observer: str, member: str, state: str, at_s: float) -> None:
        """The observer thinks so now."""
        with self._news:
            old = self._states[observer].get(member)
            if old != state and member != observer:
                self._states[observer][member] = state
                self.changes.append(Change(at_s, observer, member, old, state))
                self._news.notify_all()

    def deliver(self, observer: str, marker: str, at_s: float) -> None:
        """A broadcast has come to the observer."""
        with self._news:
            came = self.arrived.setdefault(marker, {})
            if observer in came:
                self.doubles += 1
                return
            came[observer] = at_s
            # Who waits, waits for the last; to be woken by each would take processor time from the members.
            if len(came) == len(self.names):
                self._news.notify_all()

    def forget(self, *observers: str) -> None:
        """These begin again, knowing nobody."""
        with self._news:
            for observer in observers:
                self._states[observer] = {}

    def wait(self, predicate: Callable[[], bool], timeout_s: float) -> bool:
        """Whether the predicate holds within the time; asked at every change."""
        with self._news:
            return self._news.wait_for(predicate, timeout_s)

    def full(self, among: Iterable[str] | None = None) -> bool:
        """Whether all of these, everybody by default, think all of them alive."""
        names = self.names if among is None else list(among)
        return all(
            self._states[one].get(other) == "alive" for one in names for other in names if one != other
        )

    def say(self, member: str, states: Iterable[str], observers: Iterable[str]) -> bool:
        """Whether all observers think one of `states` of the member."""
        return all(self._states[one].get(member) in states for one in observers)

    def reached(self, markers: Sequence[str]) -> bool:
        """Whether all these broadcasts have come to everybody."""
        return all(len(self.arrived.get(marker, ())) == len(self.names) for marker in markers)

    def since(self, start_s: float) -> list[Change]:
        """Changes that were seen after `start_s`."""
        with self._news:
            return [change for change in self.changes if change.at_s >= start_s]
