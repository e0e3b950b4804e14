"""fedd and serf behind one door: N of each, one a machine of a network, and what every one of them says.

fedd tells its event log as it happens (`GET /v1/events`). serf's own event stream holds member events back
for one to three seconds to bundle them, so its members are asked for over its RPC instead, POLL_S after each
answer: what it knows counts, not what it has told.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from federation.clock import set_clock
from federation.daemons import Daemon, eventually
from federation.network import PORT, Network
from membership_views import Views
from serf_rpc import SerfClient, SerfError

from fedd.api.errors import Conflict, FeddError
from fedd.control.client import Client

POLL_S = 0.05
RETRY_S = 0.05
READY_S = 60.0
JOIN_ATTEMPTS = 10
SERF_PORT = 7946
RPC_PORT = 7373
CLOCK = Path(__file__).parent.parent / "federation" / "clock.py"
MARKER = re.compile(r"bench-[0-9]{6}-")
"""What broadcasts begin with."""


class System(ABC):
    """One of the two, on all machines of a network. Members are called n1, n2 ..., places count from 0."""

    name = ""

    def __init__(self, lan: Network, root: Path) -> None:
        self.lan = lan
        self.root = root
        self.names = [f"n{node.number}" for node in lan]
        self.views = Views(self.names)
        self.awake = threading.Event()
        """Cleared, pollers rest."""
        self.awake.set()
        self._over = threading.Event()

    @abstractmethod
    def start(self, place: int) -> None:
        """Start a process and return when it answers; one that was a member before is so again."""

    @abstractmethod
    def join_all(self) -> float:
        """Let everybody, alone so far, join the first at once; when the first request went out."""

    @abstractmethod
    def part_all(self) -> None:
        """Make everybody alone again."""

    @abstractmethod
    def leave(self, place: int) -> float:
        """Let one leave for good; when the request went out."""

    @abstractmethod
    def come_back(self, place: int) -> None:
        """Let one that has left join again."""

    @abstractmethod
    def broadcast(self, place: int, text: str, confirmed: bool) -> float:
        """Send a small message to everybody; when the request went out.

        `confirmed`: everybody is asked whether it came. Serf cannot do that.
        """

    @abstractmethod
    def pid(self, place: int) -> int:
        """The process id of one."""

    @abstractmethod
    def kill(self, place: int) -> float:
        """SIGKILL; when."""

    @abstractmethod
    def help_home(self, place: int) -> None:
        """A member that was cut off can be reached again."""

    def signal(self, place: int, number: signal.Signals) -> None:
        """Send one a signal."""
        os.kill(self.pid(place), number)

    def close(self) -> None:
        """End everything."""
        self._over.set()
        self.awake.set()


class Fedd(System):
    """fedd's daemons, profile lan."""

    name = "fedd"

    def __init__(self, lan: Network, root: Path) -> None:
        super().__init__(lan, root)
        self.daemons = [Daemon(root, name) for name in self.names]
        self.clock = root / "clock"
        """The last one's wall clock is wrong by so many seconds."""
        set_clock(self.clock, 0)
        self.refusals: Counter[str] = Counter()
        """What requests failed with, and how often."""
        self.unconfirmed = 0
        """How often somebody did not acknowledge a broadcast in time."""
        self.broken: list[tuple[float, str, str]] = []
        """When the reading of whose event log broke off, and why."""
        self._ids: dict[str, str] = {}
        self._federation = 0
        for node, daemon in zip(lan, self.daemons, strict=True):
            daemon.prefix = node.prefix
        if len(self.daemons) > 1:
            self.daemons[-1].program = (str(CLOCK), str(self.clock))
        # All at once, because each takes most of a second.
        for place in range(len(self.daemons)):
            self._spawn(place)
        for place in range(len(self.daemons)):
            self._identify(place)
            threading.Thread(target=self._watch, args=(place,), daemon=True).start()

    def start(self, place: int) -> None:
        self._spawn(place)
        self._identify(place)

    def join_all(self) -> float:
        self._federation += 1
        self._ask(0, "init", {"federation": f"bench{self._federation}"})
        token = self._ask(0, "invite", {"uses": 1000})["token"]
        started_s = time.monotonic()
        at_once(range(1, len(self.names)), lambda place: self._join(place, token))
        return started_s

    def part_all(self) -> None:
        at_once(range(len(self.names)), self._part)
        time.sleep(0.5)  # what it still tells
        self.views.forget(*self.names)

    def leave(self, place: int) -> float:
        started_s = time.monotonic()
        self._ask(place, "leave", {})
        return started_s

    def come_back(self, place: int) -> None:
        self.views.forget(self.names[place])
        token = self._ask(0, "invite", {})["token"]
        self._ask(place, "join", {"token": token})

    def help_home(self, place: int) -> None:
        pass  # it finds home

    def broadcast(self, place: int, text: str, confirmed: bool) -> float:
        # As `fedctl broadcast note text=...` does, with --no-wait when it is not to be confirmed.
        started_s = time.monotonic()
        threading.Thread(target=self._note, args=(place, text, confirmed), daemon=True).start()
        return started_s

    def pid(self, place: int) -> int:
        return self.daemons[place].pid

    def kill(self, place: int) -> float:
        at_s = time.monotonic()
        self.daemons[place].kill()
        return at_s

    def close(self) -> None:
        super().close()
        for daemon in self.daemons:
            daemon.destroy()

    def links(self, place: int) -> int:
        """How many links one has."""
        with Client(str(self.daemons[place].socket)) as client:
            return len(client.request("GET", "/v1/links"))

    def _spawn(self, place: int) -> None:
        node = self.lan[place]
        options = ("--listen", f"/ip6/{node.ip6}/tcp/{PORT}")
        self.daemons[place].start(*options, listen=f"/ip4/{node.ip4}/tcp/{PORT}")

    def _identify(self, place: int) -> None:
        daemon = self.daemons[place]
        eventually(daemon.socket.exists, READY_S, f"{daemon.name} comes up, see {daemon.log}")
        with Client(str(daemon.socket), patience_s=READY_S) as client:
            self._ids[client.request("GET", "/v1/status")["peer_id"]] = self.names[place]
            # Answered when the plugins are loaded, which is when a daemon that has started is at rest.
            client.request("GET", "/v1/plugins")

    def _ask(self, place: int, verb: str, body: dict[str, Any]) -> Any:
        with Client(str(self.daemons[place].socket)) as client:
            return client.request("POST", f"/v1/federation/{verb}", body)

    def _note(self, place: int, text: str, confirmed: bool) -> None:
        body = {"parameters": {"text": text}, "wait": confirmed}
        with Client(str(self.daemons[place].socket)) as client:
            try:
                reply = client.request("POST", "/v1/commands/note/broadcast", body)
            except FeddError as error:
                self.refusals[f"broadcast: {error}"] += 1
            else:
                self.unconfirmed += len(reply["missing"])

    def _join(self, place: int, token: str) -> None:
        """Join as an operator does: again, when it did not work."""
        for _ in range(JOIN_ATTEMPTS):
            try:
                self._ask(place, "join", {"token": token})
            except Conflict:  # a member already, only not linked in time
                return
            except FeddError as error:
                self.refusals[f"join: {error}"] += 1
            else:
                return

    def _part(self, place: int) -> None:
        with contextlib.suppress(Conflict):  # it never got in
            self._ask(place, "leave", {})

    def _watch(self, place: int) -> None:
        """Read one daemon's event log, each event of each of its lives once."""
        name, daemon = self.names[place], self.daemons[place]
        life, seq = daemon.pid, 0
        while not self._over.is_set():
            if daemon.pid != life:
                life, seq = daemon.pid, 0
                self.views.forget(name)
            try:
                with Client(str(daemon.socket)) as client:
                    for event in client.stream("GET", "/v1/events", query={"since": str(seq)}):
                        self._take(name, event, time.monotonic())
                        seq = event["seq"]
            except (FeddError, OSError) as error:
                if seq:
                    self.broken.append((time.monotonic(), name, str(error)))
            time.sleep(RETRY_S)

    def _take(self, observer: str, event: dict[str, Any], at_s: float) -> None:
        kind = event["kind"]
        if kind == "member":
            member = self._ids.get(event["peer_id"])
            if member is not None:
                self.views.note(observer, member, event["state"], at_s)
        elif kind == "lagged":
            raise RuntimeError("fedd's events came faster than they were read")
        elif kind == "command" and (found := MARKER.search(event.get("text", ""))):
            self.views.deliver(observer, found[0], at_s)


class Serf(System):
    """serf agents, profile lan."""

    name = "serf"

    def __init__(self, lan: Network, root: Path) -> None:
        super().__init__(lan, root)
        self._processes: list[subprocess.Popen[bytes]] = []
        for place, name in enumerate(self.names):
            self._processes.append(self._spawn(place, name))
            threading.Thread(target=self._watch, args=(place,), daemon=True).start()
            threading.Thread(target=self._listen, args=(place,), daemon=True).start()
        for place in range(len(self.names)):
            self._wait_ready(place)

    def start(self, place: int) -> None:
        self.views.forget(self.names[place])
        self._processes[place] = self._spawn(place, self.names[place])
        self._wait_ready(place)
        self.help_home(place)

    def join_all(self) -> float:
        first = self.lan[0].ip4
        started_s = time.monotonic()
        at_once(
            range(1, len(self.names)),
            lambda place: self._ask(place, "join", {"Existing": [first], "Replay": False}),
        )
        return started_s

    def part_all(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self.views.forget(*self.names)
        for place, name in enumerate(self.names):
            self._processes[place] = self._spawn(place, name)
        for place in range(len(self.names)):
            self._wait_ready(place)

    def leave(self, place: int) -> float:
        started_s = time.monotonic()
        self._ask(place, "leave", replies=False)
        return started_s

    def come_back(self, place: int) -> None:
        self._processes[place].wait(10)
        self.start(place)

    def help_home(self, place: int) -> None:
        # It tries again by itself, every 30 s. The next may have been killed with it.
        others = [(place + step) % len(self.names) for step in range(1, len(self.names))]
        runs = next(other for other in others if self._processes[other].poll() is None)
        self._ask(place, "join", {"Existing": [self.lan[runs].ip4], "Replay": False})

    def broadcast(self, place: int, text: str, confirmed: bool) -> float:
        started_s = time.monotonic()
        body = {"Name": "bench", "Payload": text, "Coalesce": False}
        self._ask(place, "event", body, replies=False)
        return started_s

    def pid(self, place: int) -> int:
        return self._processes[place].pid

    def kill(self, place: int) -> float:
        at_s = time.monotonic()
        self._processes[place].kill()
        self._processes[place].wait()
        self.views.forget(self.names[place])
        return at_s

    def close(self) -> None:
        super().close()
        for process in self._processes:
            process.kill()
            process.wait()

    def _spawn(self, place: int, name: str) -> subprocess.Popen[bytes]:
        command = ["serf", "agent", f"-node={name}", f"-bind={self.lan[place].ip4}:{SERF_PORT}"]
        command += ["-profile=lan", f"-rpc-addr=127.0.0.1:{RPC_PORT}", "-log-level=warn"]
        with (self.root / f"serf-{name}.log").open("ab") as log:
            return self.lan[place].popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _connect(self, place: int) -> SerfClient:
        return SerfClient(self.lan[place].connect("127.0.0.1", RPC_PORT))

    def _wait_ready(self, place: int) -> None:
        end_s = time.monotonic() + READY_S
        while True:
            try:
                self._connect(place).close()
                return
            except (OSError, SerfError):
                assert time.monotonic() < end_s, "no serf agent came up"
                time.sleep(RETRY_S)

    def _ask(self, place: int, command: str, body: Any = None, *, replies: bool = True) -> Any:
        client = self._connect(place)
        try:
            return client.request(command, body, replies=replies)
        finally:
            client.close()

    def _watch(self, place: int) -> None:
        """Ask one agent for its members again and again, life after life."""
        name = self.names[place]
        while not self._over.is_set():
            with contextlib.suppress(OSError, SerfError):
                client = self._connect(place)
                known: set[str] = set()
                while not self._over.is_set():
                    self.awake.wait()
                    known = self._look(client, name, known)
                    time.sleep(POLL_S)
            time.sleep(RETRY_S)

    def _look(self, client: SerfClient, observer: str, known: set[str]) -> set[str]:
        """Take in what one agent knows. Everybody is listed only when their number has changed."""
        absent = client.request("members-filtered", {"Status": "(failed|left|leaving)"})["Members"] or []
        at_s = time.monotonic()
        states = {member["Name"].decode(): member["Status"].decode() for member in absent}
        if int(client.request("stats")["serf"]["members"]) != len(known):
            members = client.request("members")["Members"]
            at_s = time.monotonic()
            states = {member["Name"].decode(): member["Status"].decode() for member in members}
            known = set(states)
        for member in known:
            state = states.get(member, "alive")
            self.views.note(observer, member, "dead" if state == "failed" else state, at_s)
        return known

    def _listen(self, place: int) -> None:
        """Take in the broadcasts that come to one agent."""
        while not self._over.is_set():
            with contextlib.suppress(OSError, SerfError):
                for event in self._connect(place).stream("user:bench"):
                    found = MARKER.search(event["Payload"].decode())
                    if found:
                        self.views.deliver(self.names[place], found[0], time.monotonic())
            time.sleep(RETRY_S)


def at_once(places: Iterable[int], do: Callable[[int], object]) -> None:
    """Do it for all places at the same time; an exception of any is raised."""
    failed: list[BaseException] = []

    def one(place: int) -> None:
        try:
            do(place)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
