"""fedctl's commands as one table; the parser and the reference page are made from it."""

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


def _arg(*flags: str, help: str, **options: Any) -> Argument:
    return Argument(flags, help, options)


_TOPOLOGIES = (
    "complete, ring, star, line, grid, torus, hypercube, exponential, random-regular:K, erdos-renyi:P, "
    "watts-strogatz:K:P, directed-ring, directed-exponential, one-peer-exponential or edges:FILE; @lazy or "
    "@uniform after it for other weights (default: by size)"
)
_RUN = _arg("run", help="a run's id, or the beginning of it", metavar="RUN")
_NEWCOMER = _arg("peer", help="an unambiguous prefix of a peer id", metavar="PEER")
_ROOT_ACTIONS = ["show", "export", "remove", "import"]
_PEER = _arg("peer", help="a name, or an unambiguous prefix of a peer id", metavar="PEER")
_COMMAND_PARAMETERS = _arg(
    "parameters", help="parameters of the command", metavar="key=value", nargs="*", default=[]
)

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
  fedctl members --pending      # who waits to be approved here
  fedctl members --json | jq -r '.[] | select(.state == "dead") | .name'""",
        (
            _arg(
                "--watch",
                help="go on and show every change; with --json the whole list a line",
                action="store_true",
            ),
            _arg("--pending", help="list those who wait to be approved by this node", action="store_true"),
            _arg("--revoked", help="list those who were thrown out, and by whom", action="store_true"),
        ),
    ),
    Command(
        "init",
        "federation",
        "begin a federation on this node",
        """
  fedctl init plant7
  fedctl invite            # then let others in""",
        (_arg("federation", help="its name", metavar="FEDERATION"),),
    ),
    Command(
        "invite",
        "federation",
        "print a token that lets others in",
        """
  fedctl invite
  TOKEN=$(fedctl invite --uses 2 --expires 2h)
  fedctl invite --approve       # then `fedctl members --pending` and `fedctl approve`
  fedctl invite | ssh board fedctl join -""",
        (
            _arg("--uses", help="how many may join with it (default: 1)", type=int, metavar="N", default=1),
            _arg(
                "--expires",
                help="how long it is good, such as 90s, 30m, 2h, 1d (default: 1h)",
                metavar="TIME",
                default="1h",
            ),
            _arg("--approve", help="let each of them wait until it is approved", action="store_true"),
        ),
        "A token is a secret. It is also gone when this daemon restarts.",
    ),
    Command(
        "approve",
        "federation",
        "let a newcomer in who waits",
        """
  fedctl members --pending
  fedctl approve 12D3KooWQ""",
        (_NEWCOMER,),
        "On the node that made the token. The newcomer asks every five seconds by itself.",
    ),
    Command(
        "deny",
        "federation",
        "turn a newcomer away who waits",
        """
  fedctl deny 12D3KooWQ""",
        (_NEWCOMER,),
    ),
    Command(
        "grant",
        "federation",
        "make a member an admin, who may invite, approve and revoke",
        """
  fedctl grant b admin""",
        (_PEER, _arg("role", help="admin", metavar="ROLE", choices=["admin"])),
        "Takes the root key, which is on the device that began the federation: see `fedctl root --help`.",
    ),
    Command(
        "revoke",
        "federation",
        "throw a member out, everywhere and for good",
        """
  fedctl revoke b
  fedctl revoke 12D3KooWQ...    # also one that has not been seen for long
  fedctl revoke --undo 12D3KooWQ""",
        (_PEER, _arg("--undo", help="take it back: the peer may join again", action="store_true")),
        "An admin revokes members; admins are revoked with the root key.",
    ),
    Command(
        "root",
        "federation",
        "move the root key, which makes and revokes admins",
        """
  fedctl root show              # is it on this device?
  fedctl root export root.key   # and keep that file elsewhere
  fedctl root remove root.key   # shows that you have it, and removes it here
  fedctl root import root.key   # on the device that shall grant""",
        (
            _arg("action", help="show, export, remove or import", choices=_ROOT_ACTIONS, metavar="ACTION"),
            _arg("file", help="where the key is or goes; - for standard streams", metavar="FILE", nargs="?"),
        ),
        "Whoever has the root key has the federation. It is made by `fedctl init`, on that device only.",
    ),
    Command(
        "join",
        "federation",
        "join the federation that a token invites to",
        """
  fedctl join fedd1-...
  fedctl join token.txt
  ssh plant7 fedctl invite | fedctl join -      # keeps it out of the process list""",
        (_arg("token", help="the token, a file that holds it, or - for standard input", metavar="TOKEN"),),
        "Returns when this node is a member and linked.",
    ),
    Command(
        "leave",
        "federation",
        "leave the federation for good",
        """
  fedctl leave""",
        detail="The others see this node as left, not as dead. Coming back takes a new token.",
    ),
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
        (_arg("address", help="where it listens, with /p2p/ and its peer id", metavar="MULTIADDR"),),
    ),
    Command(
        "disconnect",
        "node",
        "drop a link, and keep it no longer",
        """
  fedctl disconnect b""",
        (_PEER,),
    ),
    Command(
        "ping",
        "node",
        "measure round trips to a linked peer",
        """
  fedctl ping b
  fedctl ping 12D3KooWQ -c 10""",
        (_PEER, _arg("-c", help="how many (default: 3)", dest="count", type=int, metavar="N", default=3)),
    ),
    Command(
        "plugins",
        "catalog",
        "list plugins, those that failed to load with the reason",
        """
  fedctl plugins""",
        detail="Plugins run with the daemon's rights: install only what you trust.",
    ),
    Command(
        "algorithms",
        "catalog",
        "list what can run here, or one algorithm with its parameters",
        """
  fedctl algorithms
  fedctl algorithms consensus""",
        (_arg("name", help="one algorithm, with parameters, types and defaults", metavar="NAME", nargs="?"),),
    ),
    Command(
        "learners",
        "catalog",
        "list the learners that an input can have, or one with its options",
        """
  fedctl learners
  fedctl learners numpy-softmax""",
        (_arg("name", help="one learner, with options, types and defaults", metavar="NAME", nargs="?"),),
    ),
    Command(
        "aggregators",
        "catalog",
        "list the aggregators that a run can name, or one with its options",
        """
  fedctl aggregators
  fedctl aggregators fedavg""",
        (_arg("name", help="one aggregator, with options, types and defaults", metavar="NAME", nargs="?"),),
    ),
    Command(
        "commands",
        "commands",
        "list the commands of plugins, or one command with its parameters",
        """
  fedctl commands
  fedctl commands facts""",
        (_arg("name", help="one command, with parameters, types and defaults", metavar="NAME", nargs="?"),),
    ),
    Command(
        "send",
        "commands",
        "send a plugin's command to a member and show its answer",
        """
  fedctl send b facts
  fedctl send b echo text=hello
  fedctl send b facts --json | jq .temperature_c""",
        (_PEER, _arg("name", help="see `fedctl commands`", metavar="COMMAND"), _COMMAND_PARAMETERS),
        "`fedctl send PEER COMMAND --help` says what that command takes.",
    ),
    Command(
        "broadcast",
        "commands",
        "send a plugin's command to every member, this node included",
        """
  fedctl broadcast note text='pump 3 is off until noon'
  fedctl broadcast note text=hello --json | jq -r '.missing[]'""",
        (_arg("name", help="see `fedctl commands`", metavar="COMMAND"), _COMMAND_PARAMETERS),
        "Returns when all have it, or after 10 s; names those who have not confirmed it.\n"
        "`fedctl broadcast COMMAND --help` says what that command takes.",
    ),
    Command(
        "inputs",
        "catalog",
        "list the inputs of this device",
        """
  fedctl inputs""",
    ),
    Command(
        "set",
        "catalog",
        "make or replace a constant input",
        """
  fedctl set temp 20.5
  fedctl set point '[1.0, 2.5, 3.0]'
  fedctl set name '"north"'""",
        (
            _arg("input", help="its name", metavar="INPUT"),
            _arg("value", help="a JSON value: number, string, nested lists", metavar="VALUE"),
        ),
    ),
    Command(
        "run",
        "runs",
        "start a run, follow it and show its result",
        """
  fedctl run consensus --input temp
  fedctl run consensus tolerance=1e-6 iterations=500 --input temp --topology ring
  fedctl run regression --input table --members a,b,c --quorum 60%
  RUN=$(fedctl run consensus --input temp --detach)""",
        (
            _arg("algorithm", help="see `fedctl algorithms`", metavar="ALGORITHM"),
            _arg(
                "parameters", help="parameters of the algorithm", metavar="key=value", nargs="*", default=[]
            ),
            _arg("--input", help="the input that each member reads", metavar="NAME"),
            _arg("--topology", help=_TOPOLOGIES, metavar="T"),
            _arg(
                "--members", help="who takes part besides this node (default: everyone alive)", metavar="A,B"
            ),
            _arg("--quorum", help="how many must take part and stay (default: a majority)", metavar="N|P%"),
            _arg(
                "--contract",
                help="survivors, contributed or restart (default: the algorithm's own)",
                metavar="C",
                default=None,
            ),
            _arg("--seed", help="of everything random in the run", type=int, metavar="N"),
            _arg("--pace", help="no round is shorter", type=float, metavar="SECONDS"),
            _arg("--detach", help="print the run's id and return at once", action="store_true"),
        ),
        "Ctrl-C leaves the run running: `fedctl watch` follows it, `fedctl stop` ends it.",
    ),
    Command(
        "topology",
        "topology",
        "show how fast averaging goes on a topology, and draw it",
        """
  fedctl topology ring --nodes 32
  fedctl topology random-regular:4 --nodes 50 --seed 7 -o graph.svg
  fedctl topology one-peer-exponential --nodes 16 --json
  fedctl topology edges:plant.csv""",
        (
            _arg("topology", help=_TOPOLOGIES.removesuffix(" (default: by size)"), metavar="NAME"),
            _arg("--nodes", help="how many; edges:FILE names them", type=int, metavar="N"),
            _arg("--seed", help="of a random graph (default: 0)", type=int, default=0, metavar="N"),
            _arg(
                "--tolerance",
                help="how small the disagreement shall be, relative to the first (default: 1e-6)",
                type=float,
                default=1e-6,
                metavar="T",
            ),
            _arg("-o", "--output", help="draw the graph into this .svg", metavar="FILE"),
        ),
        "Asks no daemon. See docs/reference/topologies.md for the names and for what a FILE of edges holds.",
    ),
    Command(
        "runs",
        "runs",
        "list the runs that this node takes or took part in",
        """
  fedctl runs""",
    ),
    Command(
        "show",
        "runs",
        "show one run and its result",
        """
  fedctl show 3f9a
  fedctl show 3f9a --json | jq .value""",
        (_RUN,),
    ),
    Command(
        "watch",
        "runs",
        "follow a run to its result",
        """
  fedctl watch 3f9a
  fedctl watch 3f9a --json      # one document a line""",
        (_RUN,),
    ),
    Command(
        "export",
        "export",
        "write a run's answer and every member's metrics, round by round, to a file",
        """
  fedctl export 3f9a -o run.svg         # curves to look at
  fedctl export 3f9a -o run.csv         # one line a member and round
  fedctl export 3f9a -o run.npz         # the same, and the value in full""",
        (
            _RUN,
            _arg(
                "-o",
                "--output",
                help="the file; its ending says which kind: .npz, .csv or .svg",
                metavar="FILE",
                required=True,
            ),
        ),
        "From any member that knows the run, also while it goes on (then without its value).",
    ),
    Command(
        "enlist",
        "runs",
        "let another member into a run that goes on",
        """
  fedctl enlist 3f9a pump-7""",
        (_RUN, _PEER),
        "Its algorithm must take in members that come later (`fedctl algorithms NAME` says so), and the member "
        "must accept. Everybody goes on in a new epoch.",
    ),
    Command(
        "stop",
        "runs",
        "stop a run on every member",
        """
  fedctl stop 3f9a""",
        (_RUN,),
    ),
    Command(
        "top",
        "top",
        "show members, links, traffic and runs, again and again",
        """
  fedctl top                    # q quits
  fedctl top --interval 5
  fedctl top --json --count 1 | jq '.members[] | select(.state != "alive")'""",
        (
            _arg(
                "--interval",
                help="between two looks, at least 0.5 (default: 2)",
                type=float,
                metavar="SECONDS",
                default=2.0,
            ),
            _arg("--count", help="end after so many looks (default: never)", type=int, metavar="N"),
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
        (_arg("--since", help="begin after this number; 0 for all that is kept", type=int, metavar="N"),),
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
            _arg("--nodes", help="how many daemons (default: 5)", type=int, metavar="N", default=5),
            _arg("--learning", help="let them learn to read digits together", action="store_true"),
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
            _arg("method", help="GET, POST, PUT or DELETE", metavar="METHOD"),
            _arg("path", help="begins with /v1/", metavar="PATH"),
            _arg("body", help="the request's JSON", metavar="JSON", nargs="?"),
        ),
    ),
)
