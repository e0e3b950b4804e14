"""One worker process: spawned clean, spoken to over a socket pair, killed with all its children.

The daemon never waits for a worker: what it sends is written at once or kept until the pipe has room, what
it gets is cut into frames and handed over as it arrives.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import islice
from typing import Any

import trio

from fedd.api.errors import FeddError, PluginFailed
from fedd.core.pieces import Arrived
from fedd.core.pipe import BUFFERS_AT_ONCE, Frame, PipeDecoder, drop_written, encode_frame

log = logging.getLogger("fedd.host")

_READ_BYTES = 256 * 1024
_SOCKET_BYTES = 4 * 1024 * 1024
"""Of what is under way in the kernel: a message of the largest size that learning sends. With 208 KiB, the
default, two processes that pass 4 MiB to each other wait for each other 14 times each way, with this once,
and take half the processor's time."""
_LARGE_BLOCK_BYTES = 8 * 1024 * 1024
"""Two of learning's largest messages. A round with a model of 40 MB then costs 30 page faults in place of
2,800. With twice as much it is no better, and a daemon is 18 MiB larger when the run is over, not 4."""
_STDERR_KEPT_BYTES = 4096
"""The end of what a worker printed: a traceback's last lines, for the log and the hint."""

_EXIT_GRACE_S = 1.0
"""From the end of the pipe to the end of the process; a worker without its pipe has nothing to do."""

_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    # one thread: sums are then made in one order on every node, and a node's other runs get their share
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # mallopt(3): all blocks come from the heap, of which up to 256 MiB are kept when free. Else every array
    # of a large model is mapped and unmapped anew, with its pages cleared, several times in each round.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(256 * 1024 * 1024),
}


def worker_command(program: str, own: str, walls: Sequence[str]) -> tuple[str, ...]:
    """The command line of a program of `fedd.worker` that keeps to `walls` (`Policy.walls`) and may write in
    the directory `own`; what the program is told follows."""
    return (sys.executable, "-I", "-m", "fedd.worker", *walls, "--own", own, program)


@cache
def _keep_freed_memory() -> None:
    """Let the messages of a large model reuse each other's pages, in this process and from now on.

    glibc gives freed memory back to the kernel above twice the largest block that was ever mapped and freed
    (mallopt(3), M_TRIM_THRESHOLD). Here it is one of which no page is touched.
    """
    bytes(_LARGE_BLOCK_BYTES)


class WorkerProcess:
    """`python -I -m fedd.worker run FD` with a pipe, its own session, scratch directory and environment."""

    def __init__(
        self, process: trio.Process, pipe: socket.socket, scratch: str, max_frame_bytes: int
    ) -> None:
        self._process = process
        self._pipe = pipe
        self._scratch = scratch
        self._decoder = PipeDecoder(max_frame_bytes)
        self._unsent: deque[memoryview] = deque()
        self._writable_wanted = trio.Event()
        self._printed = bytearray()
        self._closed = False

    @classmethod
    async def spawn(
        cls,
        scratch: str,
        max_frame_bytes: int,
        fds: Sequence[int] = (),
        command: Sequence[str] | None = None,
    ) -> WorkerProcess:
        """Start a worker that inherits `fds` under their numbers, in the new directory `scratch`.

        Raises PluginFailed when the process cannot be started.
        """
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):  # as far as the kernel allows
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        try:
            os.makedirs(scratch, mode=0o700, exist_ok=True)
            process = await trio.lowlevel.open_process(
                [*(command or worker_command("run", scratch, ())), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno(), *fds],
                cwd=scratch,
                env={**_ENVIRONMENT, "HOME": scratch, "TMPDIR": scratch},
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            shutil.rmtree(scratch, ignore_errors=True)
            raise PluginFailed(f"a worker process cannot be started: {error.strerror}") from error
        except BaseException:
            ours.close()
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        _keep_freed_memory()
        return cls(process, ours, scratch, max_frame_bytes)

    @property
    def pid(self) -> int:
        """The process id, also of its session and process group."""
        return self._process.pid

    @property
    def last_line(self) -> str:
        """The last line that the worker printed, empty when it printed none."""
        lines = self._printed.decode("utf-8", "replace").strip().splitlines()
        return "".join(char if char.isprintable() else "?" for char in lines[-1])[:300] if lines else ""

    def send(self, header: dict[str, Any], body: Sequence[Arrived] = ()) -> None:
        """Send a frame now, or as soon as the pipe has room. What a dead worker is told is forgotten."""
        if self._closed:
            return
        idle = not self._unsent
        self._unsent += [memoryview(part) for part in encode_frame(header, body) if len(part)]
        if idle:
            self._write()
        if self._unsent:
            self._writable_wanted.set()

    def kill(self) -> None:
        """End the worker and everything that it started, at once. Harmless when repeated."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def ask(self, header: dict[str, Any]) -> dict[str, Any]:
        """Send a message before `run`; returns the next one from the worker that is not `ready`.

        Raises PluginFailed when the worker ends instead, ProtocolError when it sends nonsense.
        """
        answers: list[Frame] = []

        def take(frame: Frame) -> None:
            if frame.header.get("kind") != "ready":
                answers.append(frame)

        self.send(header)
        await self._listen(take, lambda: bool(answers))
        if not answers:
            await self.aclose()
            raise PluginFailed(f"its worker process {self._how_it_ended()} at once", hint=self.last_line)
        return answers[0].header

    async def run(self, on_frame: Callable[[Frame], None]) -> str:
        """Hand over each frame until the worker's end; returns how it ended, as part of a sentence.

        Raises ProtocolError, as `on_frame` may, when the worker sends what it may not. The worker is dead and
        its scratch directory gone when this returns, raises or is cancelled.
        """
        try:
            await self._listen(on_frame)
        finally:
            await self.aclose()
        return self._how_it_ended()

    async def aclose(self) -> None:
        """Kill the worker and remove its traces. Harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self._unsent.clear()
        # Also when it has ended by itself: what it had started is still in its group, which keeps its number.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):  # at once: it was killed
            await self._process.wait()
            self._pipe.close()
            if self._process.stderr is not None:
                await self._process.stderr.aclose()
            # A plugin may have left a million files: the event loop does not wait for their end.
            await trio.to_thread.run_sync(partial(shutil.rmtree, self._scratch, ignore_errors=True))

    async def _listen(
        self, on_frame: Callable[[Frame], None], enough: Callable[[], bool] = lambda: False
    ) -> None:
        """Hand over frames until `enough` or the worker's end; and keep what it prints, or it would block.

        Raises the FeddError that `on_frame` raises, or ProtocolError.
        """
        failure: FeddError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_when_possible)
            nursery.start_soon(self._keep_what_it_prints)
            try:
                await self._read(on_frame, enough)
                if not enough():
                    with trio.move_on_after(_EXIT_GRACE_S):
                        await self._process.wait()
            except FeddError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _write(self) -> None:
        """Write until all is written or the pipe is full."""
        try:
            while self._unsent:
                drop_written(self._unsent, self._pipe.sendmsg(list(islice(self._unsent, BUFFERS_AT_ONCE))))
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()  # the worker is gone; its end is told by the reading side

    async def _write_when_possible(self) -> None:
        while True:
            await self._writable_wanted.wait()
            self._writable_wanted = trio.Event()
            while self._unsent:
                await trio.lowlevel.wait_writable(self._pipe.fileno())
                self._write()

    async def _read(self, on_frame: Callable[[Frame], None], enough: Callable[[], bool]) -> None:
        buffer = bytearray(_READ_BYTES)
        view = memoryview(buffer)
        while not (enough() or self._closed):
            room = self._decoder.room
            if room is not None and len(room) < _READ_BYTES:
                room = None  # what comes behind it is read along
            try:
                await trio.lowlevel.wait_readable(self._pipe.fileno())
                count = self._pipe.recv_into(view if room is None else room)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not count:
                return
            decoder = self._decoder
            for frame in decoder.receive_data(view[:count]) if room is None else decoder.received(count):
                on_frame(frame)
            self._decoder.receive_data(b"")  # raises what is broken behind them

    async def _keep_what_it_prints(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - asked for by PIPE
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for chunk in self._process.stderr:
                self._printed += chunk
                del self._printed[:-_STDERR_KEPT_BYTES]

    def _how_it_ended(self) -> str:
        status = self._process.returncode or 0
        if status >= 0:
            return f"ended with status {status}"
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"was killed by {name}"
