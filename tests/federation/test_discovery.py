"""Real daemons that find each other: by multicast DNS in network namespaces, and by announced names.

What a device is told is nothing but its federation: no address of anybody. Its own may come late or change.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from federation.daemons import GUARD_S, Daemon, Federation, eventually, federation
from federation.network import Network, network, why_no_network
from federation.processor import Stopwatch

from fedd.control.client import Client

FOUND_S = 3.0
# Until a node looks at its interfaces again, and then finds the others.
LATE_S = 3.0 + FOUND_S

needs_network = pytest.mark.skipif(why_no_network() is not None, reason=str(why_no_network()))


@contextmanager
def formed(
    count: int, *, federations: int = 1, listen: str = "/ip4/0.0.0.0/tcp/4747"
) -> Iterator[tuple[Network, Federation]]:
    """Federations that were formed on one network and switched off, each daemon on a machine of its own.

    `count` daemons in all, the same number in each federation.
    """
    root = Path(tempfile.mkdtemp(prefix="fedd-"))
    fed = Federation(root)
    with network(count) as lan:
        try:
            for node in lan:
                daemon = fed.add(f"n{node.number}")
                daemon.prefix = node.prefix
                daemon.start(listen=listen)
            for daemon in fed:
                daemon.wait_ready()
            for first in range(0, count, count // federations):
                part = Federation(root)
                part.daemons = fed.daemons[first : first + count // federations]
                part.form(f"plant{first}")
            for daemon in fed:
                assert daemon.stop() == 0
            yield lan, fed
        finally:
            for daemon in fed:
                daemon.destroy()
            shutil.rmtree(root, ignore_errors=True)


def forget_others(fed: Federation) -> None:
    """Take from each what it knows of the others; what stays is the federation and its own key."""
    for daemon in fed:
        (daemon.dir / "members").unlink()


def move(lan: Network, *, prefix: str = "10.88.0", offset: int = 100) -> None:
    """Give all machines other addresses, as another network would."""
    for node in lan:
        node.run("ip", "address", "flush", "dev", "eth0")
        node.run("ip", "address", "add", f"{prefix}.{node.number + offset}/24", "dev", "eth0")
        node.run("ip", "route", "replace", "default", "dev", "eth0")


def seconds_until_alive(daemons: list[Daemon], deadline_s: float = GUARD_S) -> float:
    """How long after all are ready until everybody sees everybody, others' load apart."""
    watch = Stopwatch(*(daemon.pid for daemon in daemons))
    for daemon in daemons:
        with Client(str(daemon.socket)) as client:  # a fedctl would take its own time to start

            def states(client: Client = client) -> list[str]:
                return [member["state"] for member in client.request("GET", "/v1/members")]

            eventually(
                lambda s=states: s() == ["alive"] * len(daemons),
                deadline_s,
                f"{daemon.name} sees everybody alive",
            )
    return watch.seconds()


def restart(fed: Federation, listen: str = "/ip4/0.0.0.0/tcp/0", config: str | None = None) -> None:
    for daemon in fed:
        (daemon.dir / "ports.json").unlink(missing_ok=True)
        daemon.start(listen=listen, config=config)
    for daemon in fed:
        daemon.wait_ready()


@needs_network
@pytest.mark.root
def test_two_that_know_nothing_but_their_federation_find_each_other() -> None:
    with formed(2) as (lan, fed):
        forget_others(fed)
        move(lan)
        restart(fed)
        assert seconds_until_alive(fed.daemons) < FOUND_S
        # Without multicast DNS they do not: nothing else has brought them together.
        for daemon in fed:
            daemon.stop()
        forget_others(fed)
        move(lan, offset=200)
        restart(fed, config="[node]\nmdns = false\n")
        with pytest.raises(AssertionError, match="sees everybody alive"):
            seconds_until_alive(fed.daemons, FOUND_S)


def test_daemons_of_one_machine_find_each_other_on_its_loopback() -> None:
    """Not timed: whatever else runs on this machine speaks on the same loopback."""
    with federation(2) as fed:
        for daemon in fed:
            assert daemon.stop() == 0
        forget_others(fed)
        restart(fed, listen="/ip4/127.0.0.1/tcp/0")
        fed.wait_alive()


@needs_network
@pytest.mark.root
def test_devices_that_were_carried_elsewhere_find_each_other_in_spite_of_what_they_remember() -> None:
    with formed(2) as (lan, fed):
        for node in lan:  # where packets to the old addresses vanish
            node.run("iptables", "-A", "OUTPUT", "-p", "tcp", "-d", "10.88.0.0/24", "-j", "DROP")
        move(lan, prefix="10.99.0")
        restart(fed)
        assert seconds_until_alive(fed.daemons) < FOUND_S


@needs_network
@pytest.mark.root
def test_they_find_each_other_over_ipv6_alone() -> None:
    with formed(2, listen="/ip6/::/tcp/4747") as (lan, fed):
        forget_others(fed)
        for node in lan:
            node.run("ip", "address", "del", f"{node.ip4}/24", "dev", "eth0")
            node.run("ip", "address", "add", f"fd99::{node.number}/64", "dev", "eth0", "nodad")
            node.run("ip", "address", "del", f"{node.ip6}/64", "dev", "eth0")
        restart(fed, listen="/ip6/::/tcp/0")
        assert seconds_until_alive(fed.daemons) < FOUND_S
        addresses = fed[0].ctl("status").ok()["addresses"]
        assert not any("/ip6/fe80" in address for address in addresses)


@needs_network
@pytest.mark.root
def test_an_address_that_comes_after_the_start_is_used_and_told() -> None:
    with formed(2) as (lan, fed):
        forget_others(fed)
        move(lan)
        lan[0].run("ip", "address", "flush", "dev", "eth0")
        restart(fed)
        lan[0].run("ip", "address", "add", "10.88.0.150/24", "dev", "eth0")
        assert seconds_until_alive(fed.daemons) < LATE_S
        told = {member["name"]: member for member in fed[1].ctl("members").ok()}
        assert [address.split("/")[2] for address in told["n1"]["addresses"]] == ["10.88.0.150"]


@needs_network
@pytest.mark.root
def test_members_learn_the_address_that_another_has_got() -> None:
    with formed(2) as (lan, fed):
        restart(fed)
        fed.wait_alive()
        lan[0].run("ip", "address", "flush", "dev", "eth0")
        lan[0].run("ip", "address", "add", "10.88.0.151/24", "dev", "eth0")
        lan[0].run("ip", "route", "replace", "default", "dev", "eth0")

        def hosts() -> list[str]:
            (member,) = [m for m in fed[1].ctl("members").ok() if m["name"] == "n1"]
            told: list[str] = [address.split("/")[2] for address in member["addresses"]]
            return told if member["state"] == "alive" else []

        eventually(lambda: hosts() == ["10.88.0.151"], GUARD_S, "n2 knows where n1 is now")


@needs_network
@pytest.mark.root
def test_strangers_on_the_network_are_left_alone() -> None:
    with formed(4, federations=2) as (lan, fed):
        forget_others(fed)
        move(lan)
        restart(fed)
        for pair in (fed.daemons[:2], fed.daemons[2:]):
            seconds_until_alive(pair)

        def strangers(daemon: Daemon) -> int:
            limits = daemon.ctl("limits").ok()
            (present,) = [row["present"] for row in limits if row["name"] == "mdns_strangers"]
            return int(present)

        for daemon in fed:
            eventually(lambda d=daemon: strangers(d) == 2, GUARD_S, f"{daemon.name} hears of both strangers")
        for daemon in fed:
            assert len(daemon.ctl("links").ok()) == 1
            assert "refused" not in daemon.log.read_text()


def test_announced_names_are_in_tokens_and_records_and_are_dialled() -> None:
    with socket.socket() as reserved, federation(0, formed=False) as fed:
        # Bound and never listening: nobody gets the port by chance, and the founder can have it all the same.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        announced = f"/dns4/localhost/tcp/{port}"
        founder, joiner = fed.add("n0"), fed.add("n1")
        founder.start(
            config=f'[node]\nmdns = false\nannounce = ["{announced}"]\n', listen=f"/ip4/127.0.0.1/tcp/{port}"
        )
        joiner.start(config="[node]\nmdns = false\n")
        for daemon in fed:
            daemon.wait_ready()
        fed.form()
        told: dict[str, Any] = {member["name"]: member for member in joiner.ctl("members").ok()}
        assert told["n0"]["addresses"] == [f"{announced}/p2p/{founder.peer_id()}"]
        # Found again by the record alone.
        joiner.stop()
        joiner.start(config="[node]\nmdns = false\n")
        joiner.wait_ready()
        fed.wait_alive()
        reply = joiner.ctl("connect", f"/dns4/no-such-name.invalid/tcp/1/p2p/{founder.peer_id()[:-1]}x")
        assert reply.code != 0
