"""What an operator does wrong: each time a clear message, the right exit code, and the rest goes on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from federation.daemons import BIN, GUARD_S, Daemon, Federation, eventually, federation


def fedd(*arguments: str, timeout_s: float = GUARD_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "fedd"), *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
    )


def test_an_unknown_key_is_named_with_file_line_and_the_nearest_known(tmp_path: Path) -> None:
    config = tmp_path / "fedd.toml"
    config.write_text('[node]\nname = "a"\n\n[limits]\nmax_conections = 3\n')
    for option in ((), ("--check",)):
        done = fedd("--config", str(config), "--state-dir", str(tmp_path / "s"), *option)
        assert done.returncode == 78
        assert str(config) in done.stderr
        assert "max_conections" in done.stderr
        assert "max_connections" in done.stderr
        assert ":5" in done.stderr or "line 5" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_unknown_flag_is_wrong_usage() -> None:
    done = fedd("--lisen", "/ip4/127.0.0.1/tcp/0")
    assert done.returncode == 64
    assert "--lisen" in done.stderr
    wrong = subprocess.run([str(BIN / "fedctl"), "statsu"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "statsu" in wrong.stderr


def test_no_daemon_at_the_socket(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(BIN / "fedctl"), "--socket", str(tmp_path / "none.sock"), "status"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert str(tmp_path / "none.sock") in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, "a").start()
    try:
        daemon.wait_ready()
        assert daemon.stop() == 0
    finally:
        daemon.destroy()
    key = daemon.dir / "identity.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    done = fedd("--state-dir", str(daemon.dir))
    assert done.returncode == 77
    assert str(key) in done.stderr
    assert "chmod" in done.stderr
    key.chmod(0o600)
    key.write_bytes(b"rubbish")
    done = fedd("--state-dir", str(daemon.dir))
    assert done.returncode != 0
    assert str(key) in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreadable_key_is_said_so(tmp_path: Path) -> None:
    state = tmp_path / "s"
    state.mkdir()
    # a directory in the key's place cannot be read by root either
    (state / "identity.key").mkdir()
    done = fedd("--state-dir", str(state))
    assert done.returncode in (1, 77)
    assert "identity.key" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = fedd("--state-dir", str(tmp_path), "--listen", f"/ip4/127.0.0.1/tcp/{port}")
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_living_daemons_socket_is_respected_and_a_dead_ones_taken_over(tmp_path: Path) -> None:
    first = Daemon(tmp_path, "a").start()
    try:
        first.wait_ready()
        second = fedd("--state-dir", str(tmp_path / "other"), "--socket", str(first.socket))
        assert second.returncode == 1
        assert str(first.socket) in second.stderr
        same_state = fedd("--state-dir", str(first.dir), "--socket", str(tmp_path / "x.sock"))
        assert same_state.returncode == 1
        assert str(first.dir) in same_state.stderr
        peer_id = first.peer_id()
        first.kill()
        assert first.socket.exists()
        first.start()
        first.wait_ready()
        assert first.peer_id() == peer_id
    finally:
        first.destroy()


@pytest.fixture(scope="module")
def trio_of_daemons() -> Federation:
    with federation(3) as fed:
        fed.set_inputs([1.0, 2.0, 6.0])
        yield fed


def refused(fed: Federation, code: int, *arguments: str) -> str:
    """The one line on stderr of a call that must fail with `code`; everybody is well afterwards."""
    reply = fed[0].ctl(*arguments)
    assert reply.code == code, (reply.code, reply.out, reply.err)
    assert "Traceback" not in reply.err
    good = fed[1].ctl("run", "consensus", "--input", "x").ok()
    assert good["value"] == pytest.approx(3.0, abs=1e-12)
    return reply.err


def test_an_unknown_algorithm(trio_of_daemons: Federation) -> None:
    error = refused(trio_of_daemons, 5, "run", "concensus")
    assert "concensus" in error
    assert "consensus" in error.replace("concensus", "")


def test_a_wrong_parameter_type_and_an_unknown_parameter(trio_of_daemons: Federation) -> None:
    error = refused(trio_of_daemons, 2, "run", "consensus", "--input", "x", "iterations=many")
    assert "iterations" in error
    assert "many" in error
    error = refused(trio_of_daemons, 2, "run", "consensus", "--input", "x", "iteration=5")
    assert "iteration" in error
    error = refused(trio_of_daemons, 2, "run", "consensus", "--input", "x", "iterations=0")
    assert "iterations" in error


def test_a_missing_input(trio_of_daemons: Federation) -> None:
    error = refused(trio_of_daemons, 5, "run", "consensus", "--input", "y")
    assert "'y'" in error
    # only one of three has it: a majority cannot be reached, and each is named with its reason
    trio_of_daemons[0].ctl("set", "only-here", "1").ok()
    error = refused(trio_of_daemons, 1, "run", "consensus", "--input", "only-here")
    assert "n1" in error
    assert "n2" in error


def test_a_topology_that_cannot_be(trio_of_daemons: Federation) -> None:
    error = refused(trio_of_daemons, 2, "run", "consensus", "--input", "x", "--topology", "circle")
    assert "circle" in error
    assert "ring" in error


def test_a_quorum_that_cannot_be(trio_of_daemons: Federation) -> None:
    error = refused(trio_of_daemons, 2, "run", "consensus", "--input", "x", "--quorum", "9")
    assert "quorum" in error


def names_both(reason: str) -> bool:
    """Whichever of the two ends was the first that could not use the other's value."""
    return "shape (2,), against (3,)" in reason or "shape (3,), against (2,)" in reason


def test_shapes_that_differ_between_members(trio_of_daemons: Federation) -> None:
    for daemon, value in zip(trio_of_daemons, ([1, 2], [1, 2], [1, 2, 3]), strict=True):
        daemon.ctl("set", "shape", json.dumps(value)).ok()
    made = trio_of_daemons[0].ctl("run", "consensus", "--input", "shape").ok()
    assert made["value"] == [1.0, 2.0]
    assert len(made["contributors"]) == 2
    ((peer, reason),) = [(dropped["peer_id"], dropped["reason"]) for dropped in made["dropped"]]
    assert peer == trio_of_daemons[2].peer_id()
    assert "bad message: it holds a value of shape" in reason
    assert names_both(reason)
    own = eventually(
        lambda: trio_of_daemons[2].shown(made["run_id"]).get("error"), GUARD_S, "its own part's end"
    )
    assert names_both(own)


def test_not_a_number(trio_of_daemons: Federation) -> None:
    for daemon in trio_of_daemons:
        daemon.ctl("set", "word", '"warm"').ok()
    error = refused(trio_of_daemons, 1, "run", "consensus", "--input", "word")
    assert "warm" in error or "number" in error


@pytest.mark.parametrize(
    ("content", "said"),
    [("1,2\n3,x\n", "x"), ("1,2\n3\n", "row 2"), ("", "empty"), ("1,2\n3,nan\n", "nan")],
    ids=["text", "ragged", "empty", "nan"],
)
def test_a_table_that_is_not_one(tmp_path: Path, content: str, said: str) -> None:
    good = "1,2,3\n2,1,1\n4,4,9\n1,0,2\n0,3,1\n"
    configs = []
    for index in range(2):
        table = tmp_path / f"{index}.csv"
        table.write_text(content if index else good)
        configs.append(f'[inputs.rows]\nfile = "{table}"\n\n[inputs.x]\nvalue = {index}\n')
    with federation(2, configs=configs) as fed:
        reply = fed[0].ctl("run", "regression", "--input", "rows")
        assert reply.code == 1, (reply.out, reply.err)
        assert said in reply.err, reply.err
        assert "n1" in reply.err or fed[1].peer_id()[:8] in reply.err
        assert fed[0].ctl("run", "consensus", "--input", "x").ok()["value"] == pytest.approx(0.5)


def test_rubbish_on_the_peer_port_and_on_the_control_socket(trio_of_daemons: Federation) -> None:
    address = trio_of_daemons[0].ctl("status").ok()["addresses"][0]
    port = int(address.split("/")[4])
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(os.urandom(4096))
        sock.settimeout(GUARD_S)
        while True:
            try:
                if not sock.recv(4096):
                    break
            except ConnectionResetError:
                break
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(trio_of_daemons[0].socket))
        sock.sendall(os.urandom(256) + b"\r\n\r\n")
        sock.settimeout(GUARD_S)
        assert sock.recv(4096).startswith(b"HTTP/1.1 4")
    assert trio_of_daemons[0].ctl("status").code == 0


def test_python_dash_m_is_the_daemon() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fedd", "--version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("fedd ")
