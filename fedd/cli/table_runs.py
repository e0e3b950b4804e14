"""fedctl's commands about runs."""

from __future__ import annotations

from fedd.cli.row import PEER, RUN, Command, arg

_TOPOLOGIES = (
    "complete, ring, star, line, grid, torus, hypercube, exponential, random-regular:K, erdos-renyi:P, "
    "watts-strogatz:K:P, directed-ring, directed-exponential, one-peer-exponential or edges:FILE; @lazy or "
    "@uniform after it for other weights (default: by size)"
)

RUNS: tuple[Command, ...] = (
    Command(
        "run",
        "runs",
        "start a run, follow it and show its result",
        """
  fedctl run consensus --input temp
  fedctl run consensus tolerance=1e-6 iterations=500 --input temp --topology ring
  fedctl run regression --input table --members a,b,c --quorum 60%
  fedctl run gradient-tracking step=0.05 --input here --topology ring --dry-run
  RUN=$(fedctl run consensus --input temp --detach)""",
        (
            arg("algorithm", help="see `fedctl algorithms`", metavar="ALGORITHM"),
            arg("parameters", help="parameters of the algorithm", metavar="key=value", nargs="*", default=[]),
            arg("--input", help="the input that each member reads", metavar="NAME"),
            arg("--topology", help=_TOPOLOGIES, metavar="T"),
            arg(
                "--members", help="who takes part besides this node (default: everyone alive)", metavar="A,B"
            ),
            arg("--quorum", help="how many must take part and stay (default: a majority)", metavar="N|P%"),
            arg(
                "--contract",
                help="survivors, contributed or restart (default: the algorithm's own)",
                metavar="C",
                default=None,
            ),
            arg("--open", help="let in who comes to the federation later", action="store_true"),
            arg("--seed", help="of everything random in the run", type=int, metavar="N"),
            arg("--pace", help="no round is shorter", type=float, metavar="SECONDS"),
            arg(
                "--dry-run", help="only say what is foreseen: ask nobody, start nothing", action="store_true"
            ),
            arg("--detach", help="print the run's id and return at once", action="store_true"),
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
            arg("topology", help=_TOPOLOGIES.removesuffix(" (default: by size)"), metavar="NAME"),
            arg("--nodes", help="how many; edges:FILE names them", type=int, metavar="N"),
            arg("--seed", help="of a random graph (default: 0)", type=int, default=0, metavar="N"),
            arg(
                "--tolerance",
                help="how small the disagreement shall be, relative to the first (default: 1e-6)",
                type=float,
                default=1e-6,
                metavar="T",
            ),
            arg("-o", "--output", help="draw the graph into this .svg", metavar="FILE"),
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
        (RUN,),
    ),
    Command(
        "watch",
        "runs",
        "follow a run to its result",
        """
  fedctl watch 3f9a
  fedctl watch 3f9a --json      # one document a line""",
        (RUN,),
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
            RUN,
            arg(
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
        (RUN, PEER),
        "Its algorithm must take in members that come later (`fedctl algorithms NAME` says so), and the "
        "member must accept. Everybody goes on in a new epoch.",
    ),
    Command(
        "stop",
        "runs",
        "stop a run on every member",
        """
  fedctl stop 3f9a""",
        (RUN,),
    ),
)
