"""What an operator does to a daemon, and what the daemon says about it."""

from __future__ import annotations

import json
import signal
import threading

from federation.daemons import GUARD_S, federation


def test_a_power_cut_of_all_loses_nothing() -> None:
    with federation(3) as fed:
        fed.set_inputs([20.5, 21.0, 23.0])
        first = fed[0].ctl("run", "consensus", "--input", "x").ok()
        for daemon in fed:
            daemon.wait_kept(first["run_id"])
        for daemon in fed:
            daemon.kill()
        for daemon in fed:
            daemon.start()
        for daemon in fed:
            daemon.wait_ready().wait_plugins()
        fed.wait_alive()
        for daemon in fed:
            assert daemon.ctl("show", first["run_id"]).ok()["value"] == first["value"]
        assert fed[2].ctl("run", "consensus", "--input", "x").ok()["value"] == first["value"]


def test_a_damaged_file_is_named_and_never_overwritten() -> None:
    with federation(1) as fed:
        daemon = fed[0]
        daemon.kill()
        for name in ("federation", "identity.key", "epoch"):
            path = daemon.dir / name
            good = path.read_bytes()
            path.write_bytes(b"\xff\x00 rubbish")
            daemon.log.write_bytes(b"")
            daemon.start()
            assert daemon.process is not None
            assert daemon.process.wait(GUARD_S) == 1
            said = daemon.log.read_text()
            assert name in said
            assert said.startswith("fedd: ")
            assert said.count("\n") == 1
            assert path.read_bytes() == b"\xff\x00 rubbish"
            path.write_bytes(good)
        daemon.start().wait_ready()
        assert daemon.ctl("status").ok()["federation"] == "plant7"


def test_members_watch_shows_a_pause_and_its_end() -> None:
    with federation(2) as fed:
        watch = fed[0].popen("members", "--watch")
        assert watch.stdout is not None
        assert watch.stderr is not None
        deadline = threading.Timer(GUARD_S, watch.kill)
        deadline.start()
        try:
            while _state_in(watch.stdout.readline()) != "alive":
                pass
            fed[1].signal(signal.SIGSTOP)
            while _state_in(watch.stdout.readline()) != "suspect":
                pass
            fed[1].signal(signal.SIGCONT)
            while _state_in(watch.stdout.readline()) != "alive":
                pass
            watch.send_signal(signal.SIGINT)
            assert watch.wait(GUARD_S) == 130
            assert watch.stderr.read() == "fedctl: interrupted\n"
        finally:
            deadline.cancel()
            watch.kill()
            watch.wait(GUARD_S)
            watch.stdout.close()
            watch.stderr.close()


def _state_in(line: str) -> str:
    """How n1 is in a line of the watcher; an empty line, after its end, is an error."""
    return next(str(member["state"]) for member in json.loads(line) if member["name"] == "n1")


def test_a_stop_from_another_member_is_said_where_the_run_is_followed() -> None:
    with federation(2) as fed:
        fed.set_inputs([1.0, 2.0])
        run_id = fed[0].ctl("run", "consensus", "--input", "x", "--pace", "30", "--detach").ok()["run_id"]
        running = fed[0].ctl("show", run_id).ok()
        assert running["state"] == "running"
        assert running["wall_s"] > 0
        fed[1].ctl("stop", run_id).ok()
        watched = fed[0].ctl("watch", run_id)
        assert watched.code == 1
        assert watched.err == f"fedctl: run {run_id[:12]} stopped: n1 stopped it\n"
