"""`python -I -m fedd.worker [WALLS] PROGRAM`.

PROGRAM is one of `inspect`, `run FD`, `commands PAGE_FD FD` and `topology NAME NODES SEED TOLERANCE`. All are
started by the daemon, and `topology` by fedctl. WALLS are `--hide DIRECTORY` and `--writable DIRECTORY`, as
often as needed, `--own DIRECTORY` and `--network`: see `fedd.worker.confinement.Walls`.
"""

from __future__ import annotations

import os
import sys

from fedd.worker.confinement import Walls, confine, wall_off

_USAGE = (
    "usage: python -I -m fedd.worker [--hide DIRECTORY] [--writable DIRECTORY] [--own DIRECTORY] [--network] "
    "inspect | run FD | commands PAGE_FD FD | topology NAME NODES SEED TOLERANCE\n"
)


def main(arguments: list[str]) -> int:
    """Run one of the four programs; the exit code is 2 for wrong usage."""
    confine()
    walls, arguments = read_walls(arguments)
    # A worker is one of many processes on a small device, its matrices are small: threads of the linear
    # algebra library would cost memory and time. Must be set before NumPy is imported.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # What plugins print is for the log: stdout may carry a document.
    document = os.dup(1)
    os.dup2(2, 1)
    # fedd's own modules come before the walls, so that Python can keep them compiled; plugins come after.
    match arguments:
        case ["inspect"]:
            import json

            from fedd.worker.inspect import inspect_plugins

            said = inspect_plugins(wall_off(walls, parent=True))
            with open(document, "w", encoding="utf-8") as out:
                out.write(json.dumps(said) + "\n")
        case ["topology", name, nodes, seed, tolerance]:
            return _describe(document, name, nodes, seed, tolerance)
        case ["run", descriptor] if descriptor.isdecimal():
            os.close(document)
            from fedd.worker.process import run

            wall_off(walls)
            run(int(descriptor))
        case ["commands", page, descriptor] if page.isdecimal() and descriptor.isdecimal():
            os.close(document)
            from fedd.worker.commands import run as run_commands

            wall_off(walls)
            run_commands(int(page), int(descriptor))
        case _:
            sys.stderr.write(_USAGE)
            return 2
    return 0


def read_walls(arguments: list[str]) -> tuple[Walls, list[str]]:
    """The options in front, and the rest."""
    walls = Walls()
    while True:
        match arguments:
            case ["--network", *arguments]:
                walls = walls._replace(network=True)
            case ["--own", path, *arguments]:
                walls = walls._replace(own=path)
            case ["--hide", path, *arguments]:
                walls = walls._replace(hidden=(*walls.hidden, path))
            case ["--writable", path, *arguments]:
                walls = walls._replace(writable=(*walls.writable, path))
            case _:
                return walls, arguments


def _describe(document: int, name: str, nodes: str, seed: str, tolerance: str) -> int:
    """Write what there is to say of a topology, or why it is none: {error, hint}."""
    import json

    from fedd.api.errors import FeddError
    from fedd.worker.topology import describe_topology

    try:
        described = describe_topology(name, int(nodes), int(seed), float(tolerance))
    except FeddError as error:
        described = {"error": error.detail, "hint": error.hint, "field": error.field}
    with open(document, "w", encoding="utf-8") as out:
        out.write(json.dumps(described) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
