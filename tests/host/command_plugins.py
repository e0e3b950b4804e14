"""A world of nodes with real plugin hosts: commands made of text, a broadcast that is played."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
from worker import strangers

from fedd.host.command_call import HostTimes, Page
from fedd.host.worker_process import WorkerProcess

TIMES = HostTimes(start_s=15.0, import_s=2.0, block_s=0.4, grace_s=0.8)

GOOD = '''
"""Commands that behave."""
from dataclasses import dataclass, field
from typing import ClassVar, Literal
import numpy as np
import trio
from fedd.api import Command, CommandContext, Message, NotFound, hookimpl

@dataclass(frozen=True)
class Echo:
    """Says what it hears."""
    name: ClassVar[str] = "echo"
    text: str = field(metadata={"help": "what to say"})
    times: int = 1
    mode: Literal["loud", "quiet"] = "quiet"

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError("times must be at least 1")

    async def handle(self, ctx: CommandContext) -> Message:
        text = self.text.upper() if self.mode == "loud" else self.text
        states = [member.state for member in ctx.members.values()]
        return {"from": ctx.sender, "at": ctx.me, "text": text * self.times, "states": states}

@dataclass(frozen=True)
class Weights:
    """Takes a model's arrays."""
    name: ClassVar[str] = "weights"
    max_payload_bytes: ClassVar[int] = 4_000_000
    arrays: Message
    scale: np.ndarray
    contributors: Message = None
    num_samples: int = 0
    round: int = 0

    async def handle(self, ctx: CommandContext) -> Message:
        total = float(sum(each.sum() for each in self.arrays))
        return {"sum": total, "scaled": self.scale * 2, "contributors": self.contributors}

@dataclass(frozen=True)
class Private:
    """For this device alone."""
    name: ClassVar[str] = "private"
    audience: ClassVar[str] = "local"

    async def handle(self, ctx: CommandContext) -> Message:
        return "done"

@dataclass(frozen=True)
class Forward:
    """Sends another command and returns its answer."""
    name: ClassVar[str] = "forward"
    peer: str
    command: str
    text: str = ""

    async def handle(self, ctx: CommandContext) -> Message:
        if self.peer == "all":
            reached = await ctx.broadcast(self.command, text=self.text)
            return [list(reached.delivered), list(reached.missing)]
        return await ctx.send(self.peer, self.command, **({"text": self.text} if self.text else {}))

@dataclass(frozen=True)
class Runner:
    """Starts a run, looks what there is, and stops it."""
    name: ClassVar[str] = "runner"
    input: str

    async def handle(self, ctx: CommandContext) -> Message:
        started = await ctx.start_run("mean", {"rounds": 3}, input=self.input)
        runs = [[run.run_id, run.algorithm, run.state] for run in await ctx.runs()]
        inputs = dict(await ctx.inputs())
        await ctx.stop_run(started)
        return {"started": started, "runs": runs, "inputs": inputs}

@dataclass(frozen=True)
class Log:
    """Writes an event."""
    name: ClassVar[str] = "log"
    text: str
    count: int = 1

    async def handle(self, ctx: CommandContext) -> Message:
        for number in range(self.count):
            ctx.event(self.text, number=number)
        return None

@dataclass(frozen=True)
class Sleeps:
    """Waits as long as it is told."""
    name: ClassVar[str] = "sleeps"
    timeout_s: ClassVar[float] = 1.0
    seconds: float = 60.0

    async def handle(self, ctx: CommandContext) -> Message:
        await trio.sleep(self.seconds)
        return "rested"

@hookimpl
def fedd_register_commands() -> list[type[Command]]:
    return [Echo, Weights, Private, Forward, Runner, Log, Sleeps]
'''

BAD = '''
"""Commands that do not."""
import ctypes, os, time
from dataclasses import dataclass
from typing import ClassVar
import trio
from fedd.api import Denied, hookimpl

@dataclass(frozen=True)
class Bad:
    """Misbehaves in the way that it is told."""
    name: ClassVar[str] = "bad"
    timeout_s: ClassVar[float] = 20.0
    how: str = "raise"

    async def handle(self, ctx):
        match self.how:
            case "block at once":
                time.sleep(60)
            case "_exit at once":
                os._exit(3)
        await trio.sleep(0)
        match self.how:
            case "raise":
                raise ValueError("the sensor is on fire")
            case "deny":
                raise Denied("not you")
            case "exit":
                raise SystemExit(3)
            case "group":
                raise BaseExceptionGroup("several", [KeyboardInterrupt()])
            case "_exit":
                os._exit(3)
            case "segfault":
                ctypes.string_at(0)
            case "loop":
                while True:
                    pass
            case "block":
                time.sleep(60)
            case "shield":
                with trio.CancelScope(shield=True):
                    await trio.sleep_forever()
            case "object":
                return object()
            case "large":
                return b"x" * (1 << 25)
            case "garbage":
                for descriptor in map(int, os.listdir("/proc/self/fd")):
                    try:
                        if os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
                            os.write(descriptor, b"garbage" * 100)
                    except OSError:
                        pass
                await trio.sleep_forever()
            case "deep":
                value = []
                for _ in range(100):
                    value = [value]
                return value
            case "events":
                for number in range(100):
                    ctx.event("spam")
        return "good"

@dataclass(frozen=True)
class Stuck(Bad):
    """Has no time for it."""
    name: ClassVar[str] = "stuck"
    timeout_s: ClassVar[float] = 0.5

@hookimpl
def fedd_register_commands():
    return [Bad, Stuck]
'''

HANGS = "while True: pass\n"


def host_of(site: Path) -> Callable[[str, Page], Any]:
    """Spawns a plugin host that sees the plugins in `site` and no others."""

    async def spawn(scratch: str, page: Page) -> WorkerProcess:
        command = strangers.command(site, "commands", str(page.descriptor))
        command[-1] = command[-1].replace("]))", "] + sys.argv[1:]))")
        return await WorkerProcess.spawn(scratch, 1 << 24, (page.descriptor,), command)

    return spawn


def document_of(site: Path, distribution: str = "fedd") -> bytes:
    """What the inspector says of the plugins in `site`, as if fedd's own wheel had brought them."""
    done = strangers.run(site, "inspect")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for plugin in found["plugins"]:
        assert plugin["error"] is None, plugin
        plugin["distribution"] = distribution
    return json.dumps(found).encode()


def install(site: Path) -> Path:
    strangers.install(site, {"good": "good_commands", "bad": "bad_commands"},
                      {"good_commands": GOOD, "bad_commands": BAD})  # fmt: skip
    return site


@dataclass
class Arrival:
    """A delivery of the played broadcast."""

    origin: str
    payload: bytes
    epoch: int = 1
    seq: int = 0


@dataclass
class Hole:
    origin: str
    first: int
    last: int


@dataclass
class Reach:
    delivered: tuple[str, ...]
    missing: tuple[str, ...]


class PlayedBroadcast:
    """Delivers at once to all members of `everybody` but those who are `deaf`."""

    def __init__(self, me: str, everybody: dict[str, PlayedBroadcast]) -> None:
        self.me = me
        self.everybody = everybody
        self.callbacks: dict[str, Callable[[Any], None]] = {}
        self.deaf = False
        self.asked = 0
        """How many broadcasts the others were to confirm."""
        everybody[me] = self

    def subscribe(self, channel: str, callback: Callable[[Any], None]) -> None:
        self.callbacks[channel] = callback

    def publish(self, channel: str, payload: bytes) -> None:
        self._publish(channel, payload)

    async def publish_and_wait(self, channel: str, payload: bytes, deadline_s: float) -> Reach:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        return self._publish(channel, payload)

    def _publish(self, channel: str, payload: bytes) -> Reach:
        heard = [peer for peer, other in self.everybody.items() if not other.deaf]
        for peer in heard:
            self.everybody[peer].callbacks[channel](Arrival(self.me, payload))
        missing = [peer for peer in self.everybody if peer not in heard]
        return Reach(tuple(heard), tuple(missing))


@asynccontextmanager
async def running(*rooms: Any) -> AsyncIterator[None]:
    """Hold rooms with a `run` until the end of the block."""
    async with trio.open_nursery() as nursery:
        for room in rooms:
            await nursery.start(room.run)
        yield
        nursery.cancel_scope.cancel()
