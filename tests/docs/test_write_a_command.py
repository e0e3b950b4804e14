"""The plugin of the page on commands does what the page says."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from docs.pages import DOCS, blocks, fedd_accepts, mypy_passes, pytest_passes

PAGE = DOCS / "how-to" / "write-a-command.md"


DOOR = """
import pytest
from fedd.api import InvalidParameter
from fedd.testing import Commands
from fedd_door import Door


def test_a_door_is_told_of() -> None:
    commands = Commands([Door], nodes=2)
    commands.broadcast(0, "door", what="open", floor=2)
    assert [(event.node, event.text, event.fields) for event in commands.events] == [
        (0, "open", {"floor": 2}), (1, "open", {"floor": 2})
    ]
    with pytest.raises(InvalidParameter, match="write up to 80"):
        commands.broadcast(0, "door", what="x" * 81)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    plugin, test, notice = blocks(PAGE, "python")
    (tmp_path / "fedd_door.py").write_text(f"{plugin}\n\n{notice}")
    (tmp_path / "test_door.py").write_text(DOOR)
    (tmp_path / "fedd_valve.py").write_text(plugin)
    (tmp_path / "test_valve.py").write_text(test)
    return tmp_path


def test_its_own_tests_pass(project: Path) -> None:
    pytest_passes(project, "test_valve.py", "2 passed")


def test_it_passes_the_type_checker(project: Path) -> None:
    mypy_passes(project, "fedd_valve.py")
    mypy_passes(project, "fedd_door.py")


def test_a_notice_does_what_the_page_says(project: Path) -> None:
    pytest_passes(project, "test_door.py", "1 passed")


def test_its_entry_point_leads_to_its_hook(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry_points = tomllib.loads(blocks(PAGE, "toml")[0])["project"]["entry-points"]
    assert entry_points == {"fedd": {"valve": "fedd_valve"}}
    monkeypatch.syspath_prepend(project)
    module = __import__(entry_points["fedd"]["valve"])
    monkeypatch.delitem(sys.modules, "fedd_valve")
    assert [cls.name for cls in module.fedd_register_commands()] == ["valve"]


def test_its_policy_is_a_good_configuration(tmp_path: Path) -> None:
    fedd_accepts(tmp_path, blocks(PAGE, "toml")[1])


def test_its_numbers_are_those_of_the_code() -> None:
    from fedd.host.command_call import HostTimes
    from fedd.host.command_host import STRIKES
    from fedd.host.command_turns import RUNNING, RUNNING_PER_SENDER
    from fedd.host.plugins import MAX_COMMAND_BYTES, MAX_COMMAND_TIMEOUT_S
    from fedd.worker import parameters

    text = PAGE.read_text("utf-8")
    assert parameters.MAX_COMMAND_BYTES == MAX_COMMAND_BYTES == 16 * 1024 * 1024
    assert parameters.MAX_TIMEOUT_S == MAX_COMMAND_TIMEOUT_S == 30
    assert f"{RUNNING} handlers on a node, {RUNNING_PER_SENDER} of one sender" in text
    assert f"killed after {HostTimes.block_s:g} s" in " ".join(text.split())
    assert f"and {HostTimes.grace_s:g} s later killed" in text
    assert STRIKES == 3
