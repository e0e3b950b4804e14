"""A command that raises, loops, crashes or answers nonsense hurts its own message only."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from federation.daemons import GUARD_S, Federation, eventually, federation

CONFIG = """
[policy]
commands = ["rogue-commands"]
"""


@pytest.fixture(scope="module")
def fed(rogue_python: str) -> Iterator[Federation]:
    with federation(2, python=rogue_python, configs=[CONFIG] * 2) as fed:
        yield fed


def troubles(fed: Federation) -> list[dict[str, Any]]:
    """What the event log of n1 says about the rogue, so far."""
    return [
        event
        for event in fed[1].events()
        if event["kind"] == "plugin" and event.get("name") == "rogue-commands"
    ]


def everybody_is_well(fed: Federation) -> None:
    assert set(fed[0].states().values()) == {"alive"}
    assert fed[0].ctl("send", "n1", "echo", "text=on").ok() == "on"


@pytest.mark.parametrize(
    ("how", "status", "said", "trouble"),
    [
        ("raise", 1, "n1: ValueError: the sensor is on fire", None),
        ("gigabyte", 1, "its answer would have more than 65536 bytes", None),
        ("exit", 1, "n1: the handler of misbehaves ended with status 3", "ended with status 3"),
        ("segfault", 1, "n1: the handler of misbehaves was killed by SIGSEGV", "SIGSEGV"),
        ("loop", 6, "n1: the handler of misbehaves did not end within 2 s", "kept the plugin host to itself"),
        ("garbage", 1, "nonsense", "nonsense"),
    ],
)
def test_the_sender_is_told_and_the_others_go_on(
    fed: Federation, how: str, status: int, said: str, trouble: str | None
) -> None:
    before = len(troubles(fed))
    pid = fed[1].pid
    reply = fed[0].ctl("send", "n1", "misbehaves", f"how={how}")
    assert (reply.code, said in reply.err) == (status, True), reply.err
    everybody_is_well(fed)
    assert fed[0].ctl("send", "n1", "misbehaves", "how=well").ok() == "good"  # ends the row of strikes
    assert fed[1].pid == pid
    new = troubles(fed)[before:]
    assert len(new) == (trouble is not None)
    if trouble is not None:
        assert trouble in new[0]["error"]


def test_other_commands_are_answered_while_one_loops(fed: Federation) -> None:
    looping = fed[0].popen("send", "n1", "misbehaves", "how=loop")
    eventually(
        lambda: fed[0].ctl("send", "n1", "echo", "text=on").code == 0, GUARD_S, "an echo beside the loop"
    )
    assert looping.wait(60) in (1, 6)
    assert fed[0].ctl("send", "n1", "misbehaves", "how=well").ok() == "good"


def test_three_strikes_and_a_reload(fed: Federation) -> None:
    for _ in range(3):
        assert fed[0].ctl("send", "n1", "misbehaves", "how=exit").code == 1
    reply = fed[0].ctl("send", "n1", "misbehaves", "how=well")
    assert "the plugin rogue-commands is disabled" in reply.err
    everybody_is_well(fed)
    fed[1].signal(signal.SIGHUP)
    eventually(
        lambda: fed[0].ctl("send", "n1", "misbehaves", "how=well").code == 0,
        GUARD_S,
        "the plugin's second chance",
    )


def test_a_strangers_command_must_be_listed(rogue_python: str) -> None:
    with federation(2, python=rogue_python) as fed:
        reply = fed[0].ctl("send", "n1", "misbehaves")
        assert reply.code == 4
        assert "policy" in reply.err
        shown = {command["name"]: command for command in fed[0].ctl("commands").ok()}
        assert shown["echo"]["allowed"]
        assert not shown["misbehaves"]["allowed"]
