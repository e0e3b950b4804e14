"""fedctl's commands as one table; the parser and the reference page are made from it."""

from __future__ import annotations

from fedd.cli.row import PEER, Argument, Command, arg
from fedd.cli.table_federation import FEDERATION
from fedd.cli.table_plugins import PLUGINS
from fedd.cli.table_runs import RUNS

__all__ = ["COMMANDS", "Argument", "Command"]

COMMANDS: tuple[Command, ...] = (
    Command(
        "status",
        "node",
        "show this node",
        """
  fedctl status
  fedctl --socket a/fedd.sock status --json""",
    ),
    Command(
        "members",
        "node",
        "list everyone known, this node included",
        """
  fedctl members
  fedctl members --watch
  fedctl members --pending      # who waits to be approved, at any admin
  fedctl members --json | jq -r '.[] | select(.state == "dead") | .name'""",
        (
            arg(
                "--watch",
                help="go on and show every change; with --json the whole list a line",
                action="store_true",
            ),
            arg("--pending", help="list those who wait to be approved by an admin", action="store_true"),
            arg("--revoked", help="list those who were thrown out, and by whom", action="store_true"),
        ),
    ),
    *FEDERATION,
    Command(
        "links",
        "links",
        "list this node's links: age, round trip, bytes and rates, streams, windows",
        """
  fedctl links
  fedctl links --json | jq '.[] | {name, rtt_ms, streams}'""",
        detail="Takes half a second, in which the rates are measured.",
    ),
    Command(
        "limits",
        "links",
        "list every bound of the daemon: in use, at most, how often reached",
        """
  fedctl limits
  fedctl limits --json | jq '.[] | select(.reached > 0)'""",
    ),
    Command(
        "connect",
        "node",
        "link to a peer and keep the link",
        """
  fedctl connect /ip4/192.0.2.7/tcp/4747/p2p/12D3KooW...""",
        (arg("address", help="where it listens, with /p2p/ and its peer id", metavar="MULTIADDR"),),
    ),
    Command(
        "disconnect",
        "node",
        "drop a link, and keep it no longer",
        """
  fedctl disconnect b""",
        (PEER,),
    ),
    Command(
        "ping",
        "node",
        "measure round trips to a linked peer",
        """
  fedctl ping b
  fedctl ping 12D3KooWQ -c 10""",
        (PEER, arg("-c", help="how many (default: 3)", dest="count", type=int, metavar="N", default=3)),
    ),
    *PLUGINS,
    *RUNS,
    Command(
        "top",
        "top",
        "show members, links, traffic and runs, again and again",
        """
  fedctl top                    # q quits
  fedctl top --interval 5
  fedctl top --json --count 1 | jq '.members[] | select(.state != "alive")'""",
        (
            arg(
                "--interval",
                help="between two looks, at least 0.5 (default: 2)",
                type=float,
                metavar="SECONDS",
                default=2.0,
            ),
            arg("--count", help="end after so many looks (default: never)", type=int, metavar="N"),
        ),
        "Without a terminal the table is printed at each look; with --json it is one document a line.",
    ),
    Command(
        "events",
        "events",
        "print what happens on this node, as it happens",
        """
  fedctl events
  fedctl events --since 0       # from the oldest that is kept
  fedctl events --json | jq 'select(.kind == "member" and .state == "dead")'""",
        (arg("--since", help="begin after this number; 0 for all that is kept", type=int, metavar="N"),),
    ),
    Command(
        "demo",
        "demo",
        "real daemons on this machine solve a real problem together, and one of them dies",
        """
  fedctl demo
  fedctl demo --learning
  fedctl demo --nodes 8 --json""",
        (
            arg("--nodes", help="how many daemons (default: 5)", type=int, metavar="N", default=5),
            arg("--learning", help="let them learn to read digits together", action="store_true"),
        ),
        "Needs no daemon, no network and no download; everything is torn down at the end.",
    ),
    Command(
        "api",
        "node",
        "send a request to the control API as it is",
        """
  fedctl api GET /v1/status
  fedctl api PUT /v1/inputs/temp '{"value": 20.5}'
  fedctl api GET '/v1/events?since=0'""",
        (
            arg("method", help="GET, POST, PUT or DELETE", metavar="METHOD"),
            arg("path", help="begins with /v1/", metavar="PATH"),
            arg("body", help="the request's JSON", metavar="JSON", nargs="?"),
        ),
    ),
)
