"""`fedctl demo` asks no daemon: it starts its own."""

from __future__ import annotations

from argparse import Namespace

from fedd.api.errors import InvalidParameter
from fedd.cli.show import Output
from fedd.control.client import Client


def do_demo(client: Client, options: Namespace, out: Output) -> int:
    """Real daemons on this machine, torn down at the end."""
    if options.learning:
        from fedd.demo.learning import main as learn  # here, because no other command needs it

        return learn(options.nodes, out.as_json)
    if not 3 <= options.nodes <= 20:
        raise InvalidParameter(
            f"{options.nodes} nodes are not possible", hint="choose 3 to 20", field="nodes"
        )
    from fedd.demo.run import main  # here, because no other command needs it

    return main(options.nodes, out.as_json)
