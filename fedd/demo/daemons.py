"""Real daemons on this machine, for as long as a `with` block lasts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fedd.api.errors import FeddError
from fedd.control.client import Client, path_of

READY_S = 10.0
"""How long a daemon may take until it answers; a loaded board needs seconds, a broken one never does."""

STOP_S = 5.0
"""What a daemon is given to say goodbye after SIGTERM, as the service manager gives it."""


class DemoFailed(Exception):
    """The demonstration did not show what it claims."""


class LocalDaemon:
    """One `fedd` process with a state directory of its own."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.peer_id = ""
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request to this daemon's control socket; errors as `Client.request`."""
        with Client(str(self.directory / "fedd.sock")) as client:
            return client.request(method, path, body)

    def watch(self, run_id: str) -> Iterator[dict[str, Any]]:
        """Follow a run from this daemon; ends with its result."""
        return Client(str(self.directory / "fedd.sock")).stream("GET", path_of("runs", run_id, "watch"))

    def start(self, configuration: str) -> None:
        """Start the process; it is ready when `wait_ready` returns."""
        config = self.directory / "fedd.toml"
        config.write_text(configuration)
        command = [sys.executable, "-m", "fedd", "--config", str(config), "--state-dir", str(self.directory)]
        command += ["--name", self.name, "--listen", "/ip4/127.0.0.1/tcp/0"]
        # An interruption between the start of the process and the note of it would leave it behind.
        with (self.directory / "log").open("ab") as log, _signals_held() as came:
            # A session of its own: Ctrl-C in the terminal is for the demo, which then stops everybody.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        for number in came:
            signal.raise_signal(number)

    def wait_ready(self, deadline: float) -> dict[str, Any]:
        """Return the daemon's status as soon as it answers. Raises DemoFailed with its last words."""
        while True:
            if self._process is None or self._process.poll() is not None:
                raise DemoFailed(f"{self.name} ended before it was ready: {self._last_words()}")
            with suppress(FeddError):
                status: dict[str, Any] = self.ask("GET", "/v1/status")
                self.peer_id = status["peer_id"]
                return status
            if time.monotonic() > deadline:
                raise DemoFailed(f"{self.name} did not get ready: {self._last_words()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut does: SIGKILL, no goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait_stopped(self, deadline: float) -> None:
        """Wait for the end, and force it at the deadline, with everything the daemon started."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _last_words(self) -> str:
        with suppress(OSError):
            return " ".join((self.directory / "log").read_text(errors="replace").split())[-800:]
        return "no log"


@contextmanager
def local_daemons(names: Sequence[str]) -> Iterator[list[LocalDaemon]]:
    """Directories for daemons of these names; processes and files are gone when the block ends."""
    # Short on purpose: the address of a Unix socket holds 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="fedd-demo-"))
    daemons = []
    try:
        for name in names:
            directory = root / name
            directory.mkdir(mode=0o700)
            daemons.append(LocalDaemon(name, directory))
        yield daemons
    finally:
        _tear_down(daemons, root)


def _tear_down(daemons: Sequence[LocalDaemon], root: Path) -> None:
    # A second Ctrl-C must not leave processes behind.
    with _signals_held():
        for daemon in daemons:
            daemon.ask_to_stop()
        deadline = time.monotonic() + STOP_S
        for daemon in daemons:
            daemon.wait_stopped(deadline)
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _signals_held() -> Iterator[list[int]]:
    """Let no signal interrupt the block; those that came are in the list."""
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)

    held = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = [(number, signal.signal(number, note)) for number in held]
    try:
        yield came
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def form_federation(daemons: Sequence[LocalDaemon], name: str, deadline: float) -> None:
    """Found a federation on the first daemon, let the others join, wait until everybody sees everybody."""
    founder, *others = daemons
    founder.ask("POST", "/v1/federation/init", {"federation": name})
    if others:
        invitation = founder.ask("POST", "/v1/federation/invite", {"uses": len(others)})
        for other in others:
            other.ask("POST", "/v1/federation/join", {"token": invitation["token"]})
    expected = {daemon.name for daemon in daemons}

    def complete() -> bool:
        return all(_alive(daemon) == expected for daemon in daemons)

    wait_for(complete, deadline, "every member sees all others alive")


def _alive(daemon: LocalDaemon) -> set[str]:
    return {m["name"] for m in daemon.ask("GET", "/v1/members") if m["state"] == "alive"}


def wait_for(condition: Callable[[], bool], deadline: float, what: str) -> None:
    """Ask until `condition` holds. Raises DemoFailed naming `what` at the deadline (monotonic time)."""
    while not condition():
        if time.monotonic() > deadline:
            raise DemoFailed(f"this did not happen in time: {what}")
        time.sleep(0.02)
