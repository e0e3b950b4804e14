"""Real daemons as processes of their own on loopback, steered by the real fedctl."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedd.api.errors import FeddError
from fedd.control.client import Client

BIN = Path(sys.executable).parent
GUARD_S = 120.0
"""Against waiting for ever, on however busy a machine; what is promised to be faster is measured instead."""
QUIET_START_S = 1.0
"""What a daemon of several takes to be started and to join, on a machine of two cores that rests."""


def eventually(predicate: Callable[[], Any], deadline_s: float, what: str) -> Any:
    """Return the first true value of `predicate`, or fail naming `what` after `deadline_s`."""
    pause = threading.Event()
    end = time.monotonic() + deadline_s
    while True:
        value = predicate()
        if value:
            return value
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        pause.wait(0.05)


class Reply:
    """What one fedctl call did."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def ok(self) -> Any:
        """The JSON document of a call that must have worked."""
        assert self.code == 0, f"exit {self.code}: {self.err or self.out}"
        return self.json


class Daemon:
    """One fedd process with a state directory of its own."""

    def __init__(self, root: Path, name: str, python: str = sys.executable) -> None:
        self.name = name
        self.dir = root / name
        self.dir.mkdir(exist_ok=True)
        self.python = python
        self.prefix: Sequence[str] = ()  # before the command, such as one that enters a namespace
        self.program: Sequence[str] = ("-m", "fedd")
        self.fedctl_path = str(Path(python).parent / "fedctl")
        self.process: subprocess.Popen[bytes] | None = None
        self.log = root / f"{name}.log"

    @property
    def socket(self) -> Path:
        return self.dir / "fedd.sock"

    def start(self, *options: str, config: str | None = None, listen: str = "/ip4/127.0.0.1/tcp/0") -> Daemon:
        command = [
            *self.prefix,
            self.python,
            *self.program,
            "--state-dir",
            str(self.dir),
            "--name",
            self.name,
        ]
        command += ["--listen", listen] if listen else []  # nowhere: let the configuration say so
        command += options
        if config is not None:
            path = self.dir / "fedd.toml"
            path.write_text(config)
            command += ["--config", str(path)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def wait_ready(self) -> Daemon:
        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} ended: {self.log.read_text()[-2000:]}"
            return self.socket.exists() and self.ctl("status").code == 0

        eventually(answers, GUARD_S, f"{self.name} answers fedctl status")
        return self

    def ctl(self, *arguments: str, timeout_s: float = 2 * GUARD_S, stdin: str | None = None) -> Reply:
        """`fedctl --json` at this daemon."""
        command = [self.fedctl_path, "--socket", str(self.socket), "--json", *arguments]
        return Reply(
            subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_s, input=stdin, check=False
            )
        )

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        command = [self.fedctl_path, "--socket", str(self.socket), "--json", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def peer_id(self) -> str:
        return str(self.ctl("status").ok()["peer_id"])

    def states(self) -> dict[str, str]:
        """Member name -> state, as this daemon sees it."""
        with Client(str(self.socket), timeout_s=GUARD_S) as client:
            return {member["name"]: member["state"] for member in client.request("GET", "/v1/members")}

    def shown(self, run_id: str) -> dict[str, Any]:
        """What it shows of a run at this moment, empty when it knows none or does not answer.

        Asked without a fedctl, which takes its own time to start: a run goes on meanwhile.
        """
        with contextlib.suppress(FeddError), Client(str(self.socket), timeout_s=GUARD_S) as client:
            return dict(client.request("GET", f"/v1/runs/{run_id}"))
        return {}

    def wait_round(self, run_id: str, rounds: int, *, or_end: bool = False) -> None:
        """Return when the run has made so many rounds here, `or_end`: or has ended."""

        def far_enough() -> bool:
            shown = self.shown(run_id)
            return bool(shown) and (shown["rounds"] >= rounds or (or_end and shown["state"] != "running"))

        eventually(far_enough, GUARD_S, f"{self.name} is in round {rounds}")

    def wait_kept(self, run_id: str) -> None:
        """Return when the run's result and its curves are on this daemon's disk, where a kill finds them.

        A result is shown as soon as there is one, and one member has it before another.
        """
        for kind in ("json", "history"):
            eventually(
                lambda k=kind: [*self.dir.glob(f"runs/*-{run_id}.{k}")],
                GUARD_S,
                f"{self.name} kept the {kind}",
            )

    def wait_plugins(self) -> Daemon:
        """Return when it knows what its plugins offer: before that it declines what it is asked to run."""
        with Client(str(self.socket), timeout_s=GUARD_S) as client:
            client.request("GET", "/v1/plugins")
        return self

    def events(self) -> list[dict[str, Any]]:
        """All that its event log keeps at this moment, oldest first; waits for nothing that is to come."""
        found: list[dict[str, Any]] = []
        with Client(str(self.socket)) as client:
            limits = client.request("GET", "/v1/limits")
            (kept,) = [limit for limit in limits if limit["name"] == "events"]
            newest = kept["present"] + kept["reached"]
            if newest:
                for event in client.stream("GET", "/v1/events", query={"since": "0"}):
                    found.append(event)
                    if event["seq"] >= newest:
                        break
        return found

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(GUARD_S)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            return self.process.wait(GUARD_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(GUARD_S)
            raise

    def destroy(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(GUARD_S)


class Federation:
    """Daemons that belong together; the first one founded the federation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.daemons: list[Daemon] = []
        self.started_s = 0.0
        """How long it took until all were members."""

    def __getitem__(self, index: int) -> Daemon:
        return self.daemons[index]

    def __iter__(self) -> Iterator[Daemon]:
        return iter(self.daemons)

    def __len__(self) -> int:
        return len(self.daemons)

    def add(self, name: str, python: str = sys.executable) -> Daemon:
        daemon = Daemon(self.root, name, python)
        self.daemons.append(daemon)
        return daemon

    def form(self, name: str = "plant7") -> None:
        """Found a federation on the first daemon, let the others join, wait for the full view."""
        founder, *others = self.daemons
        founder.ctl("init", name).ok()
        if others:
            token = founder.ctl("invite", "--uses", str(len(others))).ok()["token"]
            for other in others:
                other.ctl("join", token).ok()
        self.wait_alive()

    def pace(self, quiet_s: float) -> str:
        """For `--pace`: between exchanges, `quiet_s` on a quiet machine, longer as this one is slower.

        So what a test does meanwhile, to start a daemon again for example, falls within the run here too.
        """
        return f"{quiet_s * max(1.0, self.started_s / (QUIET_START_S * len(self))):.3f}"

    def wait_alive(self, deadline_s: float = GUARD_S) -> None:
        names = {d.name for d in self.daemons}
        for daemon in self.daemons:
            eventually(
                lambda d=daemon: {n for n, s in d.states().items() if s == "alive"} == names,
                deadline_s,
                f"{daemon.name} sees everybody alive",
            )

    def wait_plugins(self) -> None:
        for daemon in self.daemons:
            daemon.wait_plugins()

    def set_inputs(self, values: Sequence[Any], name: str = "x") -> None:
        for daemon, value in zip(self.daemons, values, strict=True):
            daemon.ctl("set", name, json.dumps(value)).ok()

    def survivors(self) -> list[Daemon]:
        return [d for d in self.daemons if d.process is not None and d.process.poll() is None]


@contextmanager
def federation(
    count: int,
    *,
    python: str = sys.executable,
    configs: Sequence[str | None] | None = None,
    names: Sequence[str] | None = None,
    formed: bool = True,
) -> Iterator[Federation]:
    """`count` daemons in a temporary directory; nothing of them is left afterwards."""
    # a short path: a unix socket's address holds 107 bytes
    root = Path(tempfile.mkdtemp(prefix="fedd-"))
    fed = Federation(root)
    begun_s = time.monotonic()
    try:
        for index in range(count):
            daemon = fed.add(names[index] if names else f"n{index}", python)
            daemon.start(config=configs[index] if configs else None)
        for daemon in fed:
            daemon.wait_ready()
        if formed:
            fed.form()
            fed.wait_plugins()
        fed.started_s = time.monotonic() - begun_s
        yield fed
    finally:
        for daemon in fed:
            daemon.destroy()
        keep = os.environ.get("FEDD_TEST_KEEP")
        if keep:
            shutil.copytree(root, Path(keep) / root.name, ignore=shutil.ignore_patterns("*.sock"))
        shutil.rmtree(root, ignore_errors=True)


def workers_of(daemon: Daemon) -> list[int]:
    """Process ids of the daemon's living children."""
    path = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def result_of(daemon: Daemon, run_id: str, deadline_s: float = 5 * GUARD_S) -> dict[str, Any]:
    """The run's result at this daemon, once it has one."""

    def ended() -> dict[str, Any] | None:
        result = daemon.shown(run_id)
        return result if result.get("state") in ("finished", "failed", "stopped") else None

    result = eventually(ended, deadline_s, f"run {run_id} ends on {daemon.name}")
    assert isinstance(result, dict)
    return result
