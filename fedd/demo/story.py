"""What every demonstration has in common: real daemons, one picture, figures that are checked, a tidy end."""

from __future__ import annotations

import json
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fedd.api.errors import FeddError
from fedd.demo.daemons import DemoFailed, LocalDaemon, wait_for
from fedd.demo.picture import Picture, Trace


class Story(ABC):
    """The steps of a demonstration; `document` holds what they showed."""

    def __init__(self, picture: Picture, deadline_s: float) -> None:
        self._picture = picture
        self._deadline = time.monotonic() + deadline_s
        self.document: dict[str, Any] = {"steps": []}

    @abstractmethod
    def run(self) -> None:
        """Show everything. Raises DemoFailed when a figure is not what it must be."""

    def _step(self, name: str, started: float, **facts: Any) -> None:
        took_s = round(time.monotonic() - started, 3)
        self.document["steps"].append({"step": name, "took_s": took_s, **facts})

    def _must(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise DemoFailed(otherwise)

    # ---- runs ----------------------------------------------------------------------------

    def _begin_run(self, starter: LocalDaemon, request: dict[str, Any]) -> str:
        """Start a run that nobody declines; its id."""
        reply = starter.ask("POST", "/v1/runs", request)
        self._must(not reply["declined"], f"a member declined: {reply['declined']}")
        return str(reply["run_id"])

    def _watch(self, watcher: LocalDaemon, algorithm: str, run_id: str) -> None:
        """Draw a run until it ends."""
        with self._picture.run(algorithm) as trace:
            for item in watcher.watch(run_id):
                trace.add(item)

    def _watch_and_kill(
        self,
        watcher: LocalDaemon,
        victim: LocalDaemon,
        algorithm: str,
        run_id: str,
        *,
        middle: int,
        reached: Callable[[dict[str, Any], Trace], int],
        note: str,
    ) -> int:
        """Draw a run until it ends, and end `victim` as soon as `middle` is reached; where it was then.

        `note` is what the picture says of the victim, with the place where it was for `{}`.
        """
        killed_at: int | None = None
        with self._picture.run(algorithm) as trace:
            for item in watcher.watch(run_id):
                trace.add(item)
                place = reached(item, trace)
                if killed_at is None and item.get("kind") == "progress" and place >= middle:
                    killed_at = place
                    victim.kill()
                    row = next(row for row in self._picture.rows if row.name == victim.name)
                    row.state, row.note = "dead", note.format(place)
        if killed_at is None:
            raise DemoFailed("the run had ended before its middle was seen")
        return killed_at

    def _result_of(self, daemon: LocalDaemon, run_id: str) -> dict[str, Any]:
        """The result on this daemon, where the run must have finished."""
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(daemon.ask("GET", f"/v1/runs/{run_id}"))
            return found["state"] in ("finished", "failed", "stopped")

        wait_for(ended, self._deadline, f"the run ends on {daemon.name}")
        self._must(
            found["state"] == "finished",
            f"the run {found['state']} on {daemon.name}: {found.get('error')}",
        )
        return found

    def _dropped(self, result: dict[str, Any], daemons: Sequence[LocalDaemon]) -> list[dict[str, Any]]:
        """Who fell out of a run, with names."""
        names = {daemon.peer_id: daemon.name for daemon in daemons}
        return [{**entry, "name": names.get(entry["peer_id"], "")} for entry in result["dropped"]]


def conduct(demo: Story, picture: Picture, deadline_s: float, json_output: bool, closing: str) -> int:
    """Run a demonstration to its end, whatever that is; the exit code. KeyboardInterrupt after a tidy end."""
    started = time.monotonic()
    problem = ""
    try:
        with _interrupted_by_signals(deadline_s):
            demo.run()
    except (DemoFailed, FeddError) as error:
        problem = str(error)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; all daemons are stopped") from None
    took_s = time.monotonic() - started
    if json_output:
        document = {**demo.document, "ok": not problem, "took_s": round(took_s, 3)}
        if problem:
            document["error"] = problem
        print(json.dumps(document))
    if problem:
        print(f"fedctl: the demo failed: {problem}", file=sys.stderr)
        return 1
    picture.say(f"\n{closing} in {took_s:.1f} s")
    return 0


@contextmanager
def _interrupted_by_signals(deadline_s: float) -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does, and a timer when it hangs: all tear down first."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def too_late(number: int, frame: object) -> None:
        raise DemoFailed(f"it did not end within {deadline_s:.0f} s")

    handlers = {signal.SIGTERM: interrupt, signal.SIGHUP: interrupt, signal.SIGALRM: too_late}
    before = [(number, signal.signal(number, handler)) for number, handler in handlers.items()]
    signal.setitimer(signal.ITIMER_REAL, deadline_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before:
            signal.signal(number, handler)
