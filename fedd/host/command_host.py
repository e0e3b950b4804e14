"""The plugin host process as the daemon sees it: started at the first call, watched, killed, started again.

A handler that raises costs its own call only. One that does not come back, ends the process or writes
nonsense into the pipe costs the process: the page of memory that both ends share says which call was at work,
so that its plugin gets the blame. Calls that had not begun go to the next process; those that had are told.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from fedd.api.errors import PluginFailed, Unhealthy
from fedd.api.types import PeerId
from fedd.host.command_call import RELOADED, Call, HostTimes, Outside, Page
from fedd.host.plugin_schema import CommandInfo

if TYPE_CHECKING:
    from trio_typing import TaskStatus

    from fedd.host.command_session import Session
    from fedd.host.worker_process import WorkerProcess

log = logging.getLogger("fedd.host")

MAX_FRAME_BYTES = 17 * 1024 * 1024
"""An answer of the most bytes that a command can declare, and what goes with it."""
STRIKES = 3
"""Crashes of one plugin in a row until it is asked no more."""
_ATTEMPTS = 3
"""How often a call that never began is handed to a new process."""

Spawn = Callable[[str, Page], Awaitable["WorkerProcess"]]


async def spawn_host(
    scratch: str, page: Page, walls: Callable[[], Sequence[str]] = lambda: ()
) -> WorkerProcess:
    """Start a plugin host within `walls` (`Policy.walls`). Raises PluginFailed."""
    # here: only a device with commands needs it
    from fedd.host.worker_process import WorkerProcess, worker_command

    command = (*worker_command("commands", scratch, walls()), str(page.descriptor))
    return await WorkerProcess.spawn(scratch, MAX_FRAME_BYTES, (page.descriptor,), command)


class CommandHost:
    """Where commands are handled. `run` must be running for anything to happen."""

    def __init__(
        self, scratch: str, outside: Outside, times: HostTimes | None = None, spawn: Spawn = spawn_host
    ) -> None:
        self._scratch = scratch
        self._outside = outside
        self._times = times or HostTimes()
        self._spawn = spawn
        self._numbers = itertools.count(1)
        self._sessions = itertools.count(1)
        self._session: Session | None = None
        self._starting = trio.Lock()
        self._strikes: dict[str, int] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process at this moment."""
        return self._session is not None

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the process until cancelled; it is killed then."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def members_changed(self) -> None:
        """Somebody came, went or changed: handlers at work are told at once."""
        if self._session is not None:
            self._session.members_changed()

    def reload(self) -> None:
        """Plugins may have changed: forget strikes, and end the process; its calls are told."""
        self._strikes.clear()
        if self._session is not None:
            self._session.kill(0, RELOADED)
            self._session = None

    def check(self, plugin: str) -> None:
        """Raise PluginFailed when a plugin has used up its strikes."""
        if self._strikes.get(plugin, 0) >= STRIKES:
            raise PluginFailed(
                f"the plugin {plugin} is disabled: it ended its process {STRIKES} times in a row",
                hint="reload the daemon (SIGHUP) to try it again",
            )

    async def call(
        self,
        info: CommandInfo,
        sender: PeerId,
        parameters: bytes | memoryview,
        *,
        only_check: bool = False,
    ) -> bytes | memoryview:
        """Have a command handled, or with `only_check` just made of its parameters; the answer's bytes.

        Raises TimedOut when the handler does not end in its time, PluginFailed when its process does or the
        plugin has used up its strikes. What the handler raises is in the answer.
        """
        for _ in range(_ATTEMPTS):
            self.check(info.plugin)
            session = await self._running_session()
            call = Call(info, sender, parameters, only_check)
            await session.serve(next(self._numbers), call)
            if call.lost:
                continue
            if call.error is not None:
                raise call.error
            self._strikes.pop(info.plugin, None)
            return call.answer
        raise PluginFailed(f"the plugin host ended {_ATTEMPTS} times before {info.name} could begin")

    async def _running_session(self) -> Session:
        if self._session is not None:
            return self._session
        async with self._starting:
            if self._session is None:
                if self._nursery is None:
                    raise Unhealthy(
                        "commands cannot be handled", hint="the daemon is starting or shutting down"
                    )
                from fedd.host.command_session import Session  # here: as in `spawn_host`

                page = Page()
                scratch = os.path.join(self._scratch, f"commands-{os.getpid()}-{next(self._sessions)}")
                try:
                    process = await self._spawn(scratch, page)
                except BaseException:
                    page.close()
                    raise
                self._session = Session(process, page, self._outside, self._times, self._settle)
                self._nursery.start_soon(self._session.run)
            return self._session

    def _settle(self, session: Session, blamed: Call | None) -> None:
        """A process has ended, perhaps by somebody's fault."""
        if self._session is session:
            self._session = None
        if blamed is None:
            return
        plugin = blamed.info.plugin
        strikes = self._strikes[plugin] = self._strikes.get(plugin, 0) + 1
        error = f"its command {blamed.info.name} {session.how}"
        if strikes >= STRIKES:
            error += f"; that is {strikes} times in a row, so the plugin is disabled until a reload"
        log.warning("the plugin %s cost the plugin host its life: %s", plugin, error)
        self._outside.trouble(plugin, error)
