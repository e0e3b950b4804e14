"""Inputs that a program prints: run to its end, with a deadline and a bound on what it says."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import trio

from fedd.api.errors import InvalidParameter, TimedOut

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
"""What a command may print: the size of the largest table that the worker would parse in some seconds."""

COMMAND_TIMEOUT_S = 30.0
"""A sensor answers in seconds; meanwhile the whole run waits for this node."""

COMMAND_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def run_command(name: str, command: tuple[str, ...]) -> bytes:
    """What it prints. Raises TimedOut, or InvalidParameter when it fails or prints too much."""
    shown = " ".join(command)
    try:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": COMMAND_PATH, "LANG": "C.UTF-8"},
            start_new_session=True,
        )
    except OSError as error:
        raise InvalidParameter(
            f"the input {name!r}: {shown} cannot be run: {error.strerror}", field="input"
        ) from error
    output, complaint = bytearray(), bytearray()
    with trio.move_on_after(COMMAND_TIMEOUT_S) as deadline:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_collect, process.stderr, complaint, 4096)
                nursery.start_soon(_collect, process.stdout, output, MAX_OUTPUT_BYTES + 1)
                await process.wait()
        finally:
            await _end(process)
    if deadline.cancelled_caught:
        raise TimedOut(
            f"the input {name!r}: {shown} did not end within {COMMAND_TIMEOUT_S:g} s", field="input"
        )
    if process.returncode:
        last = complaint.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise InvalidParameter(
            f"the input {name!r}: {shown} ended with status {process.returncode}: {last[0][:200]}",
            field="input",
        )
    if len(output) > MAX_OUTPUT_BYTES:
        raise InvalidParameter(
            f"the input {name!r}: {shown} printed more than {MAX_OUTPUT_BYTES} bytes", field="input"
        )
    return bytes(output)


async def _end(process: trio.Process) -> None:
    """The command leads a session of its own: whatever it left behind must go too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with trio.CancelScope(shield=True):  # at once: it was killed
        await process.wait()


async def _collect(stream: trio.abc.ReceiveStream | None, into: bytearray, limit: int) -> None:
    """Read to the end, keep the first `limit` bytes."""
    if stream is not None:
        async with stream:
            async for chunk in stream:
                into += chunk[: max(0, limit - len(into))]
