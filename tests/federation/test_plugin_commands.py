"""Commands among real daemons: sent, answered, broadcast into every event log."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from federation.daemons import GUARD_S, Daemon, Federation, eventually, federation


@pytest.fixture(scope="module")
def fed() -> Iterator[Federation]:
    with federation(3) as fed:
        yield fed


def notes_of(daemon: Daemon) -> list[dict[str, Any]]:
    """The notes in its event log so far."""
    return [event for event in daemon.events() if event["kind"] == "command"]


def told(path: Path) -> str:
    """What /proc says there, nothing when the thread or process has just ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def hosts_of(daemon: Daemon) -> list[int]:
    """Process ids of its plugin hosts; children belong to the thread that started them."""
    tasks = Path(f"/proc/{daemon.pid}/task")
    children = [int(pid) for task in tasks.iterdir() for pid in told(task / "children").split()]
    return [pid for pid in children if "commands" in told(Path(f"/proc/{pid}/cmdline"))]


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie, which only waits for whoever adopted it."""
    return told(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[:1] not in ([], ["Z"])


def test_the_bundled_commands_are_there(fed: Federation) -> None:
    found = {command["name"]: command for command in fed[0].ctl("commands").ok()}
    assert {"echo", "facts", "note"} <= set(found)
    assert found["note"]["protocol"] == "/fedd/command/note/1.0.0"
    plugins = {plugin["name"]: plugin for plugin in fed[0].ctl("plugins").ok()}
    assert plugins["basics"]["commands"] == ["echo", "facts", "note"]


def test_a_command_is_answered_by_the_member_it_was_sent_to(fed: Federation) -> None:
    assert fed[0].ctl("send", "n1", "echo", "text=hi").ok() == "hi"
    assert fed[2].ctl("send", "n2", "echo").ok() == "hello"  # to itself
    facts = fed[0].ctl("send", "n2", "facts").ok()
    assert facts["memory_bytes"] > facts["memory_free_bytes"] > 0
    assert facts["fedd"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("send", "n1", "ecko"), 5, "did you mean 'echo'"),
        (("send", "nobody", "echo"), 5, "nobody here is called 'nobody'"),
        (("send", "n1", "echo", "txet=1"), 2, "did you mean 'text'"),
        (("send", "n1", "note"), 2, "note needs text"),
        (("broadcast", "nope"), 5, "there is no command 'nope'"),
        (("broadcast", "note", "text= "), 2, "characters"),
    ],
)
def test_what_goes_wrong_has_its_exit_status(
    fed: Federation, words: tuple[str, ...], status: int, said: str
) -> None:
    reply = fed[0].ctl(*words)
    assert (reply.code, said in reply.err) == (status, True), reply.err


def test_a_note_is_in_every_event_log_once_and_in_order(fed: Federation) -> None:
    texts = [f"note {number}" for number in range(3)]
    for text in texts:
        assert fed[1].ctl("broadcast", "note", f"text={text}").ok() == {"delivered": 3, "missing": []}
    sender = fed[1].peer_id()
    for daemon in fed:
        eventually(lambda d=daemon: len(notes_of(d)) >= 3, GUARD_S, f"{daemon.name} has the notes")
        notes = notes_of(daemon)
        assert [note["text"] for note in notes] == texts
        assert {(note["peer_id"], note["name"], note["command"]) for note in notes} == {
            (sender, "n1", "note")
        }


def test_a_note_starts_no_plugin_host() -> None:
    with federation(2) as pair:
        unconfirmed = pair[1].ctl("broadcast", "note", "text=quick", "--no-wait").ok()
        assert unconfirmed == {"delivered": 1, "missing": []}
        eventually(lambda: len(notes_of(pair[0])) == 1, GUARD_S, "n0 has what nobody confirmed")
        assert pair[0].ctl("broadcast", "note", "text=hello").ok() == {"delivered": 2, "missing": []}
        assert pair[0].ctl("send", "n1", "note", "text=you alone").ok() is None
        eventually(lambda: len(notes_of(pair[1])) == 3, GUARD_S, "n1 has all")
        assert [hosts_of(daemon) for daemon in pair] == [[], []]
        pair[0].ctl("send", "n1", "echo").ok()
        assert len(hosts_of(pair[1])) == 1  # so they would have been found


def test_the_plugin_host_starts_at_the_first_call_and_again_after_its_death(fed: Federation) -> None:
    fed[0].ctl("send", "n1", "echo").ok()
    (host,) = hosts_of(fed[1])
    os.kill(host, signal.SIGKILL)
    eventually(lambda: host not in hosts_of(fed[1]), GUARD_S, "the plugin host is gone")
    assert fed[0].ctl("send", "n1", "echo", "text=again").ok() == "again"
    assert hosts_of(fed[1]) != [host]


def test_who_is_dead_is_said_to_be(fed: Federation) -> None:
    fed[0].ctl("send", "n2", "echo").ok()
    hosts = hosts_of(fed[2])
    assert hosts
    fed[2].kill()
    eventually(lambda: not any(map(is_running, hosts)), GUARD_S, "its plugin host ends")
    eventually(lambda: fed[0].states()["n2"] == "dead", GUARD_S, "n2 is dead")
    reply = fed[0].ctl("send", "n2", "echo")
    assert (reply.code, "n2 is dead" in reply.err) == (1, True)
    assert fed[0].ctl("broadcast", "note", "text=bye").ok() == {"delivered": 2, "missing": []}
