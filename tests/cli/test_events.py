import json
import time
from typing import Any

import pytest

from fedd.cli.events import EventLines

A = "12D3KooWCQdKCjTSiHZLAbwdsqb1SrPiU1fMFVSz4D3kSVmWvjGy"
B = "12D3KooWGdvygq9fz4szfmiS9a4u8H3bmXXRQaav6a5g9z19VTxZ"
SHORT_A, SHORT_B = A[:16], B[:16]


def sentence(kind: str, **fields: Any) -> str:
    """What is said about an event, without its number and time."""
    line = EventLines({A: "a"}, time.gmtime).line({"seq": 3, "kind": kind, "unix_s": 86_400.5, **fields})
    start = f"    3 01-02 00:00:00  {kind:<10} "
    assert line.startswith(start)
    return line[len(start) :]


@pytest.mark.parametrize(
    ("said", "kind", "fields"),
    [
        (
            f"b ({SHORT_B}) is alive (new)",
            "member",
            {"peer_id": B, "name": "b", "state": "alive", "reason": "reachable"},
        ),
        (
            f"a ({SHORT_A}) is dead: it fell silent (was suspect)",
            "member",
            {"peer_id": A, "state": "dead", "reason": "silent", "old": "suspect"},
        ),
        (
            f"{SHORT_B} is dead: a reason of tomorrow (new)",
            "member",
            {"peer_id": B, "state": "dead", "reason": "a reason of tomorrow"},
        ),
        (
            f"link from a ({SHORT_A}) up /ip4/10.0.0.1/tcp/1",
            "link",
            {"peer_id": A, "state": "up", "direction": "in", "address": f"/ip4/10.0.0.1/tcp/1/p2p/{A}"},
        ),
        (
            f"link to {SHORT_B} down: closed /ip4/10.0.0.1/tcp/1",
            "link",
            {
                "peer_id": B,
                "state": "down",
                "direction": "out",
                "reason": "closed",
                "address": "/ip4/10.0.0.1/tcp/1",
            },
        ),
        ("0123abcd mean started", "run", {"run_id": "0123abcdef", "algorithm": "mean", "state": "started"}),
        (
            "0123abcd mean failed: no quorum",
            "run",
            {"run_id": "0123abcdef", "algorithm": "mean", "state": "failed", "error": "no quorum"},
        ),
        ("temp set", "input", {"input": "temp"}),
        ("net cannot be used: no", "input", {"input": "net", "error": "no"}),
        ("joined plant7", "federation", {"what": "joined", "name": "plant7"}),
        (f"pending {SHORT_B} b", "federation", {"what": "pending", "peer_id": B, "name": "b"}),
        (f"denied {SHORT_B}", "federation", {"what": "denied", "peer_id": B}),
        ("mean does not work: ImportError", "plugin", {"name": "mean", "error": "ImportError"}),
        (
            "note of a: pump 3 is off severity=2",
            "command",
            {
                "command": "note",
                "plugin": "basics",
                "peer_id": A,
                "name": "a",
                "text": "pump 3 is off",
                "severity": 2,
            },
        ),
        (
            f"note of {SHORT_B} was not handled: no room",
            "command",
            {"command": "note", "peer_id": B, "error": "no room"},
        ),
        ("started", "node", {"what": "started"}),
        (
            "reloaded, applied policy, after a restart limits",
            "node",
            {"what": "reloaded", "applied": ["policy"], "needs_restart": ["limits"]},
        ),
        ("reload refused: line 3", "node", {"what": "reload refused", "reason": "line 3"}),
        (
            "another machine uses this node's identity key: give one of them a key of its own",
            "node",
            {"what": "cloned_key"},
        ),
        ('x=1 y=z list=["a"]', "novelty", {"x": 1, "y": "z", "list": ["a"]}),
        ("temp set more=1", "input", {"input": "temp", "more": 1}),
    ],
)
def test_each_kind_has_its_sentence(said: str, kind: str, fields: dict[str, Any]) -> None:
    assert sentence(kind, **fields) == said


@pytest.mark.parametrize(
    "kind", ["member", "link", "run", "input", "federation", "plugin", "command", "node"]
)
def test_an_event_without_its_fields_is_no_accident(kind: str) -> None:
    assert "None" not in sentence(kind)


def test_names_are_learnt_from_events() -> None:
    lines = EventLines({}, time.gmtime)
    event = {"seq": 1, "kind": "link", "unix_s": 0.0, "peer_id": B, "state": "up", "direction": "in"}
    assert lines.line(event).endswith(f"link from {SHORT_B} up")
    lines.line({"seq": 2, "kind": "member", "unix_s": 0.0, "peer_id": B, "name": "b", "state": "alive"})
    assert lines.line(event).endswith(f"link from b ({SHORT_B}) up")


def test_events(fedctl: Any) -> None:
    events = [
        {"seq": 7, "kind": "member", "unix_s": 1.5, "peer_id": A, "state": "dead", "reason": "closed"},
        {"kind": "lagged", "seq": 9, "missed": 2},
        {"seq": 10, "kind": "node", "unix_s": 2.5, "what": "started"},
    ]
    fedctl.answer("GET", "/v1/members", [{"peer_id": A, "name": "a"}])
    fedctl.answer("GET", "/v1/events", events)
    code, out, _ = fedctl("events", "--since", "6", "--json")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [*events, {"kind": "end"}]
    assert fedctl.client.asked[-1][3] == {"since": "6"}
    first, second, third = fedctl("events")[1].splitlines()
    assert first.endswith(f"  member     a ({SHORT_A}) is dead: its links were closed (new)")
    assert second == "... 2 events came too fast to be shown"
    assert third.endswith("  node       started")
    assert fedctl.client.asked[-1][3] == {}
