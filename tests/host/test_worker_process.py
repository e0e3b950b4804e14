"""Real processes: small programs in the worker's place."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trio
from waiting import until

from fedd.api.errors import PluginFailed, ProtocolError
from fedd.core.pipe import Frame
from fedd.host.worker_process import WorkerProcess

GUARD_S = 60.0
"""Against waiting for ever; a busy machine may need long to start a process."""
PRELUDE = """
import os, socket, sys, time
from fedd.core.pipe import PipeDecoder, encode_frame
sock = socket.socket(fileno=int(sys.argv[1]))
decoder = PipeDecoder(1 << 30)
def say(header, *body):
    for part in encode_frame(header, body): sock.sendall(part)
def hear():
    frames = []
    while not frames:
        data = sock.recv(1 << 20)
        if not data: sys.exit(0)
        frames = decoder.receive_data(data)
    return frames[0]
"""


async def spawn(tmp_path: Path, program: str, fds: tuple[int, ...] = ()) -> WorkerProcess:
    command = (sys.executable, "-c", PRELUDE + program)
    return await WorkerProcess.spawn(str(tmp_path / "scratch"), 1 << 24, fds, command)


async def test_frames_go_both_ways_and_the_end_is_told(tmp_path: Path) -> None:
    worker = await spawn(tmp_path, "frame = hear(); say({'got': frame.header['n']}, *frame.body)")
    large = os.urandom(3_000_000)
    worker.send({"n": 1}, [large, b"", b"small"])
    frames: list[Frame] = []
    with trio.fail_after(GUARD_S):
        assert await worker.run(frames.append) == "ended with status 0"
    (frame,) = frames
    assert frame.header == {"got": 1}
    assert [bytes(part) for part in frame.body] == [large, b"", b"small"]
    assert not (tmp_path / "scratch").exists()
    worker.send({"too": "late"})
    await worker.aclose()


@pytest.mark.parametrize(
    ("program", "how"),
    [
        ("sys.exit(3)", "ended with status 3"),
        ("os.kill(os.getpid(), 11)", "was killed by SIGSEGV"),
        ("os.kill(os.getpid(), 40)", "was killed by signal 40"),
        ("sock.close(); time.sleep(60)", "was killed by SIGKILL"),
    ],
)
async def test_how_a_worker_ends(tmp_path: Path, program: str, how: str) -> None:
    worker = await spawn(tmp_path, program)
    with trio.fail_after(GUARD_S):
        assert await worker.run(lambda frame: None) == how


async def test_the_last_line_it_printed_is_kept(tmp_path: Path) -> None:
    worker = await spawn(
        tmp_path, "sys.stderr.write('noise\\n' * 5000 + 'No\\x1b such sensor\\n'); sys.exit(1)"
    )
    with trio.fail_after(GUARD_S):
        await worker.run(lambda frame: None)
    assert worker.last_line == "No? such sensor"


async def test_garbage_kills_it(tmp_path: Path) -> None:
    worker = await spawn(tmp_path, "sock.sendall(b'x' * 100); time.sleep(60)")
    with trio.fail_after(GUARD_S), pytest.raises(ProtocolError):
        await worker.run(lambda frame: None)
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


async def test_what_it_said_before_the_garbage_is_heard(tmp_path: Path) -> None:
    program = "sock.sendall(b''.join(encode_frame({'n': 1}, [])) + b'garbage' * 100); time.sleep(60)"
    worker = await spawn(tmp_path, program)
    frames: list[Frame] = []
    with trio.fail_after(GUARD_S), pytest.raises(ProtocolError):
        await worker.run(frames.append)
    assert [frame.header for frame in frames] == [{"n": 1}]


async def test_cancelling_kills_it_and_its_children(tmp_path: Path) -> None:
    worker = await spawn(
        tmp_path,
        "import subprocess; c = subprocess.Popen(['sleep', '60']); say({'child': c.pid}); time.sleep(60)",
    )
    child: list[int] = []
    with trio.CancelScope() as scope:

        def take(frame: Frame) -> None:
            child.append(frame.header["child"])
            scope.cancel()

        await worker.run(take)
    await until(lambda: not alive(child[0]), GUARD_S)


async def test_what_it_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    worker = await spawn(
        tmp_path, "import subprocess; c = subprocess.Popen(['sleep', '60']); say({'child': c.pid})"
    )
    frames: list[Frame] = []
    with trio.fail_after(GUARD_S):
        assert await worker.run(frames.append) == "ended with status 0"
    await until(lambda: not alive(frames[0].header["child"]), GUARD_S)


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


async def test_ask_before_run(tmp_path: Path) -> None:
    worker = await spawn(
        tmp_path,
        "say({'kind': 'ready'}); hear(); say({'kind': 'checked'}); say({'kind': 'again'}) if hear() else 0",
    )
    with trio.fail_after(GUARD_S):
        assert await worker.ask({"kind": "check"}) == {"kind": "checked"}
        frames: list[Frame] = []
        worker.send({"kind": "start"})
        await worker.run(frames.append)
    assert [frame.header["kind"] for frame in frames] == ["again"]


async def test_ask_a_worker_that_dies(tmp_path: Path) -> None:
    worker = await spawn(tmp_path, "sys.stderr.write('no such library\\n'); sys.stderr.flush(); sys.exit(5)")
    with trio.fail_after(GUARD_S), pytest.raises(PluginFailed, match="status 5 at once") as caught:
        await worker.ask({"kind": "check"})
    assert caught.value.hint == "no such library"
    assert not (tmp_path / "scratch").exists()


async def test_a_worker_that_prints_much_while_it_is_asked(tmp_path: Path) -> None:
    worker = await spawn(tmp_path, "sys.stderr.write('noise' * 100_000); say({'kind': 'checked'}); hear()")
    with trio.fail_after(GUARD_S):
        assert await worker.ask({"kind": "check"}) == {"kind": "checked"}
        await worker.aclose()
        await worker.aclose()


async def test_inherits_descriptors_and_nothing_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDD_SECRET", "x")
    (tmp_path / "data").write_text("hello")
    fd = os.open(tmp_path / "data", os.O_RDONLY)
    program = f"say({{'read': os.read({fd}, 9), 'env': sorted(os.environ), 'cwd': os.getcwd()}})"
    worker = await spawn(tmp_path, program, (fd,))
    os.close(fd)
    frames: list[Frame] = []
    with trio.fail_after(GUARD_S):
        await worker.run(frames.append)
    header = frames[0].header
    assert header["read"] == b"hello"
    assert "FEDD_SECRET" not in header["env"]
    assert header["cwd"] == str(tmp_path / "scratch")


async def test_a_program_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(PluginFailed, match="cannot be started"):
        await WorkerProcess.spawn(str(tmp_path / "scratch"), 1024, (), ("/no/such/program",))
    assert not (tmp_path / "scratch").exists()
