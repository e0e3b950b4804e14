"""Commands that every federation can use: an echo, facts about a host, a note to everybody's event log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from fedd.api import Command, CommandContext, Message, Notice, hookimpl
from fedd_basics.host import facts

MAX_NOTE_CHARS = 500
"""A line for people; an event holds 512 characters."""


@dataclass(frozen=True)
class Echo:
    """Answers what it was sent."""

    name: ClassVar[str] = "echo"
    text: str = field(default="hello", metadata={"help": "what comes back"})

    async def handle(self, ctx: CommandContext) -> Message:
        """Send it back."""
        return self.text


@dataclass(frozen=True)
class Facts:
    """Tells what machine this is and how it does: system, clock, load, memory, disk, heat, versions."""

    name: ClassVar[str] = "facts"

    async def handle(self, ctx: CommandContext) -> Message:
        """Look now."""
        return facts()


@dataclass(frozen=True)
class Note:
    """Writes a line into the event log, with the sender's name; broadcast it to tell everybody."""

    name: ClassVar[str] = "note"
    event_text: ClassVar[str] = "text"
    text: str = field(
        metadata={"help": f"what to tell, up to {MAX_NOTE_CHARS} characters", "max_chars": MAX_NOTE_CHARS}
    )


@hookimpl
def fedd_register_commands() -> list[type[Command] | type[Notice]]:
    """Register the three."""
    return [Echo, Facts, Note]
