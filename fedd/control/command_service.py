"""The operations of the control API that are about commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedd.api.types import PeerId
from fedd.control.server import Operation, Request
from fedd.host.commands import Commands
from fedd.host.plugins import PluginRegistry


class CommandService:
    """`find_peer` turns a name or prefix into a peer id."""

    def __init__(
        self, commands: Commands, registry: PluginRegistry, find_peer: Callable[[str], PeerId]
    ) -> None:
        self._commands = commands
        self._registry = registry
        self._find_peer = find_peer

    def operations(self) -> dict[str, Operation]:
        """By the names in `schema.ROUTES`."""
        return {
            "commands": self.commands,
            "command": self.command,
            "send": self.send,
            "broadcast": self.broadcast,
        }

    async def commands(self, request: Request) -> list[dict[str, Any]]:
        """Commands with their parameters."""
        await self._registry.ready()
        return [command.describe() for command in self._registry.commands()]

    async def command(self, request: Request) -> dict[str, Any]:
        """One command."""
        await self._registry.ready()
        return self._registry.command(request.path["name"]).describe()

    async def send(self, request: Request) -> dict[str, Any]:
        """Send it, and wait for the answer."""
        from fedd.host.run_result import plain  # here: few who only listen need it

        await self._registry.ready()
        body, name = request.body, request.path["name"]
        peer = self._find_peer(body["peer"])
        reply = await self._commands.send(peer, name, body["parameters"], body["deadline_s"])
        return {"command": name, "peer_id": peer, "reply": plain(reply)}

    async def broadcast(self, request: Request) -> dict[str, Any]:
        """Send it to everybody, and wait until they have it, unless nobody is to confirm it."""
        await self._registry.ready()
        body = request.body
        reached = await self._commands.broadcast(
            request.path["name"], body["parameters"], body["deadline_s"], wait=body["wait"]
        )
        return {"delivered": len(reached.delivered), "missing": list(reached.missing)}
