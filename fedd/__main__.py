"""`fedd`, and `python -m fedd`: the daemon's command line."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from types import SimpleNamespace

from fedd.api.errors import FeddError
from fedd.config import BadConfig, Config, load
from fedd.paths import (
    SOCKET_NAME,
    default_config,
    default_socket,
    default_state_dir,
    private_directories,
)

EXIT_FAILED = 1
EXIT_KEY_EXPOSED = 77  # EX_NOPERM and EX_CONFIG of sysexits.h
EXIT_CONFIG = 78


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon until a signal ends it; returns the exit status."""
    options = _options(argv)
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
    state_dir = options.state_dir or default_state_dir()
    if options.check:
        problems = []
        if any("learner" in each for each in config.inputs.values()):
            from fedd.checks import check_learners  # here: asks the plugins, which takes a second

            problems = check_learners(config, private_directories(state_dir))
        for problem in problems:
            sys.stderr.write(f"fedd: {problem}\n")
        if problems:
            return EXIT_CONFIG
        sys.stdout.write(f"{path}: good\n" if path else "no configuration file, the defaults are good\n")
        return 0
    # Here, because --check, --help and --version should not wait for trio and cryptography.
    from fedd import daemon
    from fedd.state import KeyExposed

    socket_path = options.socket or (f"{state_dir}/{SOCKET_NAME}" if options.state_dir else default_socket())
    try:
        daemon.run(config, read_config, state_dir=state_dir, socket_path=socket_path, log_style=options.log)
    except FeddError as error:
        hint = f" - {error.hint}" if error.hint else ""
        sys.stderr.write(f"fedd: {error.detail}{hint}\n")
        return EXIT_KEY_EXPOSED if isinstance(error, KeyExposed) else EXIT_FAILED
    return 0


def _options(argv: Sequence[str] | None) -> SimpleNamespace:
    """What the command line says; its parser is forgotten, and the rooms are loaded into its place."""
    import fedd.options

    options = SimpleNamespace(**vars(fedd.options.build_parser().parse_args(argv)))
    del fedd.options
    for name in ("fedd.options", "argparse", "gettext"):
        sys.modules.pop(name, None)
    gc.collect()
    return options


if __name__ == "__main__":
    sys.exit(main())
