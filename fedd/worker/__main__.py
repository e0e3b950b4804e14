"""`python -I -m fedd.worker inspect | run FD | commands PAGE_FD FD | topology NAME NODES SEED TOLERANCE`.

Started by the daemon only, and `topology` by fedctl.
"""

from __future__ import annotations

import os
import sys

from fedd.worker.confinement import confine


def main(arguments: list[str]) -> int:
    """Run one of the four programs; the exit code is 2 for wrong usage."""
    confine()
    # A worker is one of many processes on a small device, its matrices are small: threads of the linear
    # algebra library would cost memory and time. Must be set before NumPy is imported.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # What plugins print is for the log: stdout may carry a document.
    document = os.dup(1)
    os.dup2(2, 1)
    match arguments:
        case ["inspect"]:
            import json

            from fedd.worker.inspect import inspect_plugins

            with open(document, "w", encoding="utf-8") as out:
                out.write(json.dumps(inspect_plugins()) + "\n")
        case ["topology", name, nodes, seed, tolerance]:
            return _describe(document, name, nodes, seed, tolerance)
        case ["run", descriptor] if descriptor.isdecimal():
            os.close(document)
            from fedd.worker.process import run

            run(int(descriptor))
        case ["commands", page, descriptor] if page.isdecimal() and descriptor.isdecimal():
            os.close(document)
            from fedd.worker.commands import run as run_commands

            run_commands(int(page), int(descriptor))
        case _:
            sys.stderr.write(
                "usage: python -I -m fedd.worker inspect | run FD | commands PAGE_FD FD | "
                "topology NAME NODES SEED TOLERANCE\n"
            )
            return 2
    return 0


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
