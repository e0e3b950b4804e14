"""A network of the test's own: a switch and machines, each a network namespace, with faults on request.

    with network(3) as lan:
        lan[0].popen(["fedd", ...])
        lan.cut(lan[0])            # its packets, and those to it, vanish
        lan.restore()

Takes root, util-linux, iproute2 and iptables; `why_no_network()` says what is missing. The machine's own
network is not touched, and nothing needs to be cleaned up: a namespace lives as long as its keeper, a `cat`
that ends with the test's end of a pipe, and whatever was started in one is killed with the process that
started it, even if that was killed itself.

All faults are rules of the switch. A packet that it drops was sent and never arrives, in one place and at one
moment for all machines. (Dropped in the sender's own OUTPUT, it would fail there with EPERM, which is no
fault of a network.) There is no verb for delay: kernels without netem have nothing to make one with.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federation.daemons import Federation

# The last byte of an address is the machine's number.
MAX_NODES = 250
KEEPER = "ip link set lo up && echo && exec cat"
CLONE_NEWNET = 0x40000000
PORT = 4747
"""Where daemons of `networked_federation` listen."""


def why_no_network() -> str | None:
    """What keeps this process from making such a network, None if nothing does."""
    needed = {"ip": "iproute2", "tc": "iproute2", "iptables-restore": "iptables", "nsenter": "util-linux"}
    missing = sorted({package for name, package in needed.items() if shutil.which(name) is None})
    if missing:
        return f"needs {', '.join(missing)}"
    if os.geteuid() != 0:
        return "needs root"
    check = "ip link add s type bridge && cat /proc/sys/net/bridge/bridge-nf-call-iptables"
    done = subprocess.run(["unshare", "--net", "sh", "-c", check], capture_output=True, text=True)
    if done.returncode:
        return f"the kernel offers no bridge with filters: {done.stderr.strip()}"
    return None


@dataclass(frozen=True)
class Traffic:
    """What went through a machine's network card, headers included; loopback is not in it."""

    bytes_in: int
    packets_in: int
    bytes_out: int
    packets_out: int


class Namespace:
    """A network namespace, alive until `close` or the end of this process."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", KEEPER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.prefix = [
            *("setpriv", "--pdeathsig", "KILL"),
            *("nsenter", f"--net=/proc/{self._keeper.pid}/ns/net", "--"),
        ]
        """Before a command, makes it run in here and end with the thread that started it."""

    @property
    def pid(self) -> int:
        """A process in this namespace."""
        return self._keeper.pid

    def wait_ready(self) -> None:
        """Return when the namespace exists."""
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline(), "no network namespace can be made"

    def run(self, *command: str, stdin: str = "") -> str:
        """What a command in here prints; CalledProcessError when it fails."""
        done = subprocess.run([*self.prefix, *command], input=stdin, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}\n{stdin}")
        return done.stdout

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a command in here; it dies with the thread that calls this."""
        return subprocess.Popen([*self.prefix, *command], **options)

    def connect(self, host: str, port: int, timeout_s: float = 10.0) -> socket.socket:
        """A TCP connection that begins in here, whoever uses it."""
        found: list[socket.socket | OSError] = []

        def inside() -> None:  # in a thread of its own: namespaces belong to threads
            try:
                with open(f"/proc/{self.pid}/ns/net") as file:
                    if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns failed")
                found.append(socket.create_connection((host, port), timeout_s))
            except OSError as error:
                found.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if isinstance(found[0], OSError):
            raise found[0]
        return found[0]

    def close(self) -> None:
        """End it. Processes in here keep it alive until they end."""
        self._keeper.communicate()


class Node(Namespace):
    """One machine of a network, with an address of each kind on its only card, `eth0`."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.ip4 = f"10.88.0.{number}"
        self.ip6 = f"fd88::{number}"
        self.port_name = f"node{number}"
        """Of its port at the switch."""

    def traffic(self) -> Traffic:
        """What its card has counted."""
        for line in Path(f"/proc/{self.pid}/net/dev").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name.strip() == "eth0":
                fields = [int(field) for field in rest.split()]
                return Traffic(fields[0], fields[1], fields[8], fields[9])
        raise RuntimeError("the machine has lost its card")


class Network:
    """Machines on one switch. Verbs add to each other until `restore`."""

    def __init__(self, count: int) -> None:
        assert 0 < count <= MAX_NODES, f"at most {MAX_NODES} machines"
        self._switch = Namespace()
        self.nodes = [Node(number) for number in range(1, count + 1)]
        try:
            self._wire()
        except BaseException:
            self.close()
            raise
        self._clear()

    def __getitem__(self, index: int) -> Node:
        return self.nodes[index]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def close(self) -> None:
        """End all namespaces."""
        for node in self.nodes:
            node.close()
        self._switch.close()

    # -- faults

    def cut(self, *nodes: Node) -> None:
        """Let every packet from and to these vanish, without a word to either end."""
        self._deaf |= {node.number for node in nodes}
        self._mute |= {node.number for node in nodes}
        self._apply()

    def deafen(self, *nodes: Node) -> None:
        """Let every packet to these vanish; what they send still arrives."""
        self._deaf |= {node.number for node in nodes}
        self._apply()

    def shield(self, *nodes: Node) -> None:
        """Let nobody open a TCP connection to these, as if behind a NAT; they can open their own."""
        self._shielded |= {node.number for node in nodes}
        self._apply()

    def partition(self, *groups: Iterable[Node]) -> None:
        """Let packets between machines of different groups vanish; who is in no group reaches everybody."""
        self._groups = [{node.number for node in group} for group in groups]
        self._apply()

    def lose(self, percent: float) -> None:
        """Let so many of all packets vanish, each by chance."""
        self._loss = percent / 100
        self._apply()

    def limit(self, rate: str, *nodes: Node, queue: str = "50ms") -> None:
        """Shape the cards of these, both ways, to a rate as tc writes it (`10mbit`), with so long a queue."""
        for node in nodes:
            shape = ["root", "tbf", "rate", rate, "burst", "16kb", "latency", queue]
            node.run("tc", "qdisc", "replace", "dev", "eth0", *shape)
            self._switch.run("tc", "qdisc", "replace", "dev", node.port_name, *shape)
            self._limited.add(node.number)

    def restore(self) -> None:
        """End all faults."""
        for node in self.nodes:
            if node.number in self._limited:
                node.run("tc", "qdisc", "delete", "dev", "eth0", "root")
                self._switch.run("tc", "qdisc", "delete", "dev", node.port_name, "root")
        self._clear()
        self._apply()

    # -- how

    def _clear(self) -> None:
        self._deaf: set[int] = set()
        self._mute: set[int] = set()
        self._shielded: set[int] = set()
        self._limited: set[int] = set()
        self._groups: list[set[int]] = []
        self._loss = 0.0

    def _wire(self) -> None:
        self._switch.wait_ready()
        for node in self.nodes:
            node.wait_ready()
        lines = ["link add switch type bridge", "link set switch up"]
        for node in self.nodes:
            lines += [
                f"link add {node.port_name} type veth peer name eth0 netns {node.pid}",
                f"link set {node.port_name} master switch up",
            ]
        self._switch.run("ip", "-batch", "-", stdin="\n".join(lines))
        for node in self.nodes:
            lines = [
                "link set eth0 up",
                f"address add {node.ip4}/24 dev eth0",
                f"address add {node.ip6}/64 dev eth0 nodad",
                "route add default dev eth0",  # multicast takes it
            ]
            node.run("ip", "-batch", "-", stdin="\n".join(lines))

    def _apply(self) -> None:
        """Replace all rules of the switch, at once for each family."""
        rules = [f"-A FORWARD -m physdev --physdev-in node{n} -j DROP" for n in sorted(self._mute)]
        rules += [f"-A FORWARD -m physdev --physdev-out node{n} -j DROP" for n in sorted(self._deaf)]
        rules += [
            f"-A FORWARD -m physdev --physdev-out node{n} -p tcp --syn -j DROP"
            for n in sorted(self._shielded)
        ]
        marks = []
        for mark, group in enumerate(self._groups, 1):
            marks += [
                f"-A PREROUTING -m physdev --physdev-in node{n} -j MARK --set-mark {mark}" for n in group
            ]
            rules += [
                f"-A FORWARD -m physdev --physdev-out node{n} -m mark --mark {other} -j DROP"
                for n in group
                for other in range(1, len(self._groups) + 1)
                if other != mark
            ]
        if self._loss:
            rules.append(f"-A FORWARD -m statistic --mode random --probability {self._loss} -j DROP")
        text = "\n".join(["*mangle", *marks, "COMMIT", "*filter", *rules, "COMMIT", ""])
        self._switch.run("iptables-restore", stdin=text)
        self._switch.run("ip6tables-restore", stdin=text)


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """A network of `count` machines."""
    lan = Network(count)
    try:
        yield lan
    finally:
        lan.close()


@contextlib.contextmanager
def networked_federation(
    count: int, *, formed: bool = True, config: str | None = None
) -> Iterator[tuple[Network, Federation]]:
    """Daemons n1, n2 ... each on a machine of its own, listening at its addresses; `formed`: as members.

    Signals go by `Daemon.signal` and `Daemon.kill`.
    """
    # a short path: a unix socket's address holds 107 bytes
    root = Path(tempfile.mkdtemp(prefix="fedd-"))
    with network(count) as lan:
        fed = Federation(root)
        try:
            for node in lan:
                daemon = fed.add(f"n{node.number}")
                daemon.prefix = node.prefix
                daemon.start(
                    "--listen",
                    f"/ip6/{node.ip6}/tcp/{PORT}",
                    listen=f"/ip4/{node.ip4}/tcp/{PORT}",
                    config=config,
                )
            for daemon in fed:
                daemon.wait_ready()
            if formed:
                fed.form()
                fed.wait_plugins()
            yield lan, fed
        finally:
            for daemon in fed:
                daemon.destroy()
            shutil.rmtree(root, ignore_errors=True)
