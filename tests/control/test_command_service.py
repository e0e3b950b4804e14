"""The routes of commands ask the rooms below and shape their replies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fedd.api.command import Reached
from fedd.control.command_service import CommandService
from fedd.control.schema import ROUTES
from fedd.control.server import Request
from fedd.core.codec import ArrayView


class House:
    def __init__(self) -> None:
        self.calls: list[Any] = []
        command = SimpleNamespace(describe=lambda: {"name": "echo"})
        self.registry = SimpleNamespace(
            ready=self.ready, commands=lambda: [command], command=lambda name: command
        )
        self.commands = SimpleNamespace(send=self.send, broadcast=self.broadcast)
        self.service = CommandService(self.commands, self.registry, lambda text: f"12D3{text}")

    async def ready(self) -> None:
        self.calls.append("ready")

    async def send(self, *arguments: Any) -> Any:
        self.calls.append(arguments)
        return {"array": ArrayView("uint8", (2,), b"\1\2"), "bytes": b"x"}

    async def broadcast(self, *given: Any, wait: bool) -> Reached:
        arguments = (*given, wait)
        self.calls.append(arguments)
        return Reached(("12D3a", "12D3b"), ("12D3c",))

    async def ask(self, operation: str, path: Any = None, **body: Any) -> Any:
        route = next(route for route in ROUTES if route.operation == operation)
        return await self.service.operations()[operation](Request(route, path or {}, body, {}, 0, "r1"))


@pytest.fixture
def house() -> House:
    return House()


async def test_the_catalog(house: House) -> None:
    assert await house.ask("commands") == [{"name": "echo"}]
    assert await house.ask("command", {"name": "echo"}) == {"name": "echo"}


async def test_an_answer_as_json_can_hold_it(house: House) -> None:
    reply = await house.ask("send", {"name": "echo"}, peer="b", parameters={"text": "x"}, deadline_s=3.0)
    assert reply["command"] == "echo"
    assert reply["peer_id"] == "12D3b"
    assert reply["reply"]["array"] == [1, 2]
    assert house.calls == ["ready", ("12D3b", "echo", {"text": "x"}, 3.0)]


async def test_who_has_a_broadcast(house: House) -> None:
    for wait in (True, False):
        house.calls.clear()
        reply = await house.ask("broadcast", {"name": "note"}, parameters={}, deadline_s=3.0, wait=wait)
        assert reply == {"delivered": 2, "missing": ["12D3c"]}
        assert house.calls == ["ready", ("note", {}, 3.0, wait)]


def test_every_route_of_commands_has_its_operation(house: House) -> None:
    routes = {route.operation for route in ROUTES if route.path.startswith("/v1/commands")}
    assert set(house.service.operations()) == routes
