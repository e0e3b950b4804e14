"""Commands to all, and handlers that reach others through the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing
from host.command_plugins import Arrival, Hole
from host.test_commands import Clock, handle, peers
from waiting import until

from fedd.api.command import Reached
from fedd.api.errors import (
    Denied,
    FeddError,
    InvalidMessage,
    InvalidParameter,
    NotFound,
    ProtocolError,
)
from fedd.core import codec
from fedd.core.command_messages import (
    encode_broadcast,
)
from fedd.host.command_call import Call
from fedd.host.commands import MAX_BROADCAST_BYTES
from fedd.host.plugin_schema import CommandInfo, Parameter


async def test_a_broadcast_is_handled_by_all_in_order(autojump_clock: Clock) -> None:
    async with peers(3) as p:
        p.broadcasts[2].deaf = True
        for number in range(5):
            reached = await p.rooms[0].broadcast("echo", {"text": str(number)})
            assert set(reached.delivered) == {p.nodes[0].id, p.nodes[1].id}
            assert reached.missing == (p.nodes[2].id,)
        await until(lambda: len(p.hosts[1].calls) == 5 and len(p.hosts[0].calls) == 5)
        for host in p.hosts[:2]:
            assert [call[2]["text"] for call in host.calls] == list("01234")
            assert {call[1] for call in host.calls} == {p.nodes[0].id}
        assert p.hosts[2].calls == []
        assert p.events(1) == []


async def test_a_broadcast_that_nobody_confirms(autojump_clock: Clock) -> None:
    async with peers() as p:
        reached = await p.rooms[0].broadcast("echo", {"text": "x"}, wait=False)
        assert reached == Reached((p.nodes[0].id,), ())
        await until(lambda: len(p.hosts[1].calls) == 1)
        with pytest.raises(InvalidParameter, match="needs text"):
            await p.rooms[0].broadcast("echo", {}, wait=False)
        assert p.broadcasts[0].asked == 0
        await p.rooms[0].broadcast("echo", {"text": "x"})
        assert p.broadcasts[0].asked == 1


async def test_handlers_that_broadcast_do_not_wait_for_each_other(autojump_clock: Clock) -> None:
    """Each holds a turn while its broadcast is checked and under way."""
    async with peers() as p:
        room = p.rooms[0]

        async def broadcasts(header: dict[str, Any], parameters: Mapping[str, Any]) -> Any:
            if header["command"] == "forward":
                return codec.decode(await room.ask(None, "echo", memoryview(codec.encode({"text": "x"}))))
            return await handle(header, parameters)

        p.hosts[0].handle = broadcasts
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(lambda: p.send(0, 0, "forward", text="x"))
        assert trio.current_time() - began < 1
        await until(lambda: len(p.hosts[1].calls) == 4)


@pytest.mark.parametrize(
    ("name", "parameters", "error", "said"),
    [
        ("ecko", {}, NotFound, "no command"),
        ("own", {}, Denied, "for this device alone"),
        ("alone", {}, Denied, "fedctl send MEMBER alone"),
        ("echo", {}, InvalidParameter, "needs text"),
        ("small", {"text": "x" * 90}, InvalidMessage, "can go"),
        ("large", {"weights": b"x" * MAX_BROADCAST_BYTES}, InvalidMessage, "send large values to each"),
    ],
)
async def test_what_is_not_broadcast(
    autojump_clock: Clock, name: str, parameters: dict[str, Any], error: type[FeddError], said: str
) -> None:
    async with peers() as p:
        with pytest.raises(error) as caught:
            await p.rooms[0].broadcast(name, parameters)
        assert said in str(caught.value)
        assert all(host.calls == [] for host in p.hosts)


async def test_a_broadcast_that_is_not_handled_is_one_event(autojump_clock: Clock) -> None:
    async with peers() as p:
        for payload in (
            b"\xff",
            b"\xff",
            encode_broadcast("nope", "1", {}),
            encode_broadcast("own", "1", {}),
            encode_broadcast("alone", "1", {}),
        ):
            p.broadcasts[1].callbacks["command"](Arrival(p.nodes[0].id, payload))
        p.broadcasts[1].callbacks["command"](Hole(p.nodes[0].id, 3, 5))
        await p.rooms[0].broadcast("fails", {})
        await until(lambda: len(p.events(1)) == 6)
        errors = sorted(event["error"] for event in p.events(1))
        assert [error[:22] for error in errors] == [
            "3 broadcasts were miss", "ValueError: the sensor", "a broadcast command ca",
            "alone is for one membe", "own is for that device", "there is no command 'n",
        ]  # fmt: skip
        assert {event["name"] for event in p.events(1)} == {"n0"}


async def test_broadcasts_without_end_are_lost_and_that_is_said(autojump_clock: Clock) -> None:
    async with peers() as p:
        payload = encode_broadcast("slow", "1", {"seconds": 5.0})
        for _ in range(70):
            p.broadcasts[1].callbacks["command"](Arrival(p.nodes[0].id, payload))
        assert [event["error"] for event in p.events(1)] == [
            "broadcasts were lost: their handlers are too far behind"
        ]
        await until(lambda: len(p.hosts[1].calls) == 64, 400)


async def test_handlers_reach_others_through_the_daemon(autojump_clock: Clock) -> None:
    async with peers() as p:
        room = p.rooms[0]
        body = memoryview(codec.encode({"text": "hi"}))
        answer = await room.ask(p.nodes[1].id, "echo", body)
        assert codec.decode(answer)["value"]["sender"] == p.nodes[0].id
        reached = codec.decode(await room.ask(None, "echo", body))["value"]
        assert (len(reached["delivered"]), reached["missing"]) == (2, [])
        with pytest.raises(ProtocolError):
            await room.ask(None, "echo", memoryview(b"\xff"))
        assert [name for _, name, _ in room.members()] == [
            node.name for node in sorted(p.nodes, key=lambda n: n.id)
        ]


async def test_events_of_handlers_are_flat_and_bounded(autojump_clock: Clock) -> None:
    async with peers() as p:
        info = CommandInfo(
            "log", "plugin", "fedd", "1", "", (Parameter("a", "int", 1, "", None),), "1", "members", 1, 1.0
        )
        call = Call(info, p.nodes[1].id, b"")
        fields = {"seq": 7, "kind": "node", "level": 3, "odd": [1], **{f"f{n}": n for n in range(30)}}
        p.rooms[0].event(call, "the pump runs", fields)
        (event,) = p.events(0)
        assert (event["command"], event["name"], event["text"]) == ("log", "n1", "the pump runs")
        assert (event["level"], event["kind"]) == (3, "command")
        assert "odd" not in event
        assert len(event) <= 16 + 8
        p.rooms[0].trouble("plugin", "its command log was killed")
        assert p.nodes[0].events._events[-1]["error"] == "its command log was killed"


async def test_a_reload_starts_over(autojump_clock: Clock) -> None:
    async with peers() as p:
        await p.send(0, 0, "echo", text="x")
        assert p.rooms[0]._host.running
        p.rooms[0].reload()
        assert not p.rooms[0]._host.running
        assert (await p.send(0, 0, "echo", text="y"))["text"] == "y"
