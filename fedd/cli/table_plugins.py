"""fedctl's commands about what plugins offer, and about inputs."""

from __future__ import annotations

from fedd.cli.row import PEER, Command, arg

_COMMAND_PARAMETERS = arg(
    "parameters", help="parameters of the command", metavar="key=value", nargs="*", default=[]
)

PLUGINS: tuple[Command, ...] = (
    Command(
        "plugins",
        "catalog",
        "list plugins, those that failed to load with the reason",
        """
  fedctl plugins""",
        detail="Plugins read what the daemon's user may read: install only what you trust with that.",
    ),
    Command(
        "algorithms",
        "catalog",
        "list what can run here, or one algorithm with its parameters",
        """
  fedctl algorithms
  fedctl algorithms consensus""",
        (arg("name", help="one algorithm, with parameters, types and defaults", metavar="NAME", nargs="?"),),
    ),
    Command(
        "learners",
        "catalog",
        "list the learners that an input can have, or one with its options",
        """
  fedctl learners
  fedctl learners numpy-softmax""",
        (arg("name", help="one learner, with options, types and defaults", metavar="NAME", nargs="?"),),
    ),
    Command(
        "aggregators",
        "catalog",
        "list the aggregators that a run can name, or one with its options",
        """
  fedctl aggregators
  fedctl aggregators fedavg""",
        (arg("name", help="one aggregator, with options, types and defaults", metavar="NAME", nargs="?"),),
    ),
    Command(
        "commands",
        "commands",
        "list the commands of plugins, or one command with its parameters",
        """
  fedctl commands
  fedctl commands facts""",
        (arg("name", help="one command, with parameters, types and defaults", metavar="NAME", nargs="?"),),
    ),
    Command(
        "send",
        "commands",
        "send a plugin's command to a member and show its answer",
        """
  fedctl send b facts
  fedctl send b echo text=hello
  fedctl send b facts --json | jq .temperature_c""",
        (PEER, arg("name", help="see `fedctl commands`", metavar="COMMAND"), _COMMAND_PARAMETERS),
        "`fedctl send PEER COMMAND --help` says what that command takes.",
    ),
    Command(
        "broadcast",
        "commands",
        "send a plugin's command to every member, this node included",
        """
  fedctl broadcast note text='pump 3 is off until noon'
  fedctl broadcast note text=hello --json | jq -r '.missing[]'
  fedctl broadcast note text="load $(cut -d' ' -f1 /proc/loadavg)" --no-wait""",
        (
            arg("name", help="see `fedctl commands`", metavar="COMMAND"),
            _COMMAND_PARAMETERS,
            arg("--no-wait", help="return at once, nobody is asked to confirm it", action="store_true"),
        ),
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
            arg("input", help="its name", metavar="INPUT"),
            arg("value", help="a JSON value: number, string, nested lists", metavar="VALUE"),
        ),
    ),
)
