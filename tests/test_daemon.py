"""The daemon's process, as the service manager and the operator's shell see it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedd import __main__ as command
from fedd import daemon as daemon_module
from fedd.api.errors import Conflict, FeddError
from fedd.control.client import Client
from fedd.net.listening import listen
from fedd.state import StateDirectory

WAIT_S = 120.0
"""Against waiting for ever, on however busy a machine."""


class Process:
    """One `fedd`, with a service manager that is the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(directory / "notify"))
        self.manager.settimeout(WAIT_S)
        self.log = directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, watchdog_s: float = 0.0) -> Process:
        environ = {**os.environ, "NOTIFY_SOCKET": str(self.directory / "notify")}
        if watchdog_s:
            environ["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        arguments = [
            "--state-dir",
            str(self.directory / "s"),
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
            "--log",
            "json",
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fedd", "--log", "json", *arguments, *options],
                env=environ,
                stderr=log,
                stdout=log,
            )
        return self

    def told(self, word: str) -> str:
        """The next message to the service manager that begins with `word`."""
        while True:
            message = self.manager.recv(4096).decode()
            if message.startswith(word):
                return message

    def request(self, method: str, path: str, body: Any = None) -> Any:
        with Client(str(self.directory / "s" / "fedd.sock")) as client:
            return client.request(method, path, body)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(WAIT_S)

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(WAIT_S)
        self.manager.close()


@pytest.fixture
def fedd(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    yield process
    process.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_right_after_ready_ends_it_in_order(fedd: Process, number: signal.Signals) -> None:
    fedd.start().told("READY=1")
    fedd.signal(number)
    fedd.told("STOPPING=1")
    assert fedd.wait() == 0
    assert not (fedd.directory / "s" / "fedd.sock").exists()
    assert [line["level"] for line in fedd.logged()] == ["info", "info"]
    assert signal.Signals(number).name in fedd.logged()[-1]["message"]


def test_ready_means_that_links_and_requests_are_accepted(fedd: Process, tmp_path: Path) -> None:
    config = tmp_path / "fedd.toml"
    config.write_text("[limits]\nmax_relayed_bytes_per_s = 65536\n")
    fedd.start("--name", "vib", "--config", str(config)).told("READY=1")
    status = fedd.request("GET", "/v1/status")
    assert status["name"] == "vib"
    port = int(status["addresses"][0].split("/")[4])
    limits = {limit["name"]: limit["maximum"] for limit in fedd.request("GET", "/v1/limits")}
    assert limits["relay.bytes_per_s"] == 65_536 < limits["relay.circuit_bytes_per_s"]
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    path = fedd.directory / "s" / "fedd.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_restart_keeps_identity_port_federation_and_inputs(fedd: Process) -> None:
    fedd.start().told("READY=1")
    fedd.request("POST", "/v1/federation/init", {"federation": "plant7"})
    fedd.request("PUT", "/v1/inputs/temp", {"value": 20.5})
    before = fedd.request("GET", "/v1/status")
    fedd.signal(signal.SIGKILL)
    assert fedd.wait() == -signal.SIGKILL
    with socket.socket() as held:
        # Bound and never listening: nobody else is given the port meanwhile, and fedd gets it all the same.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", int(before["addresses"][0].split("/")[4])))
        fedd.start().told("READY=1")
    after = fedd.request("GET", "/v1/status")
    for key in ("peer_id", "addresses", "federation"):
        assert before[key] == after[key]
    assert fedd.request("GET", "/v1/inputs")[0]["value"] == 20.5


def test_the_watchdog_is_fed_and_the_status_told(fedd: Process) -> None:
    fedd.start(watchdog_s=0.3).told("STATUS=in no federation")
    for _ in range(3):
        fedd.told("WATCHDOG=1")
    fedd.request("POST", "/v1/federation/init", {"federation": "plant7"})
    fedd.told("STATUS=1 alive")


def test_a_reload_applies_what_it_can_and_says_what_it_cannot(fedd: Process, tmp_path: Path) -> None:
    config = tmp_path / "fedd.toml"
    config.write_text("[inputs.temp]\nvalue = 1\n")
    fedd.start("--config", str(config)).told("READY=1")
    config.write_text("[inputs.temp]\nvalue = 2\n[limits]\nmax_runs = 3\n")
    fedd.signal(signal.SIGHUP)
    fedd.told("RELOADING=1")
    fedd.told("READY=1")
    assert fedd.request("GET", "/v1/inputs")[0]["value"] == 2
    messages = [line["message"] for line in fedd.logged()]
    assert "configuration reloaded: inputs.temp" in messages
    assert "changed, and used only after a restart: limits.max_runs" in messages
    config.write_text("[inputs.temp]\nvlaue = 3\n")
    fedd.signal(signal.SIGHUP)
    fedd.told("READY=1")
    assert fedd.request("GET", "/v1/inputs")[0]["value"] == 2
    assert (
        f"configuration not reloaded: {config}:2: inputs.temp.vlaue: unknown key"
        in fedd.logged()[-1]["message"]
    )


def test_streams_of_the_control_socket_end_with_the_daemon(fedd: Process) -> None:
    fedd.start().told("READY=1")
    with Client(str(fedd.directory / "s" / "fedd.sock")) as client:
        events = client.stream("GET", "/v1/events", query={"since": "0"})
        assert next(events)["what"] == "started"
        fedd.signal(signal.SIGTERM)
        assert list(events)[-1]["what"] == "stopping"
    assert fedd.wait() == 0


def test_a_second_daemon_is_refused_and_the_first_unharmed(fedd: Process, tmp_path: Path) -> None:
    fedd.start().told("READY=1")
    for options, said in (
        (["--state-dir", str(tmp_path / "s")], str(tmp_path / "s")),
        (
            ["--state-dir", str(tmp_path / "t"), "--socket", str(tmp_path / "s" / "fedd.sock")],
            "another daemon",
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "fedd", *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S,
        )
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    assert fedd.request("GET", "/v1/version")["api"] == 1


def test_core_dumps_are_off_and_the_environment_is_clean(fedd: Process) -> None:
    fedd.start().told("READY=1")
    assert fedd.process is not None
    limits = Path(f"/proc/{fedd.process.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]


# -- the command line, in this process


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        status = command.main(arguments)
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_check_says_what_is_wrong_with_every_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "fedd.toml"
    config.write_text("[node]\nname = 'a'\n")
    assert run_command(capsys, "--check", "--config", str(config)) == (0, f"{config}: good\n", "")
    config.write_text("[node]\nnmae = 'a'\nname = 3\n")
    status, out, err = run_command(capsys, "--check", "--config", str(config))
    assert (status, out) == (78, "")
    first, second = err.splitlines()
    assert first == f"fedd: {config}:2: node.nmae: unknown key - did you mean name?"
    assert second.startswith(f"fedd: {config}:3: node.name: is 3, not a text")


def test_check_without_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "default_config", lambda: None)
    assert run_command(capsys, "--check")[:2] == (0, "no configuration file, the defaults are good\n")
    status, _, err = run_command(capsys, "--check", "--listen", "somewhere")
    assert (status, "--listen" in err) == (78, True)


@pytest.mark.parametrize("arguments", [("--lisen", "x"), ("word",), ("--log", "xml"), ("--name",)])
def test_wrong_usage_is_64(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    status, out, err = run_command(capsys, *arguments)
    assert (status, out, err.count("\n")) == (64, "", 1)


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(capsys, "--version")[1].startswith("fedd ")
    assert "exit status:" in run_command(capsys, "--help")[1]


def test_the_socket_lies_in_a_state_directory_given_by_hand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, str]] = []
    monkeypatch.setattr(daemon_module, "run", lambda config, read, **options: started.append(options))
    monkeypatch.setattr(command, "default_config", lambda: None)
    monkeypatch.setenv("FEDD_SOCKET", "/run/x.sock")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/fedd")
    assert run_command(capsys, "--state-dir", "a")[0] == 0
    assert run_command(capsys, "--state-dir", "a", "--socket", "b.sock")[0] == 0
    assert run_command(capsys)[0] == 0
    assert [(options["state_dir"], options["socket_path"]) for options in started] == [
        ("a", "a/fedd.sock"),
        ("a", "b.sock"),
        ("/var/lib/fedd", "/run/x.sock"),
    ]


# -- ports


class FakeSwarm:
    def __init__(self, taken: set[int]) -> None:
        self.taken = taken
        self.asked: list[str] = []

    async def listen(self, address: str) -> list[str]:
        self.asked.append(address)
        port = int(address.split("/")[4]) or 40_000 + len(self.asked)
        if port in self.taken:
            raise Conflict(f"{address} is in use")
        return [f"/ip4/127.0.0.1/tcp/{port}"]


async def test_a_free_port_is_taken_again_at_the_next_start(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path))
    addresses = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/7"]
    await listen(FakeSwarm(set()), addresses, state)
    again = FakeSwarm(set())
    await listen(again, addresses, state)
    assert again.asked == ["/ip4/127.0.0.1/tcp/40001", "/ip4/127.0.0.1/tcp/7"]
    taken = FakeSwarm({40_001})
    await listen(taken, addresses, state)
    assert taken.asked[:2] == ["/ip4/127.0.0.1/tcp/40001", "/ip4/127.0.0.1/tcp/0"]
    assert json.loads(state.read("ports.json") or b"") == {"/ip4/127.0.0.1/tcp/0": 40_002}
    state.write("ports.json", b"[]")
    fresh = FakeSwarm(set())
    await listen(fresh, addresses[:1], state)
    assert fresh.asked == ["/ip4/127.0.0.1/tcp/0"]
    with pytest.raises(FeddError, match="in use"):
        await listen(FakeSwarm({7}), addresses[1:], state)
