"""The commands that the README and the first tutorial show do what is said of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from federation.daemons import GUARD_S, Federation, eventually, federation

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def shell_blocks(page: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


def run_script(script: str, folder: Path) -> str:
    """Run it as typed, with this environment's programs first on the path; its output."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=GUARD_S,
        check=False,
    )
    assert ran.returncode == 0, f"{script}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


@pytest.fixture
def three() -> Iterator[Federation]:
    """What the tutorial's first step has started: a, b and c, each without a federation."""
    with federation(3, names=["a", "b", "c"], formed=False) as fed:
        fed.wait_plugins()
        yield fed


def test_the_readme_ends_at_21_5(tmp_path_factory: pytest.TempPathFactory) -> None:
    block = next(b for b in shell_blocks("README.md") if "init plant7" in b)
    # A slower machine than a reader's, and nobody there to look whether the daemons are up.
    ready = "until [ -S {0} ]; do sleep 0.1; done; fedctl --socket {0} plugins >{0}.plugins\n"
    waiting = "".join(ready.format(f"{name}/fedd.sock") for name in "ab")
    script = "trap 'kill $(jobs -p)' EXIT\n" + block.replace("sleep 1\n", waiting)
    assert "21.5" in run_script(script, tmp_path_factory.mktemp("readme"))


def test_the_tutorial_ends_at_21_5_and_after_a_death_at_20_75(three: Federation) -> None:
    lines = [line for b in shell_blocks("docs/tutorial/first-federation.md") for line in b.splitlines()]
    typed = [line for line in lines if line.startswith(("fedctl", "TOKEN="))]
    death = next(i for i, line in enumerate(typed) if "--pace" in line)
    before = [line for line in typed[:death] if "show RUN" not in line]
    run = next(i for i, line in enumerate(before) if " run consensus " in line)
    run_script("\n".join(before[:run]), three.root)
    three.wait_alive()  # what a reader sees in `fedctl members`, and takes longer to type than this
    assert "21.5" in run_script("\n".join(before[run:]), three.root)
    pace = subprocess.Popen(
        # five seconds a round are for fingers
        [str(BIN / "fedctl"), *typed[death].replace("--pace 5", "--pace 0.5").split()[1:], "--json"],
        cwd=three.root,
        stdout=subprocess.PIPE,
        text=True,
    )
    eventually(
        lambda: "running" in {run["state"] for run in three[0].ctl("runs").json},
        GUARD_S,
        "the slow run begins",
    )
    three[2].kill()
    answer, _ = pace.communicate(timeout=GUARD_S)
    assert '"value": 20.75' in answer
    assert '"reason": "dead"' in answer
    assert "dead" in run_script(typed[death + 1], three.root)


def test_the_tutorials_start_their_daemons_in_the_same_way() -> None:
    for name in "abc":
        line = f"fedd --state-dir {name} --name {name} --listen /ip4/127.0.0.1/tcp/0"
        assert line in (ROOT / "docs/tutorial/first-federation.md").read_text("utf-8")
