"""The bundled commands: what they answer, and what they say of a machine that tells little."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedd.api import InvalidParameter, Message, NotFound
from fedd.testing import Commands
from fedd_basics import MAX_NOTE_CHARS, Echo, Facts, Note
from fedd_basics.host import facts, installed


def test_echo_answers_what_it_was_sent() -> None:
    commands = Commands([Echo], nodes=2)
    assert commands.send(0, 1, "echo", text="hi") == "hi"
    assert commands.send(0, 0, "echo") == "hello"


def test_facts_of_this_machine() -> None:
    answer = Commands([Facts], nodes=2).send(0, 1, "facts")
    assert isinstance(answer, dict)
    assert answer["hostname"]
    assert isinstance(answer["memory_bytes"], int)
    assert answer["memory_bytes"] > answer["memory_free_bytes"] > 0
    assert isinstance(answer["uptime_s"], float)
    assert str(answer["clock_utc"]).endswith("+00:00")


def machine(root: Path, **files: str) -> dict[str, Message]:
    for name, text in files.items():
        path = root.joinpath(*name.split("__"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return facts(root)


def test_facts_of_a_machine_that_tells_everything(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        proc__meminfo="MemTotal:  1000 kB\nMemAvailable: 250 kB\nHugePages_Total:   0\nOdd: x kB\n",
        proc__uptime="12.5 40.0\n",
        proc__loadavg="0.75 0.5 0.25 1/100 1234\n",
        etc__os_release="",
        sys__class__thermal__thermal_zone0__temp="41500\n",
        sys__class__thermal__thermal_zone1__temp="62000\n",
        sys__class__thermal__thermal_zone2__temp="broken\n",
    )
    assert (found["memory_bytes"], found["memory_free_bytes"]) == (1_024_000, 256_000)
    assert (found["uptime_s"], found["load_1m"], found["temperature_c"]) == (12.5, 0.75, 62.0)


def test_the_system_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text('NAME=x\nPRETTY_NAME="Debian GNU/Linux 12"\nID=debian\n')
    assert facts(tmp_path)["system"] == "Debian GNU/Linux 12"


def test_facts_of_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "uptime").write_text("")
    found = facts(tmp_path)
    for name in ("system", "uptime_s", "load_1m", "memory_bytes", "memory_free_bytes", "temperature_c"):
        assert found[name] is None
    assert installed("a-package-that-nobody-has") is None


def test_a_note_is_in_everybodys_log_with_the_senders_name() -> None:
    commands = Commands([Note], nodes=3)
    reached = commands.broadcast(1, "note", text="pump 3 is off")
    assert len(reached.delivered) == 3
    assert reached.missing == ()
    assert [(event.node, event.sender, event.text) for event in commands.events] == [
        (node, "node-01", "pump 3 is off") for node in range(3)
    ]


@pytest.mark.parametrize("text", ["", "  ", "x" * (MAX_NOTE_CHARS + 1)])
def test_a_note_says_something_in_a_line(text: str) -> None:
    with pytest.raises(InvalidParameter, match="characters") as caught:
        Commands([Note]).broadcast(0, "note", text=text)
    assert caught.value.field == "text"


def test_what_a_node_does_not_have() -> None:
    with pytest.raises(NotFound):
        Commands([Note]).send(0, 1, "echo")
