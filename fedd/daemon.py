"""The composition root: build every room, start them in order, end them in order."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from fedd import __version__
from fedd.api.errors import FeddError
from fedd.checks import learner_problems
from fedd.config import BadConfig, Config
from fedd.control.command_service import CommandService
from fedd.control.listener import ControlSocket, open_control_socket, passed_sockets
from fedd.control.server import ControlServer
from fedd.control.service import Service
from fedd.core.identity import PrivateKey
from fedd.core.membership_types import PresenceTiming
from fedd.core.verdicts import MemberChange
from fedd.host.command_host import spawn_host
from fedd.host.command_runs import CommandRuns
from fedd.host.commands import Commands
from fedd.host.inputs import Inputs
from fedd.host.plugins import PluginRegistry
from fedd.host.policy import Policy
from fedd.host.run_limits import RunLimits
from fedd.host.runs import Runs
from fedd.logs import set_up as set_up_logs
from fedd.net.admission import Admission
from fedd.net.broadcast import Broadcaster
from fedd.net.circuits import RelayLimits
from fedd.net.connection import Connection
from fedd.net.discovery import Discovery
from fedd.net.doors import SwarmLimits
from fedd.net.events import EventLog
from fedd.net.federation import FederationIdentity
from fedd.net.identify_push import Identifier
from fedd.net.listening import listen
from fedd.net.own_addresses import OwnAddresses
from fedd.net.ping import serve_ping
from fedd.net.presence import Presence
from fedd.net.relay import Relay
from fedd.net.swarm import Swarm
from fedd.net.transport import parse_multiaddr
from fedd.notify import Notifier
from fedd.paths import credential, private_directories, take_service_manager
from fedd.state import IDENTITY_NAME, StateDirectory

if TYPE_CHECKING:
    from trio_typing import TaskStatus

logger = logging.getLogger("fedd")

# SIGTERM to exit takes at most 5 s: so long for workers to end and goodbyes to go out, the rest for Python.
SHUTDOWN_S = 4.0

# A reader that stalls must not hold the exit up.
STREAMS_END_S = 0.5

SCRATCH_NAME = "scratch"

# How often the service manager's status line is looked at.
STATUS_S = 2.0


def run(
    config: Config, read_config: Callable[[], Config], *, state_dir: str, socket_path: str, log_style: str
) -> None:
    """Run a daemon until SIGTERM or SIGINT.

    `read_config` is asked again at SIGHUP. Raises FeddError when the daemon cannot start: KeyExposed,
    Conflict for a state directory, socket or port in use, StateUnusable and others.
    """
    manager = take_service_manager()
    set_up_logs(log_style, manager.journal)
    # A core dump would hold the identity key.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    state = StateDirectory(state_dir)
    state.lock()
    key = state.load_or_create_identity(credential(IDENTITY_NAME))
    sockets = passed_sockets(manager.listen_fds) or [open_control_socket(socket_path)]
    notifier = Notifier(manager.notify_socket)
    try:
        trio.run(_run, config, read_config, state, key, sockets, notifier, manager.watchdog_s)
    except BaseExceptionGroup as group:
        raise _cause(group) from group
    finally:
        for sock in sockets:
            sock.release()
        notifier.close()
        state.unlock()


async def _run(
    config: Config,
    read_config: Callable[[], Config],
    state: StateDirectory,
    key: PrivateKey,
    sockets: list[ControlSocket],
    notifier: Notifier,
    watchdog_s: float,
) -> None:
    daemon = Daemon(config, read_config, state, key, notifier)
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run, sockets)
        notifier.ready()
        logger.info("%s is ready: %s at %s", config.name, key.peer_id, " ".join(daemon.swarm.addresses))
        nursery.start_soon(daemon.report, watchdog_s)
        await daemon.stop_requested.wait()
        notifier.stopping()
        await daemon.shut_down()
        nursery.cancel_scope.cancel()


class Daemon:
    """All rooms of one daemon."""

    def __init__(
        self,
        config: Config,
        read_config: Callable[[], Config],
        state: StateDirectory,
        key: PrivateKey,
        notifier: Notifier,
    ) -> None:
        self.config = config
        self.stop_requested = trio.Event()
        self._read_config = read_config
        self._state = state
        self._notifier = notifier
        self._plugins_wanted = trio.Event()
        self.events = EventLog()
        limits = config.limits
        self.swarm = Swarm(
            key,
            SwarmLimits(
                connections=int(limits["max_connections"]),
                pending_handshakes=int(limits["max_pending_handshakes"]),
            ),
            agent=f"fedd/{__version__}",
        )
        serve_ping(self.swarm)
        self.identifier = Identifier(self.swarm)
        metered = config.presence_profile == "metered"
        self.presence = Presence(
            self.swarm,
            key,
            state,
            timing=PresenceTiming.metered() if metered else PresenceTiming.lan(),
            name=config.name,
            version=__version__,
            announce=config.announce,
        )
        self.broadcaster = Broadcaster(self.presence, key)
        self.admission = Admission(self.swarm, self.presence, key, state)
        relayed = limits["max_relayed_bytes_per_s"]
        self.relay = Relay(
            self.swarm,
            self.presence,
            RelayLimits(relayed_bytes_per_s=relayed, relayed_burst_bytes=relayed),
        )
        self.admission.authority.reach = self.relay.reach
        self.own_addresses = OwnAddresses(self.swarm, self.presence)
        self.discovery = Discovery(self.swarm, self.presence) if config.mdns else None
        policy = policy_of(config)
        self.registry = PluginRegistry(policy, hidden=private_directories(state.path))
        self.inputs = Inputs(config.inputs, state, self.registry)
        self.runs = Runs(
            self.swarm,
            self.presence,
            self.relay,
            self.registry,
            self.inputs,
            key,
            state,
            os.path.join(state.path, SCRATCH_NAME),
            policy=policy,
            limits=RunLimits(
                runs=int(limits["max_runs"]),
                results=int(limits["max_results"]),
                payload_bytes=int(limits["max_payload_bytes"]),
                edge_timeout_s=limits["edge_timeout_s"],
                stall_timeout_s=limits["stall_timeout_s"],
            ),
            events=self.events,
        )
        self.commands = Commands(
            self.swarm,
            self.presence,
            self.registry,
            self.events,
            os.path.join(state.path, SCRATCH_NAME),
            reach=self.relay.reach,
            broadcaster=self.broadcaster,
            runs=CommandRuns(self.runs, self.inputs),
            spawn=partial(spawn_host, walls=self.registry.command_walls),
        )
        self.service = Service(
            name=config.name,
            swarm=self.swarm,
            presence=self.presence,
            admission=self.admission,
            registry=self.registry,
            inputs=self.inputs,
            runs=self.runs,
            events=self.events,
            identifier=self.identifier,
            relay=self.relay,
        )
        command_service = CommandService(self.commands, self.registry, self.service.find_peer)
        self.server = ControlServer({**self.service.operations(), **command_service.operations()})
        self.service.tell_bounds(self.server.bounds)
        self.service.tell_bounds(self.broadcaster.bounds)
        self.service.tell_bounds(self.commands.bounds)
        if self.discovery is not None:
            self.service.tell_bounds(self.discovery.bounds)
        self.swarm.subscribe(self._link_changed)
        self.presence.subscribe(self._member_changed)
        self.presence.subscribe_notices(lambda what: self._note(what))

    async def run(
        self, sockets: list[ControlSocket], *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run every room until cancelled; started when links and the control socket are accepted.

        Raises Conflict when a listening address is in use.
        """
        async with trio.open_nursery() as nursery:
            # First of all: a signal that comes right after READY must find its receiver.
            await nursery.start(self._receive_signals)
            await nursery.start(self.swarm.run)
            await nursery.start(self.identifier.run)
            await listen(self.swarm, self.config.listen, self._state)
            await nursery.start(self.presence.run)
            await nursery.start(self.broadcaster.run)
            await nursery.start(self.relay.run)
            self.admission.restore(self._allow_list(self.config))
            await nursery.start(self.admission.run)
            await nursery.start(self.runs.run)
            await nursery.start(self.commands.run)
            self._pin(self.config.connect)
            if self.discovery is not None:
                self.own_addresses.subscribe(self.discovery.look)
                nursery.start_soon(self.discovery.run)
            await nursery.start(self.own_addresses.run)
            await nursery.start(self.server.serve, sockets)
            task_status.started()
            self._note("started")
            while True:
                self._plugins_wanted = trio.Event()
                await self._load_plugins()
                self.commands.reload()
                release_free_memory()
                await self._plugins_wanted.wait()

    async def shut_down(self) -> None:
        """End the runs here, say goodbye to the peers, let streams of the control socket end."""
        with trio.move_on_after(SHUTDOWN_S):
            await self.runs.leave_all("the daemon is shutting down", for_good=False)
            await self.presence.goodbye()
            self._note("stopping")
            self.events.close()
            with trio.move_on_after(STREAMS_END_S):
                await self.server.wait_idle()

    async def report(self, watchdog_s: float) -> None:
        """Tell the service manager that the event loop turns, and what goes on."""
        pause_s = min(STATUS_S, watchdog_s / 3) if watchdog_s else STATUS_S
        while True:
            counts = self.service.count_states()
            words = [f"{count} {state}" for state, count in counts.items() if count]
            active = self.runs.active
            words += ["1 run" if active == 1 else f"{active} runs"] if active else []
            self._notifier.status(", ".join(words) or "in no federation")
            if watchdog_s:
                self._notifier.alive()
            await trio.sleep(pause_s)

    async def reload(self) -> None:
        """Read the configuration again and apply what can be applied; a bad one changes nothing."""
        self._notifier.reloading()
        try:
            new = self._read_config()
        except BadConfig as error:
            for problem in error.problems:
                logger.error("configuration not reloaded: %s", problem)
            self._note("reload refused", reason=str(error.problems[0]))
        else:
            self._apply(new)
        self._notifier.ready()

    def _apply(self, new: Config) -> None:
        live, restart = self.config.changes(new)
        self.runs.set_policy(policy_of(new))
        self.inputs.reload(new.inputs)
        self.admission.set_allow_list(self._allow_list(new))
        old_connect = self.config.connect
        for address in old_connect:
            if address not in new.connect:
                self.presence.unpin(_peer_of(address))
        self._pin(tuple(address for address in new.connect if address not in old_connect))
        self._plugins_wanted.set()
        if live:
            logger.info("configuration reloaded: %s", ", ".join(live))
        if restart:
            logger.warning("changed, and used only after a restart: %s", ", ".join(restart))
        self._note("reloaded", applied=live, needs_restart=restart)
        self.config = new

    async def _receive_signals(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    await self.reload()
                    continue
                if self.stop_requested.is_set():
                    logger.warning("second signal, ending at once")
                    os._exit(1)
                logger.info("stopping after %s", signal.Signals(number).name)
                self.stop_requested.set()

    async def _load_plugins(self) -> None:
        await self.registry.load()
        for plugin in self.registry.plugins():
            if plugin.error:
                self.events.publish("plugin", name=plugin.name, error=plugin.error)
        for problem in learner_problems(self.config, self.inputs):
            logger.error("an input cannot be used: %s", problem)
            self.events.publish("input", input=problem.key.split(".")[1], error=problem.detail)

    def _allow_list(self, config: Config) -> FederationIdentity | None:
        """The federation of those whom the configuration names; this node is always among them."""
        if not config.allow:
            return None
        return FederationIdentity.from_allow_list(config.federation_name, {*config.allow, self.swarm.peer_id})

    def _pin(self, addresses: tuple[str, ...]) -> None:
        for address in addresses:
            try:
                self.presence.pin(_peer_of(address), [address])
            except FeddError as error:
                logger.warning("cannot keep a link to %s: %s", address, error)

    def _note(self, what: str, **fields: object) -> None:
        self.events.publish("node", what=what, **fields)

    def _link_changed(self, kind: str, connection: Connection, reason: str) -> None:
        self.events.publish(
            "link",
            peer_id=connection.peer_id,
            state=kind,
            direction=connection.direction,
            address=connection.remote_address,
            reason=reason or None,
        )

    def _member_changed(self, change: MemberChange) -> None:
        name = self.presence.name_of(change.peer_id)
        self.events.publish(
            "member",
            peer_id=change.peer_id,
            name=name,
            old=change.old,
            state=change.new,
            reason=change.reason or None,
        )
        self.identifier.refresh()  # a member may speak more protocols than a stranger
        why = f": {change.reason}" if change.reason else ""
        logger.info("%s (%s) is %s%s", name or "a member", change.peer_id, change.new, why)


def release_free_memory() -> None:
    """Give the kernel what malloc holds unused; where libc has no malloc_trim(3), do nothing.

    Starting leaves 0.5 MiB of it behind. ctypes costs nothing here: trio has loaded it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def policy_of(config: Config) -> Policy:
    """The `[policy]` section as the host knows it."""
    names = (config.policy_algorithms, config.policy_inputs, config.policy_initiators)
    more = (config.policy_commands, config.policy_aggregators, config.policy_network, config.policy_writable)
    return Policy(*names, *more)


def _peer_of(address: str) -> str:
    peer_id = parse_multiaddr(address).peer_id
    if peer_id is None:  # the configuration was checked for it
        raise FeddError(f"{address} does not name a peer")
    return peer_id


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one deliberate error in `group`, else the group itself."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, FeddError) else group
