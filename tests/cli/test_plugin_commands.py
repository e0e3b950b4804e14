"""fedctl commands, send and broadcast: what they ask, what they show, and whose help they give."""

from __future__ import annotations

import json

import pytest
from cli.conftest import Fedctl

from fedd.api.errors import Denied, NotFound, TimedOut
from fedd.cli.commands import as_question

ECHO = {
    "name": "echo",
    "plugin": "basics",
    "distribution": "fedd",
    "version": "0.1.0",
    "doc": "Answers.",
    "protocol": "/fedd/command/echo/1.0.0",
    "audience": "members",
    "max_payload_bytes": 65536,
    "timeout_s": 10,
    "event_text": "",
    "allowed": True,
    "parameters": [
        {"name": "text", "type": "str", "default": None, "help": "what comes back", "required": True},
        {"name": "mode", "type": "str", "default": "quiet", "help": "", "choices": ["loud", "quiet"]},
    ],
}
PRIVATE = {**ECHO, "name": "private", "audience": "local", "parameters": []}
NOTICE = {**ECHO, "name": "note", "event_text": "text"}
FOREIGN = {**ECHO, "name": "foreign", "allowed": False}


def test_the_list(fedctl: Fedctl) -> None:
    fedctl.answer("GET", "/v1/commands", [ECHO, PRIVATE, FOREIGN])
    status, out, _ = fedctl("commands")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "echo", "private", "foreign"]
    assert "this device" in out
    assert "nobody (not in [policy] commands)" in out
    assert json.loads(fedctl("--json", "commands")[1]) == [ECHO, PRIVATE, FOREIGN]


@pytest.mark.parametrize(
    "words",
    [
        ("commands", "echo"),
        ("send", "b", "echo", "--help"),
        ("send", "--socket", "x", "b", "echo", "-h"),
        ("broadcast", "echo", "--help"),
        ("broadcast", "echo", "text=1", "--help"),
        ("--socket=x", "send", "b", "echo", "-h"),
    ],
)
def test_one_command_as_the_daemon_describes_it(fedctl: Fedctl, words: tuple[str, ...]) -> None:
    fedctl.answer("GET", "/v1/commands/echo", ECHO)
    status, out, err = fedctl(*words)
    assert (status, err) == (0, "")
    assert "text       str         required  what comes back" in out
    assert 'mode       loud|quiet  "quiet"' in out
    assert "fedctl send PEER echo text=..." in out
    assert "fedctl broadcast echo text=..." in out


def test_a_notice_says_what_it_leaves(fedctl: Fedctl) -> None:
    fedctl.answer("GET", "/v1/commands/note", NOTICE)
    fedctl.answer("GET", "/v1/commands/echo", ECHO)
    assert "it leaves its text in the event log" in fedctl("commands", "note")[1]
    assert "event log" not in fedctl("commands", "echo")[1]


def test_what_is_not_for_everybody_says_so(fedctl: Fedctl) -> None:
    fedctl.answer("GET", "/v1/commands/private", PRIVATE)
    fedctl.answer("GET", "/v1/commands/foreign", FOREIGN)
    out = fedctl("commands", "private")[1]
    assert "broadcast" not in out
    assert "PARAMETER" not in out
    assert 'not allowed here: add commands = ["foreign"]' in fedctl("commands", "foreign")[1]
    assert json.loads(fedctl("commands", "private", "--json")[1]) == PRIVATE


@pytest.mark.parametrize(
    "words", [("send", "--help"), ("send", "b", "--help"), ("broadcast", "-h"), ("--help",)]
)
def test_the_help_of_fedctl_itself(fedctl: Fedctl, words: tuple[str, ...]) -> None:
    assert as_question(words) == list(words)
    status, out, _ = fedctl(*words)
    assert status == 0
    assert "usage: fedctl" in out


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ("hi", "hi\n"),
        (None, ""),
        ({"kernel": "6.1", "load": 0.5}, "kernel  6.1\nload    0.5\n"),
        ([1, 2], "[1, 2]\n"),
        ({}, "{}\n"),
        ("\x1b[2J", "\\x1b[2J\n"),
    ],
)
def test_an_answer(fedctl: Fedctl, reply: object, shown: str) -> None:
    fedctl.answer("POST", "/v1/commands/echo/send", {"command": "echo", "peer_id": "12D3b", "reply": reply})
    assert fedctl("send", "b", "echo", "text=a=b", "mode=loud") == (0, shown, "")
    body = {"peer": "b", "parameters": {"text": "a=b", "mode": "loud"}}
    assert fedctl.asked("POST") == [("/v1/commands/echo/send", body)]
    assert json.loads(fedctl("send", "b", "echo", "--json", "text=x")[1]) == reply


@pytest.mark.parametrize(
    ("error", "status"), [(NotFound("no command"), 5), (Denied("no"), 4), (TimedOut("late"), 6)]
)
def test_the_exit_status_says_what_kind(fedctl: Fedctl, error: Exception, status: int) -> None:
    fedctl.answer("POST", "/v1/commands/echo/send", error)
    assert fedctl("send", "b", "echo")[0] == status


def test_words_that_are_no_parameters(fedctl: Fedctl) -> None:
    assert "'hello' is no parameter" in fedctl("send", "b", "echo", "hello")[2]
    assert fedctl("send", "b", "echo", "=x")[0] == 2
    assert fedctl("broadcast", "note", "text=1", "text=2")[0] == 2


def test_a_broadcast(fedctl: Fedctl) -> None:
    fedctl.answer("POST", "/v1/commands/note/broadcast", {"delivered": 3, "missing": []})
    assert fedctl("broadcast", "note", "text=hi") == (0, "delivered to 3\n", "")
    body = {"parameters": {"text": "hi"}, "wait": True}
    assert fedctl.asked("POST") == [("/v1/commands/note/broadcast", body)]


def test_a_broadcast_that_nobody_confirms(fedctl: Fedctl) -> None:
    fedctl.answer("POST", "/v1/commands/note/broadcast", {"delivered": 1, "missing": []})
    said = "on its way to all; nobody was asked to confirm it\n"
    assert fedctl("broadcast", "note", "text=hi", "--no-wait") == (0, said, "")
    body = {"parameters": {"text": "hi"}, "wait": False}
    assert fedctl.asked("POST") == [("/v1/commands/note/broadcast", body)]
    status, out, _ = fedctl("broadcast", "note", "text=hi", "--no-wait", "--json")
    assert (status, json.loads(out)) == (0, {"delivered": 1, "missing": []})


def test_who_did_not_confirm_a_broadcast_is_named(fedctl: Fedctl) -> None:
    reached = {"delivered": 1, "missing": ["12D3KooWAbcdefghijk", "12D3KooWb"]}
    fedctl.answer("POST", "/v1/commands/note/broadcast", reached)
    fedctl.answer("GET", "/v1/members", [{"peer_id": "12D3KooWb", "name": "b"}])
    assert (
        fedctl("broadcast", "note", "text=hi")[1].splitlines()[1] == "not confirmed by 2: 12D3KooWAbcdefgh, b"
    )
    assert json.loads(fedctl("--json", "broadcast", "note", "text=hi")[1]) == reached
