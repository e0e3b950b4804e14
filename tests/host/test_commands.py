"""Commands between nodes over real links on virtual time; the plugin host is played by coroutines."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from host.command_plugins import PlayedBroadcast
from host.worlds import Node, parameter, world
from waiting import until

from fedd.api.errors import (
    Conflict,
    Denied,
    FeddError,
    InvalidMessage,
    InvalidParameter,
    NotConnected,
    NotFound,
    PluginFailed,
    Refused,
    TimedOut,
    Unhealthy,
)
from fedd.core import codec
from fedd.core.command_messages import (
    encode_error,
    encode_value,
    protocol_of,
    read_parameters,
)
from fedd.core.pipe import Frame
from fedd.host.command_call import Page
from fedd.host.command_runs import CommandRuns
from fedd.host.commands import Commands
from fedd.host.policy import Policy

Clock = trio.testing.MockClock


def command(name: str, *parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    terms = {"version": "1.0.0", "audience": "members", "max_payload_bytes": 65_536, "timeout_s": 10.0}
    return {"name": name, "doc": f"{name}.", "parameters": list(parameters), **terms, **more}


TEXT = parameter("text", "str", None, required=True)
COUNT = parameter("count", "int", 1)
COMMANDS = [
    command("echo", TEXT, COUNT),
    command("slow", parameter("seconds", "float", 5.0)),
    command("fails"),
    command("small", TEXT, max_payload_bytes=100),
    command("large", parameter("weights", "message", None), max_payload_bytes=1 << 20),
    command("own", audience="local"),
    command("alone", audience="direct"),
    command("forward", TEXT),
    command("garbage"),
]


def document(commands: list[dict[str, Any]], distribution: str = "fedd") -> bytes:
    plugin = {"name": "plugin", "value": "x", "distribution": distribution, "version": "1", "error": None,
              "algorithms": [], "commands": commands}  # fmt: skip
    return codec_json({"format": 1, "plugins": [plugin]})


def codec_json(found: Any) -> bytes:
    return json.dumps(found).encode()


class PlayedHost:
    """A plugin host process whose handlers are coroutines: `handle(header, parameters)`."""

    def __init__(self, handle: Callable[[dict[str, Any], dict[str, Any]], Awaitable[Any]]) -> None:
        self.last_line = ""
        self.handle = handle
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.cancelled: list[int] = []
        self._send, self._inbox = trio.open_memory_channel[Frame](64)
        self._scopes: dict[int, trio.CancelScope] = {}
        self._killed = trio.CancelScope()

    async def spawn(self, scratch: str, page: Page) -> Any:
        self._killed = trio.CancelScope()
        return self

    def send(self, header: dict[str, Any], body: Any = ()) -> None:
        self._send.send_nowait(Frame(header, [memoryview(part) for part in body]))

    async def run(self, on_frame: Callable[[Frame], None]) -> str:
        on_frame(Frame({"kind": "ready"}, []))
        with self._killed:
            async with trio.open_nursery() as nursery:
                async for frame in self._inbox:
                    if frame.header["kind"] == "call":
                        nursery.start_soon(self._serve, frame, on_frame)
                    elif frame.header["kind"] == "cancel":
                        self.cancelled.append(frame.header["call"])
                        self._scopes[frame.header["call"]].cancel()
        return "was killed by SIGKILL"

    async def _serve(self, frame: Frame, on_frame: Callable[[Frame], None]) -> None:
        header, call = frame.header, frame.header["call"]
        on_frame(Frame({"kind": "began", "call": call}, []))
        answer = encode_error(TimedOut("cancelled"))
        with trio.CancelScope() as self._scopes[call]:
            parameters = read_parameters(frame.body[0], 1 << 24)
            if not header["only_check"]:
                self.calls.append((header["command"], header["sender"], parameters))
            try:
                value = None if header["only_check"] else await self.handle(header, parameters)
                answer = value if isinstance(value, memoryview) else encode_value(value)
            except FeddError as error:
                answer = encode_error(error)
        on_frame(Frame({"kind": "answer", "call": call}, [memoryview(answer)]))

    def kill(self) -> None:
        self._killed.cancel()

    async def aclose(self) -> None:
        self.kill()


async def handle(header: dict[str, Any], parameters: Mapping[str, Any]) -> Any:
    match header["command"]:
        case "echo":
            return {"text": parameters["text"] * parameters.get("count", 1), "sender": header["sender"]}
        case "slow":
            await trio.sleep(parameters.get("seconds", 5.0))
        case "fails":
            raise PluginFailed("ValueError: the sensor is on fire", hint="in handle")
        case "garbage":
            return memoryview(b"\xff\xff")
        case "large":
            return parameters["weights"]
    return None


class Peers:
    """Linked nodes with commands."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        everybody: dict[str, PlayedBroadcast] = {}
        self.hosts = [PlayedHost(handle) for _ in nodes]
        self.broadcasts = [PlayedBroadcast(node.id, everybody) for node in nodes]
        self.rooms = [
            Commands(
                node.swarm, node.presence, node.registry, node.events, "/nowhere",
                reach=node.relay.reach, broadcaster=broadcast, spawn=host.spawn,
                runs=CommandRuns(node.runs, node.inputs),
            )
            for node, host, broadcast in zip(nodes, self.hosts, self.broadcasts, strict=True)
        ]  # fmt: skip

    async def send(self, sender: int, receiver: int, name: str, /, **parameters: Any) -> Any:
        return await self.rooms[sender].send(self.nodes[receiver].id, name, parameters)

    def events(self, node: int) -> list[dict[str, Any]]:
        log = self.nodes[node].events
        return [event for event in log._events if event["kind"] == "command"]


@asynccontextmanager
async def peers(count: int = 2, change: Callable[[list[Node]], None] | None = None) -> AsyncIterator[Peers]:
    def prepare(nodes: list[Node]) -> None:
        for node in nodes:
            node.document = document(COMMANDS)
        if change is not None:
            change(nodes)

    async with world(count, prepare=prepare) as nodes:
        made = Peers(nodes)
        async with trio.open_nursery() as nursery:
            for room in made.rooms:
                await nursery.start(room.run)
            yield made
            nursery.cancel_scope.cancel()


async def test_a_command_goes_there_and_its_answer_back(autojump_clock: Clock) -> None:
    async with peers() as p:
        answer = await p.send(0, 1, "echo", text="hi", count="2")
        assert answer == {"text": "hihi", "sender": p.nodes[0].id}
        assert p.hosts[1].calls == [("echo", p.nodes[0].id, {"text": "hi", "count": 2})]
        assert (await p.send(1, 1, "echo", text="me"))["sender"] == p.nodes[1].id
        array = codec.ArrayView("uint8", (60_000,), b"x" * 60_000)
        assert await p.send(0, 1, "large", weights=[array] * 8) == [array] * 8


@pytest.mark.parametrize(
    ("name", "parameters", "error", "said"),
    [
        ("ecko", {}, NotFound, "n1: there is no command 'ecko' here"),
        ("echo", {}, InvalidParameter, "echo needs text"),
        ("echo", {"txet": 1}, InvalidParameter, "did you mean 'text'"),
        ("echo", {"text": "x", "count": "many"}, InvalidParameter, "whole number"),
        ("own", {}, Denied, "alone"),
        ("fails", {}, PluginFailed, "n1: ValueError: the sensor is on fire"),
        ("small", {"text": "x" * 200}, InvalidMessage, "more than 100"),
        ("garbage", {}, PluginFailed, "n1: the handler of garbage answered nonsense"),
        ("slow", {"seconds": 60.0}, TimedOut, "n1: cancelled"),
    ],
)
async def test_what_goes_wrong_is_said(
    autojump_clock: Clock, name: str, parameters: dict[str, Any], error: type[FeddError], said: str
) -> None:
    async with peers() as p:
        with pytest.raises(error) as caught:
            await p.send(0, 1, name, **parameters)
        assert said in str(caught.value)
        assert (await p.send(0, 1, "echo", text="on"))["text"] == "on"


def only_there(*commands: dict[str, Any]) -> Callable[[list[Node]], None]:
    """Node 0 has none of the commands, node 1 these."""

    def change(nodes: list[Node]) -> None:
        nodes[0].document = document([])
        nodes[1].document = document(list(commands))

    return change


async def test_the_receiver_judges_what_the_sender_does_not_know(autojump_clock: Clock) -> None:
    """The sender has no schema: texts arrive as texts, and all is checked there."""
    local = command("own", audience="local")
    async with peers(change=only_there(*COMMANDS[:5], local)) as p:
        assert (await p.send(0, 1, "echo", text="hi", count="2"))["text"] == "hihi"
        for name, parameters, error in (
            ("echo", {"count": "2"}, InvalidParameter),
            ("own", {}, Denied),
            ("small", {"text": "x" * 200}, InvalidMessage),
        ):
            with pytest.raises(error, match="n1: "):
                await p.send(0, 1, name, **parameters)
        with pytest.raises(NotFound, match="there is no command 'echo' here"):
            await p.rooms[0].broadcast("echo", {"text": "hi"})


async def test_versions_must_go_together(autojump_clock: Clock) -> None:
    async with peers(
        change=lambda nodes: setattr(nodes[1], "document", document([command("echo", TEXT, version="2.1")]))
    ) as p:
        with pytest.raises(Conflict, match=r"n1: echo has the version 2\.1 here, not 1\.0\.0"):
            await p.send(0, 1, "echo", text="hi")


async def test_a_strangers_command_must_be_listed(autojump_clock: Clock) -> None:
    def change(nodes: list[Node]) -> None:
        nodes[1].document = document(COMMANDS, distribution="acme")

    async with peers(change=change) as p:
        with pytest.raises(Denied, match="n1: the policy here does not allow the command 'echo' of acme"):
            await p.send(0, 1, "echo", text="hi")
        assert not p.nodes[1].registry.command("echo").allowed
        p.nodes[1].registry.policy = Policy(commands=("plugin",))
        assert (await p.send(0, 1, "echo", text="hi"))["text"] == "hi"
        assert p.nodes[1].registry.command("echo").allowed


async def test_nobody_is_sent_to_who_is_not_there(autojump_clock: Clock) -> None:
    async with peers() as p:
        with pytest.raises(NotFound, match="is no member"):
            await p.rooms[0].send("12D3KooWnobody", "echo", {"text": "x"})
        p.nodes[1].kill()
        await until(lambda: p.nodes[0].presence.state_of(p.nodes[1].id) == "dead")
        with pytest.raises(NotConnected, match="n1 is dead"):
            await p.send(0, 1, "echo", text="x")


async def test_a_sender_does_not_wait_for_ever(autojump_clock: Clock) -> None:
    async with peers() as p:
        with pytest.raises(TimedOut, match=r"n1 did not answer slow within 0\.5 s"):
            await p.rooms[0].send(p.nodes[1].id, "slow", {}, 0.5)
        await until(lambda: p.hosts[1].cancelled)  # given up there as well


async def test_a_stranger_is_refused_as_if_nobody_spoke_it(autojump_clock: Clock) -> None:
    async with peers() as p:
        p.nodes[1].swarm.member_check = lambda peer: False
        with pytest.raises(Refused):
            await p.send(0, 1, "echo", text="x")


@pytest.mark.parametrize(
    ("request_bytes", "said"),
    [
        (struct.pack("!I", 70_000), "70000 bytes are more than the 65536"),
        (struct.pack("!I", 3) + b"\xff\xff\xff", "cannot be read"),
        (struct.pack("!I", 4), "did not come within"),
    ],
)
async def test_a_request_that_is_none(autojump_clock: Clock, request_bytes: bytes, said: str) -> None:
    async with peers() as p:
        stream = await p.nodes[0].swarm.open_stream(p.nodes[1].id, protocol_of("echo", "1.0.0"))
        await stream.send_all(request_bytes)
        (length,) = struct.unpack("!I", await stream.receive_exactly(4))
        assert said in codec.decode(await stream.receive_exactly(length))["error"]["detail"]
        assert p.hosts[1].calls == []


async def test_a_sender_that_goes_away_ends_its_handler(autojump_clock: Clock) -> None:
    async with peers() as p:
        stream = await p.nodes[0].swarm.open_stream(p.nodes[1].id, protocol_of("slow"))
        data = codec.encode({})
        await stream.send_all(struct.pack("!I", len(data)) + data)
        await until(lambda: p.hosts[1].calls)
        stream.reset()
        await until(lambda: p.hosts[1].cancelled)


async def test_a_half_closed_request_is_answered(autojump_clock: Clock) -> None:
    async with peers() as p:
        stream = await p.nodes[0].swarm.open_stream(p.nodes[1].id, protocol_of("slow"))
        data = codec.encode({"seconds": 1.0})
        await stream.send_all(struct.pack("!I", len(data)) + data)
        await stream.send_eof()
        (length,) = struct.unpack("!I", await stream.receive_exactly(4))
        assert codec.decode(await stream.receive_exactly(length)) == {"value": None}


async def test_a_flood_of_one_member_leaves_room_for_the_others(autojump_clock: Clock) -> None:
    async with peers(3) as p:
        refused: list[FeddError] = []

        async def flood() -> None:
            try:
                await p.send(0, 2, "slow", seconds=9.0)
            except FeddError as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(flood)
            await until(lambda: len(p.hosts[2].calls) == 4 and refused)
            with trio.fail_after(1):
                assert (await p.send(1, 2, "echo", text="on"))["text"] == "on"
                assert (await p.send(2, 2, "echo", text="me"))["text"] == "me"
            nursery.cancel_scope.cancel()
        assert all(isinstance(error, Unhealthy) for error in refused)
        bound = next(bound for bound in p.rooms[2].bounds() if bound.name == "commands")
        assert bound.reached == len(refused) == 20
