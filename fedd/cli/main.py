"""fedctl: parse, ask the daemon, show. Errors are one line on stderr and an exit status."""

from __future__ import annotations

import io
import os
import sys
from argparse import Namespace
from collections.abc import Sequence

from fedd.api.errors import FeddError
from fedd.cli.parser import build_parser, find_command
from fedd.cli.show import Output, escape
from fedd.control.client import Client, NoDaemon
from fedd.paths import default_socket

_OPTIONS = ("--socket", "--json", "--help", "-h", "--version")

STARTING_S = 5.0
"""How long a daemon may take from its start to its socket, on a small board under load."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status of interface.md's table (argparse exits with 2 by itself)."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # A locale without the characters of a member's name is no reason to show nothing.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options = _parse(arguments)
        command = find_command(options.command)
        # Only the module of the command in hand: most commands need nothing of the others'.
        module = __import__(f"fedd.cli.{command.module}", fromlist=[command.name])
        # A socket named by hand may be that of a daemon started on the line before.
        patience_s = STARTING_S if options.socket else 0.0
        with Client(options.socket or default_socket(), patience_s=patience_s) as client:
            status: int = getattr(module, f"do_{command.name}")(client, options, Output(options.json))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as interrupt:
        return _fail(interrupt)
    except BrokenPipeError:
        # Whoever read our output has seen enough, as in `fedctl events | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except FeddError as error:
        return _fail(error)


def _parse(arguments: Sequence[str]) -> Namespace:
    if "--help" in arguments or "-h" in arguments:
        from fedd.cli.commands import as_question  # here, because hardly anybody asks

        arguments = as_question(arguments)
    parser = build_parser(arguments)
    if arguments and (odd := arguments[0].partition("=")[0]).startswith("-") and odd not in _OPTIONS:
        parser.error(f"there is no option {odd}")  # argparse would blame the word after it
    options, rest = parser.parse_known_args(arguments)
    if options.command in ("run", "send", "broadcast"):
        # argparse takes positionals in one go, yet people write `run consensus --input temp tolerance=1e-6`.
        late = [word for word in rest if "=" in word and not word.startswith("-")]
        options.parameters = [*options.parameters, *late]
        rest = [word for word in rest if "=" not in word or word.startswith("-")]
    if rest:
        parser.prog = f"fedctl {options.command}"  # whose help says what it understands
        parser.error(f"{options.command} does not understand {' '.join(rest)}")
    return options


def _fail(error: KeyboardInterrupt | FeddError) -> int:
    # Here, because what succeeds needs nothing of the API's table.
    from fedd.control.schema import EXIT_INTERRUPTED, EXIT_NO_DAEMON, error_kind

    if isinstance(error, KeyboardInterrupt):
        note, status = str(error) or "interrupted", EXIT_INTERRUPTED
    else:
        note = f"{error.detail} - {error.hint}" if error.hint else error.detail
        status = EXIT_NO_DAEMON if isinstance(error, NoDaemon) else error_kind(error.code).exit_code
    sys.stderr.write(f"fedctl: {escape(note)}\n")
    return status
