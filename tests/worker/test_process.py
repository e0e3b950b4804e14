"""A worker process at the end of a socket, as the daemon sees it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from worker import strangers
from worker.lone_worker import MEMBERS, Worker, workers

from fedd.core import codec
from fedd.core.pipe import PipeDecoder

TROUBLE = '''
import os, sys, trio
from dataclasses import dataclass
from typing import ClassVar
from fedd.api import hookimpl, Stopped

@dataclass(frozen=True)
class Trouble:
    """Makes it."""
    name: ClassVar[str] = "trouble"
    kind: str = ""

    def __post_init__(self):
        if self.kind == "refused":
            raise ValueError("kind must not be refused")

    async def run(self, ctx):
        match self.kind:
            case "raises": raise ValueError("the sensor is on fire")
            case "exits": sys.exit("enough")
            case "sleeps": await trio.sleep_forever()
            case "spins":
                ctx.report(spinning=True)
                await ctx.exchange(None)
                while True: pass
            case "unsendable": return object()
            case "clings":
                while True:
                    try:
                        await ctx.exchange(None)
                    except Stopped as stopped:
                        return str(stopped)
            case "large": return bytes(3_000_000)

@hookimpl
def fedd_register_algorithms():
    return [Trouble]
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    points = {
        "good": "good_plugin",
        "trouble": "trouble_plugin",
        "broken": "broken_plugin",
        "gone": "gone_plugin",
    }
    modules = {
        "good_plugin": strangers.GOOD,
        "trouble_plugin": TROUBLE,
        "broken_plugin": "import sys; sys.exit(7)",
    }
    strangers.install(directory, points, modules)
    return directory


@pytest.fixture
def spawn(site: Path) -> Iterator[Callable[[], Worker]]:
    with workers(site) as spawned:
        yield spawned


def test_a_run_from_start_to_result(spawn: Callable[[], Worker]) -> None:
    worker = spawn().start()
    assert worker.receive().header == {"kind": "ready"}
    for number in range(2):
        exchange = worker.next("exchange")
        assert exchange.header == {
            "kind": "exchange", "round": number, "tag": "", "to": ["p1", "p2"], "same": True
        }  # fmt: skip
        assert codec.decode(exchange.body[0]) == ["p0", 20.5]
        assert len(exchange.body) == 1
        worker.complete(exchange, p1=["p1", number], p2=["p2", None])
    result = worker.next("result")
    assert codec.decode(result.body[0]) == {"p1": ["p1", 1], "p2": ["p2", None]}
    assert result.header["contributors"] == MEMBERS
    assert (result.header["rounds"], result.header["residual"], result.header["agreed"]) == (2, None, True)
    assert "a plugin may print" in worker.end()


def test_metrics_come_at_the_latest_with_the_result(spawn: Callable[[], Worker]) -> None:
    worker = spawn().start(parameters={"times": "1"})
    exchange = worker.receive()
    metrics: dict[str, Any] = {}
    while exchange.header["kind"] != "result":
        if exchange.header["kind"] == "report":
            metrics |= exchange.header["metrics"]
        if exchange.header["kind"] == "exchange":
            worker.complete(exchange)
        exchange = worker.receive()
    assert metrics == {"number": 0}


def test_the_gone_leave_the_run_and_the_tags_are_checked(spawn: Callable[[], Worker]) -> None:
    worker = spawn().start(parameters={"times": 3})
    exchange = worker.next("exchange")
    worker.send({"kind": "round", "round": 0, "from": [], "gone": [["p1", "dead"]], "cut": []})
    exchange = worker.next("exchange")
    assert exchange.header["to"] == ["p2"]
    assert len(exchange.body) == 1
    header = {"kind": "round", "round": 1, "from": ["p2"], "gone": [], "tags": {"p2": "other"}}
    worker.send(header, codec.encode(1))
    cut = worker.next("cut").header
    assert cut["peer"] == "p2"
    assert cut["reason"].startswith("it is at an exchange tagged 'other'")
    assert worker.next("exchange").header["to"] == ["p2"]  # the daemon takes it from the rounds
    worker.send({"kind": "round", "round": 2, "from": [], "gone": [], "cut": ["p2"]})
    assert worker.next("result").header["rounds"] == 3
    worker.end()


@pytest.mark.parametrize(
    ("reason", "code", "said"),
    [
        ("stopped", "stopped", "the run was stopped"),
        ("dropped", "dropped", "declared this node dead"),
        ("quorum: 1 of 3 members are left", "quorum_lost", "1 of 3 members are left"),
        ("the daemon shuts down", "stopped", "the daemon shuts down"),
    ],
)
def test_a_stop_ends_the_exchange_with_its_reason(
    spawn: Callable[[], Worker], reason: str, code: str, said: str
) -> None:
    worker = spawn().start()
    worker.next("exchange")
    worker.send({"kind": "stop", "reason": reason})
    failed = worker.next("failed").header
    assert failed["code"] == code
    assert said in failed["detail"]
    worker.end()


def test_an_algorithm_that_awaits_something_else_is_cancelled_by_a_stop(spawn: Callable[[], Worker]) -> None:
    worker = spawn().start("trouble", "trouble", parameters={"kind": "sleeps"})
    assert worker.receive().header == {"kind": "ready"}
    worker.send({"kind": "stop", "reason": "stopped"})
    assert worker.next("failed").header["code"] == "stopped"
    worker.end()


def test_an_algorithm_may_end_in_its_own_way_when_stopped(spawn: Callable[[], Worker]) -> None:
    worker = spawn().start("trouble", "trouble", parameters={"kind": "clings"})
    worker.next("exchange")
    worker.send({"kind": "stop", "reason": "stopped"})
    assert codec.decode(worker.next("result").body[0]) == "the run was stopped"
    worker.end()


@pytest.mark.parametrize(
    ("start", "code", "said"),
    [
        ({"parameters": {"kind": "raises"}}, "plugin_failed", "ValueError: the sensor is on fire"),
        ({"parameters": {"kind": "exits"}}, "plugin_failed", "SystemExit: enough"),
        ({"parameters": {"kind": "unsendable"}}, "invalid_message", "object cannot travel"),
        ({"parameters": {"kind": "refused"}}, "invalid", "kind must not be refused"),
        ({"parameters": {"knd": "x"}}, "invalid", "no parameter 'knd'"),
        ({"algorithm": "nothing"}, "not_found", "no algorithm nothing"),
        ({"plugin": "nobody"}, "not_found", "nobody is not installed"),
        ({"plugin": "broken"}, "plugin_failed", "SystemExit: 7"),
        ({"plugin": "gone"}, "plugin_failed", "No module named 'gone_plugin'"),
        (
            {"input": {"kind": "file", "format": "csv", "fd": 0, "path": "t.csv"}},
            "invalid_message",
            "t.csv is empty",
        ),
    ],
)
def test_what_goes_wrong_is_told_with_code_and_reason(
    spawn: Callable[[], Worker], start: dict[str, Any], code: str, said: str
) -> None:
    worker = spawn().start(**{"algorithm": "trouble", "plugin": "trouble", **start})
    failed = worker.next("failed").header
    assert failed["code"] == code
    assert said in failed["detail"]
    assert "Traceback" not in failed["detail"]
    worker.end()


def test_a_check_builds_the_algorithm_and_waits_for_the_start(spawn: Callable[[], Worker]) -> None:
    worker = spawn().start("trouble", "trouble", kind="check", parameters={"kind": "large"})
    worker.next("checked")
    worker.start("trouble", "trouble", parameters={"kind": "large"})
    assert len(codec.decode(worker.next("result").body[0], max_bytes=1 << 24)) == 3_000_000
    worker.end()
    worker = spawn().start("trouble", "trouble", kind="check", parameters={"kind": "refused"})
    failed = worker.next("failed").header
    assert (failed["code"], failed["field"]) == ("invalid", "kind")
    worker.end()
    worker = spawn().start("trouble", "trouble", kind="check")
    worker.next("checked")
    worker.send({"kind": "stop", "reason": "stopped"})
    worker.end()


def test_a_file_comes_as_a_descriptor(spawn: Callable[[], Worker], site: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("1,2\n3,4\n")
    with table.open("rb") as source:
        worker = Worker.__new__(Worker)
        sock, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                strangers.command(site, "run", str(theirs.fileno())),
                pass_fds=[theirs.fileno(), source.fileno()],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        worker.sock, worker.process, worker.frames = sock, process, []
        worker.decoder = PipeDecoder(1 << 24)
        handle = {"kind": "file", "fd": source.fileno(), "format": "csv", "path": str(table), "name": "t"}
        worker.start(input=handle, parameters={"times": 1})
    message = codec.decode(worker.next("exchange").body[0])
    assert message[1].tolist() == [[1, 2], [3, 4]]
    sock.close()
    worker.end()


def test_a_worker_ends_when_the_daemon_is_gone(spawn: Callable[[], Worker]) -> None:
    waiting, sleeping, idle = spawn().start(), spawn(), spawn()
    sleeping.start("trouble", "trouble", parameters={"kind": "sleeps"})
    waiting.next("exchange")
    for worker in (sleeping, idle):
        assert worker.receive().header == {"kind": "ready"}
    for worker in (waiting, sleeping, idle):
        worker.sock.close()
        assert "Traceback" not in worker.end()


def test_even_one_that_burns_its_processor(spawn: Callable[[], Worker]) -> None:
    worker = spawn().start("trouble", "trouble", parameters={"kind": "spins"})
    worker.complete(worker.next("exchange"))
    worker.sock.close()
    worker.end(status=1)


@pytest.mark.parametrize("end", ["process.end_with_the_daemon(fd); time.sleep(60)", "process.run(fd)"])
def test_without_a_daemon_its_children_end_too(end: str) -> None:
    ours, theirs = socket.socketpair()
    program = (
        "import subprocess, sys, time; from fedd.worker import orphan, process; orphan.ORPHAN_GRACE_S = 0.1\n"
        "fd = int(sys.argv[1]); subprocess.Popen(['sleep', '60'])\n"
        f"print('ready', flush=True); {end}"
    )
    command = [sys.executable, "-c", program, str(theirs.fileno())]
    with (
        theirs,
        subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, start_new_session=True
        ) as worker,
    ):
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        theirs.close()
        ours.close()
        worker.communicate(timeout=30)  # to the end of the pipe, which the child holds open as well
        assert worker.returncode == -signal.SIGKILL


def test_a_daemon_that_breaks_the_protocol_ends_the_run(spawn: Callable[[], Worker]) -> None:
    worker = spawn().start()
    worker.next("exchange")
    worker.send({"kind": "round", "round": 7, "from": [], "gone": []})
    assert worker.next("failed").header["code"] == "protocol"
    worker.end()
    worker = spawn().start()
    worker.next("exchange")
    worker.sock.sendall(b"\xff" * 64)
    assert worker.next("failed").header["code"] == "protocol"
    worker.end()


def test_it_imports_one_plugin_and_little_else(spawn: Callable[[], Worker]) -> None:
    worker = spawn().start()
    worker.next("exchange")
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    resident_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert resident_kib <= 48 * 1024
    maps = Path(f"/proc/{worker.process.pid}/maps").read_text()
    assert "numpy" in maps
    assert "_generator" not in maps  # numpy.random comes with ctx.rng
    os.kill(worker.process.pid, signal.SIGTERM)
    worker.end(status=-signal.SIGTERM)
