"""The daemon's command line. It is forgotten once read: argparse would be 0.4 MiB of an idle daemon."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from fedd import __version__

EXIT_USAGE = 64  # EX_USAGE of sysexits.h


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"fedd: {message} - see `fedd --help`\n")
        raise SystemExit(EXIT_USAGE)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the daemon's options."""
    parser = _Parser(
        prog="fedd",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Make this device part of a federation that runs decentralised algorithms.",
        epilog="""examples:
  fedd                                                     # everything by default
  fedd --state-dir a --name a --listen /ip4/127.0.0.1/tcp/0
  fedd --config fedd.toml --check

exit status:
  0 stopped by a signal; 1 failed; 64 wrong usage; 77 a key that others can read; 78 bad configuration

Steer it with fedctl.""",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="fedd.toml (default: the system's or the user's, if any)"
    )
    parser.add_argument(
        "--state-dir", metavar="DIR", help="where identity and results are kept; the socket too"
    )
    parser.add_argument("--socket", metavar="PATH", help="the control socket")
    parser.add_argument(
        "--listen", metavar="MULTIADDR", action="append", default=[], help="where to listen for links"
    )
    parser.add_argument(
        "--connect", metavar="MULTIADDR", action="append", default=[], help="a peer to link to, with /p2p/ID"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="what others call this node (default: the host's name)"
    )
    parser.add_argument(
        "--log", choices=("text", "json"), default="text", help="how to log to standard error"
    )
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--version", action="version", version=f"fedd {__version__}")
    return parser
