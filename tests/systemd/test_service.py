"""The shipped units: judged by systemd's own tools, and started for real in a box."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from fedd.worker import landlock, seccomp

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
UNITS = ROOT / "systemd"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed on this machine"
)


@needs_systemd
def test_the_units_are_correct(tmp_path: Path) -> None:
    for name in ("fedd.service", "fedd.socket"):
        text = (UNITS / name).read_text().replace("/opt/fedd/bin/fedd", "/bin/true")
        (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", str(tmp_path / "fedd.service"), str(tmp_path / "fedd.socket")]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@needs_systemd
def test_the_service_is_exposed_no_more_than_1_5() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(UNITS / "fedd.service")]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout


def why_no_box() -> str | None:
    if os.geteuid() != 0:
        return "booting a systemd in namespaces needs root"
    for program in ("/lib/systemd/systemd", "unshare", "ip", "setpriv"):
        if shutil.which(program) is None:
            return f"{program} is not installed on this machine"
    probe = ["unshare", "--mount", "--pid", "--fork", "--net", "--uts", "--ipc", "--cgroup", "true"]
    tried = subprocess.run(probe, capture_output=True, text=True, check=False)
    return f"this machine gives no private namespaces: {tried.stderr.strip()}" if tried.returncode else None


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the script saw in the box, after installing the wheel and living through all of its life."""
    if reason := why_no_box():
        pytest.skip(reason)
    wheel = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(wheel), str(ROOT)]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    output = tmp_path_factory.mktemp("box")
    command = ["bash", str(HERE / "box.sh"), str(HERE / "in_box.sh"), str(output)]
    command += [
        f"{wheel}:/opt/wheel",
        f"{sys.base_prefix}:/opt/python",
        f"{sysconfig.get_path('purelib')}:/opt/dependencies",
    ]
    box = subprocess.run(command, capture_output=True, text=True, check=False)
    log = output / "log"
    told = (log.read_text() if log.exists() else "") + box.stderr
    assert box.returncode == 0, f"exit {box.returncode}\n{told[-6000:]}"
    return dict(line.split("=", 1) for line in (output / "seen").read_text().splitlines())


@pytest.mark.root
class TestInABox:
    def test_the_installed_units_verify(self, seen: dict[str, str]) -> None:
        assert seen["verify"] == ""

    def test_it_gets_ready_and_says_so(self, seen: dict[str, str]) -> None:
        assert seen["started"] == "active/running"
        assert int(seen["ready_us"]) < 5_000_000
        assert seen["status_line"] != ""

    def test_fedctl_status_answers(self, seen: dict[str, str]) -> None:
        status = json.loads(seen["status"])
        assert status["peer_id"].startswith("12D3KooW")
        assert status["addresses"]

    def test_it_runs_as_its_own_user_with_its_own_state(self, seen: dict[str, str]) -> None:
        assert seen["user"] == "fedd"
        assert seen["state_dir"] == "700 fedd"

    def test_the_socket_is_for_its_group_only(self, seen: dict[str, str]) -> None:
        assert seen["socket_mode"] == "660 fedd fedd"
        assert seen["nobody"] in ("3", "4")

    def test_a_run_works_under_the_restrictions(self, seen: dict[str, str]) -> None:
        result = json.loads(seen["run"])
        assert (result["state"], result["value"]) == ("finished", 2.5)

    def test_plugins_are_walled_off_within_the_restrictions(self, seen: dict[str, str]) -> None:
        """Whatever the kernel has of it: the unit must not stand in the way of what the processes do."""
        assert ("Landlock" in seen["confined"]) == bool(landlock.abi())
        assert ("seccomp" in seen["confined"]) == seccomp.knows_this_machine()

    def test_a_network_that_comes_late_is_used(self, seen: dict[str, str]) -> None:
        assert seen["late"] == "/ip4/192.0.2.9/tcp/4747"
        assert seen["multicast"] == "1 1"
        assert seen["discovery_problems"] == "0"

    def test_names_are_resolved_under_the_restrictions(self, seen: dict[str, str]) -> None:
        assert seen["by_name"]
        assert "does not resolve" not in seen["by_name"]

    def test_reload_keeps_it_up(self, seen: dict[str, str]) -> None:
        assert seen["reloaded"] == "active"

    def test_a_kill_is_bridged_by_the_socket(self, seen: dict[str, str]) -> None:
        assert seen["after_kill"] == "active restarts 1"

    def test_it_stops_clean_and_is_started_by_the_next_request(self, seen: dict[str, str]) -> None:
        assert seen["stopped"] == "inactive success 0"
        assert seen["socket_stays"] == "active"
        assert seen["activated"] == "active"
        assert seen["left_over"] == "0"
