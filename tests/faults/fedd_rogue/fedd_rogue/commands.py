"""Commands that fail in every way that a plugin can."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import ClassVar

import trio

from fedd.api import Command, CommandContext, Message, hookimpl


@dataclass(frozen=True)
class Misbehaves:
    """Does what it is told, and it is told nothing good."""

    name: ClassVar[str] = "misbehaves"
    timeout_s: ClassVar[float] = 2.0
    how: str = "raise"

    async def handle(self, ctx: CommandContext) -> Message:
        match self.how:
            case "raise":
                raise ValueError("the sensor is on fire")
            case "loop":
                while True:
                    pass
            case "exit":
                os._exit(3)
            case "segfault":
                ctypes.string_at(0)
            case "gigabyte":
                return bytes(1 << 30)
            case "garbage":
                for descriptor in map(int, os.listdir("/proc/self/fd")):
                    try:
                        if os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
                            os.write(descriptor, b"garbage" * 100)
                    except OSError:
                        pass
                await trio.sleep_forever()
        return "good"


@hookimpl
def fedd_register_commands() -> list[type[Command]]:
    """Register it."""
    return [Misbehaves]
