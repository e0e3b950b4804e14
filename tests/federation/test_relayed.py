"""Daemons that nobody can dial take part: what two of them have to say passes through a third."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from federation.daemons import GUARD_S, Daemon, Federation, eventually, result_of
from federation.network import networked_federation, why_no_network
from federation.processor import Stopwatch

NOWHERE = "[node]\nlisten = []\nmdns = false\n"
# a device behind a NAT that listens, and tells an address at which nothing comes through (RFC 5737)
UNREACHABLE = '[node]\nmdns = false\nannounce = ["/ip4/192.0.2.1/tcp/4001"]\n'
DIALABLE = "[node]\nmdns = false\n"


@contextmanager
def federation(dialable: int, undialable: int, config: str = NOWHERE) -> Iterator[Federation]:
    """Daemons d0... that can be dialled, then u0... that cannot."""
    root = Path(tempfile.mkdtemp(prefix="fedd-"))
    fed = Federation(root)
    begun_s = time.monotonic()
    try:
        for number in range(dialable):
            fed.add(f"d{number}").start(config=DIALABLE)
        for number in range(undialable):
            fed.add(f"u{number}").start(
                config=config, listen="" if config == NOWHERE else "/ip4/127.0.0.1/tcp/0"
            )
        for daemon in fed:
            daemon.wait_ready()
        fed.form()
        fed.wait_plugins()
        fed.started_s = time.monotonic() - begun_s
        yield fed
    finally:
        for daemon in fed:
            daemon.destroy()
        shutil.rmtree(root, ignore_errors=True)


def links(daemon: Daemon) -> dict[str, str]:
    return {member["name"]: member["link"] for member in daemon.ctl("members").ok()}


@pytest.mark.parametrize("config", [NOWHERE, UNREACHABLE], ids=["listens nowhere", "behind a NAT"])
def test_consensus_among_four_of_whom_two_cannot_be_dialled(config: str) -> None:
    with federation(2, 2, config) as fed:
        fed.set_inputs([1.0, 2.0, 4.0, 9.0])
        u0, u1 = fed[2], fed[3]
        if config == NOWHERE:
            assert u0.ctl("status").ok()["addresses"] == []
        assert links(u0)["u1"] == "indirect"
        run = u0.ctl("run", "consensus", "--input", "x", "--topology", "complete").ok()
        assert run["declined"] == []
        for daemon in fed:
            result = result_of(daemon, run["run_id"])
            assert result["state"] == "finished", result
            assert result["value"] == pytest.approx(4.0, abs=1e-6)
            assert len(result["contributors"]) == 4
            assert not result["dropped"]
        assert links(u0)["u1"] == "relayed"
        assert links(u1)["u0"] == "relayed"
        (through,) = {link["relayed_by"] for link in u0.ctl("links").ok() if link["relayed_by"]}
        relay = next(daemon for daemon in fed if daemon.name == through)
        carried = {link["name"]: link["circuit_bytes"] for link in relay.ctl("links").ok()}
        assert carried["u0"] == carried["u1"] > 1000
        used = {limit["name"]: limit["present"] for limit in relay.ctl("limits").ok()}
        assert used["relay.circuits"] == 1


def test_ping_reaches_through_a_relay() -> None:
    with federation(1, 2) as fed:
        reply = fed[1].ctl("ping", "u1", "-c", "2").ok()
        assert reply["relayed_by"] == "d0"
        assert len(reply["rtt_ms"]) == 2
        assert fed[1].ctl("ping", "d0").ok()["relayed_by"] is None


@pytest.mark.slow
@pytest.mark.parametrize("dialable", [1, 2], ids=["no other way", "another relay"])
def test_the_relay_is_killed_in_the_midst_of_a_run(dialable: int) -> None:
    with federation(dialable, 2) as fed:
        count = len(fed)
        values = [float(2**place) for place in range(count)]
        fed.set_inputs(values)
        undialable = [daemon for daemon in fed if daemon.name.startswith("u")]
        first = undialable[0]
        run = first.ctl(
            "run", "consensus", "--input", "x", "--topology", "complete", "--pace", fed.pace(0.05),
            "--quorum", "1", "--detach", "iterations=200", "tolerance=0",
        ).ok()  # fmt: skip
        run_id = run["run_id"]

        def relay() -> Daemon | None:
            names = {link["relayed_by"] for link in first.ctl("links").ok() if link["relayed_by"]}
            return next((daemon for daemon in fed if daemon.name in names), None)

        gateway = eventually(relay, GUARD_S, "u0 has a relayed link")
        first.wait_round(run_id, 5)
        gateway.kill()
        place = fed.daemons.index(gateway)
        left = [value for number, value in enumerate(values) if number != place]
        for daemon in fed:
            if daemon is gateway:
                continue
            result = result_of(daemon, run_id)
            assert result["state"] == "finished", result
            mine = values[fed.daemons.index(daemon)]
            # without another relay the undialable cannot reach each other: each is a federation of its own
            expected = sum(left) / len(left) if dialable == 2 else mine
            assert result["value"] == pytest.approx(expected, abs=1e-6), daemon.name


NO_NETWORK = why_no_network()


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(NO_NETWORK is not None, reason=NO_NETWORK or "")
def test_behind_a_firewall_that_drops_what_comes_in() -> None:
    begun_s = time.monotonic()
    with networked_federation(4, formed=False) as (lan, fed):
        lan.shield(lan[2], lan[3])  # they listen, and tell addresses at which no packet gets through
        fed.form()
        fed.wait_plugins()
        fed.started_s = time.monotonic() - begun_s
        fed.set_inputs([1.0, 2.0, 4.0, 9.0])
        for patience_s in (15, 8):  # the second finds the relayed connection
            watch = Stopwatch(*(daemon.pid for daemon in fed))
            run = fed[2].ctl("run", "consensus", "--input", "x", "--topology", "complete").ok()
            assert not run["dropped"]
            assert not run["declined"]
            assert run["value"] == pytest.approx(4.0, abs=1e-6)
            assert watch.seconds() < patience_s
        assert links(fed[2])[fed[3].name] == "relayed"
        run_id = fed[2].ctl(
            "run", "consensus", "--input", "x", "--topology", "complete", "--pace", fed.pace(0.1),
            "--quorum", "1", "--detach", "iterations=120", "tolerance=0",
        ).ok()["run_id"]  # fmt: skip
        fed[2].wait_round(run_id, 5)
        (through,) = {link["relayed_by"] for link in fed[2].ctl("links").ok() if link["relayed_by"]}
        gone = next(place for place, daemon in enumerate(fed) if daemon.name == through)
        lan.cut(lan[gone])  # silently: nobody is told
        left = [value for place, value in enumerate((1.0, 2.0, 4.0, 9.0)) if place != gone]
        for place, daemon in enumerate(fed):
            if place != gone:
                result = result_of(daemon, run_id)
                assert result["value"] == pytest.approx(sum(left) / 3, abs=1e-6), daemon.name
                assert [entry["reason"] for entry in result["dropped"]] == ["dead"]
