"""What a row of fedctl's table is made of."""

from __future__ import annotations

from typing import Any, NamedTuple


class Argument(NamedTuple):
    """One argument of a command: its flags or name, its help, and what argparse needs besides."""

    flags: tuple[str, ...]
    help: str
    options: dict[str, Any]


class Command(NamedTuple):
    """One command. The function of its name in `fedd.cli.<module>` does it."""

    name: str
    module: str
    summary: str
    examples: str
    arguments: tuple[Argument, ...] = ()
    detail: str = ""


def arg(*flags: str, help: str, **options: Any) -> Argument:
    """An argument as argparse would take it."""
    return Argument(flags, help, options)


RUN = arg("run", help="a run's id, or the beginning of it", metavar="RUN")
PEER = arg("peer", help="a name, or an unambiguous prefix of a peer id", metavar="PEER")
