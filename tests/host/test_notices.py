"""Commands that only leave a line in the event log: the daemon writes it, no plugin host has to be there."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from host.command_plugins import Arrival
from host.test_commands import Clock, Peers, command, document, peers
from host.test_plugins import offering, registry
from host.worlds import Node, parameter
from waiting import until

from fedd.api.errors import Denied, FeddError, InvalidMessage, InvalidParameter
from fedd.core.command_messages import encode_broadcast
from fedd.host.plugins import check_command_parameters

LEVEL = parameter("level", "int", 1)
TEXT = parameter("text", "str", None, required=True, max_chars=20)
NOTICES = [
    command("tell", TEXT, LEVEL, event_text="text"),
    command("tiny", TEXT, event_text="text", max_payload_bytes=16),
    command("hush", parameter("text", "str", "", max_chars=20), event_text="text"),
    command("alone", TEXT, event_text="text", audience="direct"),
    command("own", TEXT, event_text="text", audience="local"),
    command("slow", parameter("seconds", "float", 5.0)),
]


def everywhere(nodes: list[Node]) -> None:
    for node in nodes:
        node.document = document(NOTICES)


def told(p: Peers, node: int) -> list[str]:
    """What the event log of a node says of commands."""
    return [event.get("text") or event["error"] for event in p.events(node)]


def arrive(p: Peers, name: str, origin: int = 0, **parameters: Any) -> None:
    """A broadcast comes to node 1."""
    payload = encode_broadcast(name, "1.0.0", parameters)
    p.broadcasts[1].callbacks["command"](Arrival(p.nodes[origin].id, payload))


async def test_a_notice_is_an_event_and_calls_nobody(autojump_clock: Clock) -> None:
    async with peers(change=everywhere) as p:
        assert await p.send(0, 1, "tell", text="the pump runs", level="3") is None
        assert await p.send(1, 1, "tell", text="so it does") is None
        reached = await p.rooms[0].broadcast("tell", {"text": "stop it"})
        assert len(reached.delivered) == 2
        assert told(p, 1) == ["the pump runs", "so it does", "stop it"]
        first, second, _ = p.events(1)
        assert (first["command"], first["plugin"], first["level"]) == ("tell", "plugin", 3)
        assert (first["peer_id"], first["name"]) == (p.nodes[0].id, "n0")
        assert (second["peer_id"], second["level"]) == (p.nodes[1].id, 1)
        assert all(host.calls == [] for host in p.hosts)
        assert not any(room._host.running for room in p.rooms)


@pytest.mark.parametrize(
    ("name", "parameters", "error", "said"),
    [
        ("tell", {"text": "x" * 21}, InvalidParameter, "text has 21 characters, write up to 20"),
        ("tell", {"text": " \t"}, InvalidParameter, "text has no characters but blanks"),
        ("hush", {}, InvalidParameter, "text has no characters but blanks"),
        ("tell", {"level": 3}, InvalidParameter, "tell needs text"),
        ("tell", {"text": "x", "level": "high"}, InvalidParameter, "whole number"),
        ("tiny", {"text": "x" * 20}, InvalidMessage, "more than 16|[0-9]+ can go"),
    ],
)
async def test_a_notice_that_says_nothing_good(
    autojump_clock: Clock, name: str, parameters: dict[str, Any], error: type[FeddError], said: str
) -> None:
    async with peers(change=everywhere) as p:
        with pytest.raises(error, match=said):
            await p.rooms[0].broadcast(name, parameters)
        with pytest.raises(error, match=said):
            await p.send(0, 1, name, **parameters)
        assert told(p, 0) == told(p, 1) == []


async def test_what_comes_by_broadcast_is_judged_again(autojump_clock: Clock) -> None:
    async with peers(change=everywhere) as p:
        with pytest.raises(Denied, match="fedctl send MEMBER alone"):
            await p.rooms[0].broadcast("alone", {"text": "x"})
        arrive(p, "tell", text="x" * 21)
        arrive(p, "alone", text="x")
        arrive(p, "own", text="x")
        assert [line[:25] for line in told(p, 1)] == [
            "text has 21 characters, w", "alone is for one member a", "own is for that device al",
        ]  # fmt: skip


async def test_a_notice_comes_after_what_its_sender_said_before(autojump_clock: Clock) -> None:
    async with peers(change=everywhere) as p:
        began = trio.current_time()
        arrive(p, "slow", seconds=4.0)
        arrive(p, "tell", text="done")
        arrive(p, "tell", origin=1, text="meanwhile")  # nobody waits for another's handlers
        assert told(p, 1) == ["meanwhile"]
        await until(lambda: told(p, 1) == ["meanwhile", "done"])
        assert trio.current_time() - began >= 4.0


async def test_a_notice_waits_for_the_inspector(autojump_clock: Clock) -> None:
    async with peers(change=everywhere) as p:
        ready, p.nodes[1].registry._ready = p.nodes[1].registry._ready, trio.Event()
        arrive(p, "tell", text="early")
        assert told(p, 1) == []
        p.nodes[1].registry._ready.set()
        await until(lambda: told(p, 1) == ["early"])
        assert ready.is_set()


async def test_what_a_registry_knows_of_a_notice() -> None:
    made = await registry(offering("basics", commands=[NOTICES[0]]))
    info = made.command("tell")
    assert info.event_text == info.describe()["event_text"] == "text"
    assert [shown.get("max_chars") for shown in info.describe()["parameters"]] == [20, None]
    assert check_command_parameters(info, {"text": "x" * 20}) == {"text": "x" * 20}


@pytest.mark.parametrize("wrong", ["level", "nothing", "odd"])
async def test_a_notice_without_its_text_is_malformed(wrong: str) -> None:
    odd = parameter("odd", "str", None)  # neither required nor with a text for a default
    made = await registry(offering("basics", commands=[command("tell", TEXT, LEVEL, odd, event_text=wrong)]))
    assert made.commands() == []
    (failed,) = made.plugins()
    assert f"the event_text '{wrong}' of 'tell' is no text of it" in str(failed.error)
    assert json.dumps(failed.describe())
