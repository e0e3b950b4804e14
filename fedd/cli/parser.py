"""The parser of fedctl, made from the table of commands."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from fedd import __version__
from fedd.cli.table import COMMANDS, Command

EXIT_USAGE = 2

_DESCRIPTION = "Steer the fedd daemon of this machine over its local socket."

_EPILOG = """exit status:
  0 done; 1 refused or failed; 2 wrong usage; 3 no daemon at that socket; 4 denied; 5 not found;
  6 time-out; 7 conflict; 8 unhealthy; 130 interrupted

`fedctl COMMAND --help` shows examples. Three daemons by hand:
  fedd --state-dir a --name a --listen /ip4/127.0.0.1/tcp/0 &      # and b, c
  fedctl --socket a/fedd.sock init plant7
  TOKEN=$(fedctl --socket a/fedd.sock invite --uses 2)
  fedctl --socket b/fedd.sock join "$TOKEN"                        # and c
  fedctl --socket a/fedd.sock set temp 20.5                        # and others on b, c
  fedctl --socket b/fedd.sock run consensus --input temp"""


class Parser(argparse.ArgumentParser):
    """argparse with errors in one line, as all of fedctl's are."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", _Formatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        sys.stderr.write(f"fedctl: {_teach(message)} - see `{self.prog} --help`\n")
        raise SystemExit(EXIT_USAGE)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Knows the terminal's width without importing shutil, which would cost `fedctl status` 5 ms."""

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1).columns
        except (OSError, ValueError):
            columns = 100
        super().__init__(prog, max_help_position=28, width=max(40, min(columns, 110) - 2))


def build_parser(argv: Sequence[str] | None = None) -> Parser:
    """The parser. With `argv`, only the command that it names gets its arguments (the rest cost time)."""
    parser = Parser(prog="fedctl", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"fedctl {__version__}")
    _add_common(parser, socket_default=None, json_default=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog="fedctl")
    named = _named_command(argv) if argv is not None else None
    for command in COMMANDS:
        if named is None or command.name == named:
            _add_command(commands, command)
    return parser


def find_command(name: str) -> Command:
    """The row of `name`, which the parser has accepted."""
    return next(command for command in COMMANDS if command.name == name)


def _add_command(commands: Any, command: Command) -> None:
    description = command.summary[0].upper() + command.summary[1:] + "."
    if command.detail:
        description += "\n" + command.detail
    sub = commands.add_parser(
        command.name, help=command.summary, description=description, epilog=f"examples:{command.examples}"
    )
    for argument in command.arguments:
        sub.add_argument(*argument.flags, help=argument.help.replace("%", "%%"), **argument.options)
    # Also after the command, where people type them; absent there, the ones before it stand.
    _add_common(sub, socket_default=argparse.SUPPRESS, json_default=argparse.SUPPRESS)


def _add_common(parser: Parser, socket_default: Any, json_default: Any) -> None:
    parser.add_argument(
        "--socket",
        metavar="PATH",
        default=socket_default,
        help="the daemon's socket (default: $FEDD_SOCKET, the runtime directory's, /run/fedd.sock)",
    )
    parser.add_argument(
        "--json", action="store_true", default=json_default, help="print one JSON document and nothing else"
    )


def _named_command(argv: Sequence[str]) -> str | None:
    """The command that `argv` names when that is beyond doubt, else None."""
    words = iter(argv)
    for word in words:
        if word == "--socket":
            next(words, None)
        elif not word.startswith("-"):
            return word if any(command.name == word for command in COMMANDS) else None
        elif word != "--json" and not word.startswith("--socket="):
            return None
    return None


def _teach(message: str) -> str:
    """argparse's message, with the nearest command in place of a list of all."""
    if "argument COMMAND: invalid choice: " not in message:
        return message
    import difflib  # here, because only a mistake needs it

    given = message.split("invalid choice: '")[1].split("' (choose")[0]
    near = difflib.get_close_matches(given, [command.name for command in COMMANDS], n=1, cutoff=0.5)
    return f"there is no command {given!r}" + (f", did you mean {near[0]}?" if near else "")
