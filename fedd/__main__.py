"""`fedd`, and `python -m fedd`: the daemon's command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from fedd import __version__
from fedd.api.errors import FeddError
from fedd.config import BadConfig, Config, load
from fedd.paths import SOCKET_NAME, default_config, default_socket, default_state_dir

EXIT_FAILED = 1
EXIT_USAGE = 64  # EX_USAGE, EX_NOPERM and EX_CONFIG of sysexits.h
EXIT_KEY_EXPOSED = 77
EXIT_CONFIG = 78


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon until a signal ends it; returns the exit status."""
    options = build_parser().parse_args(argv)
    path = options.config or default_config()
    overrides = {"name": options.name, "listen": options.listen, "connect": options.connect}

    def read_config() -> Config:
        return load(path, overrides)

    try:
        config = read_config()
    except BadConfig as error:
        for problem in error.problems:
            sys.stderr.write(f"fedd: {problem}\n")
        return EXIT_CONFIG
    if options.check:
        sys.stdout.write(f"{path}: good\n" if path else "no configuration file, the defaults are good\n")
        return 0
    # Here, because --check, --help and --version should not wait for trio and cryptography.
    from fedd import daemon
    from fedd.state import KeyExposed

    state_dir = options.state_dir or default_state_dir()
    socket_path = options.socket or (f"{state_dir}/{SOCKET_NAME}" if options.state_dir else default_socket())
    try:
        daemon.run(config, read_config, state_dir=state_dir, socket_path=socket_path, log_style=options.log)
    except FeddError as error:
        hint = f" - {error.hint}" if error.hint else ""
        sys.stderr.write(f"fedd: {error.detail}{hint}\n")
        return EXIT_KEY_EXPOSED if isinstance(error, KeyExposed) else EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
