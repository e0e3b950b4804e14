"""The network that other tests break on purpose: its faults must be what their names say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from federation.daemons import GUARD_S, eventually
from federation.network import Network, Node, network, networked_federation, why_no_network

REASON = why_no_network()
pytestmark = [pytest.mark.root, pytest.mark.skipif(REASON is not None, reason=REASON or "")]


@pytest.fixture(scope="module")
def lan():
    with network(3) as found:
        yield found


@pytest.fixture(autouse=True)
def _whole_again(lan: Network):
    yield
    lan.restore()


def reaches(source: Node, target: Node, address: str | None = None) -> bool:
    """Whether one of five datagrams arrives."""
    address = address or target.ip4
    # It looks when all are sent, however long the sender took to start, and a moment later.
    code = f"sock.bind(('{address}', 9)); print(); input(); sock.settimeout(1); sock.recv(9)"
    listener = udp(target, code, address)
    assert listener.stdout is not None
    assert listener.stdout.readline()
    udp(source, f"[sock.sendto(b'x', ('{address}', 9)) for _ in range(5)]", address).communicate()
    listener.communicate(b"\n")
    return listener.returncode == 0


def udp(node: Node, code: str, address: str) -> subprocess.Popen[bytes]:
    family = "AF_INET6" if ":" in address else "AF_INET"
    text = f"import socket; sock = socket.socket(socket.{family}, socket.SOCK_DGRAM); {code}"
    return node.popen(
        [sys.executable, "-uIc", text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def listening(node: Node) -> subprocess.Popen[bytes]:
    text = f"import socket; s = socket.create_server(('{node.ip4}', 7)); print(); s.accept(); input()"
    process = node.popen([sys.executable, "-uIc", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_machines_reach_each_other_and_not_the_machine_they_are_on(lan: Network) -> None:
    assert reaches(lan[0], lan[1])
    assert reaches(lan[0], lan[1], lan[1].ip6)
    before = Path("/proc/net/dev").read_text()
    assert lan[0].port_name not in before


def test_a_cut_machine_reaches_nobody_and_is_told_nothing(lan: Network) -> None:
    lan.cut(lan[0])
    assert not reaches(lan[0], lan[1])
    assert not reaches(lan[1], lan[0])
    assert not reaches(lan[0], lan[1], lan[1].ip6)
    assert reaches(lan[1], lan[2])
    lan.restore()
    assert reaches(lan[0], lan[1])


def test_a_deaf_machine_is_still_heard(lan: Network) -> None:
    lan.deafen(lan[0])
    assert reaches(lan[0], lan[1])
    assert not reaches(lan[1], lan[0])


def test_a_shielded_machine_can_only_open_connections(lan: Network) -> None:
    lan.shield(lan[0])
    server = listening(lan[0])
    with pytest.raises(TimeoutError):
        lan[1].connect(lan[0].ip4, 7, 0.5)
    server.kill()
    server.communicate()
    server = listening(lan[1])
    lan[0].connect(lan[1].ip4, 7, 5).close()
    server.communicate()


def test_a_partition_separates_groups_and_nobody_else(lan: Network) -> None:
    lan.partition([lan[0]], [lan[1]])
    assert not reaches(lan[0], lan[1])
    assert not reaches(lan[1], lan[0])
    assert reaches(lan[0], lan[2])
    assert reaches(lan[2], lan[1])


def test_loss_takes_the_share_that_was_asked_for(lan: Network) -> None:
    lan.lose(20)
    before = lan[1].traffic()
    count = 2000
    udp(lan[0], f"[sock.sendto(b'x', ('{lan[1].ip4}', 9)) for _ in range({count})]", lan[1].ip4).communicate()
    arrived = lan[1].traffic().packets_in - before.packets_in
    assert 0.74 * count < arrived < 0.86 * count


def test_a_limited_card_takes_its_time(lan: Network) -> None:
    lan.limit("1mbit", lan[0])
    assert "rate 1Mbit" in lan[0].run("tc", "qdisc", "show", "dev", "eth0")
    lan.restore()
    assert "tbf" not in lan[0].run("tc", "qdisc", "show", "dev", "eth0")


def test_a_connection_begins_in_the_namespace(lan: Network) -> None:
    server = listening(lan[1])
    sock = lan[0].connect(lan[1].ip4, 7)
    assert sock.getsockname()[0] == lan[0].ip4
    sock.close()
    server.communicate()


def test_nothing_is_left_of_a_test_that_was_killed() -> None:
    code = """if True:
        import sys
        sys.path.insert(0, sys.argv[1])
        from federation.network import Network
        lan = Network(2)
        child = lan[0].popen(["sleep", "1000"])
        while open(f"/proc/{child.pid}/comm").read() != "sleep\\n":
            pass  # what runs before has not yet asked to die with its parent
        print(lan[0].pid, lan[1].pid, child.pid, flush=True)
        input()
    """
    tests = str(Path(__file__).parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-c", code, tests], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 3
    process.send_signal(signal.SIGKILL)
    process.communicate()
    eventually(lambda: not any(is_running(pid) for pid in pids), GUARD_S, "the processes are gone")


def is_running(pid: int) -> bool:
    try:
        # what nobody has waited for yet is a zombie, and holds no namespace
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_daemons_form_a_federation_across_the_network() -> None:
    with networked_federation(2) as (lan, fed):
        pid = fed[0].pid
        assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink(f"/proc/{lan[0].pid}/ns/net")
        assert set(fed[0].states().values()) == {"alive"}
        assert lan[0].traffic().bytes_out > 0
