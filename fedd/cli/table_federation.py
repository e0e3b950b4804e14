"""fedctl's commands about who belongs to the federation."""

from __future__ import annotations

from fedd.cli.row import PEER, Command, arg

_NEWCOMER = arg("peer", help="an unambiguous prefix of a peer id", metavar="PEER")
_ROOT_ACTIONS = ["show", "export", "remove", "import"]

FEDERATION: tuple[Command, ...] = (
    Command(
        "init",
        "federation",
        "begin a federation on this node",
        """
  fedctl init plant7
  fedctl invite            # then let others in""",
        (arg("federation", help="its name", metavar="FEDERATION"),),
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
            arg("--uses", help="how many may join with it (default: 1)", type=int, metavar="N", default=1),
            arg(
                "--expires",
                help="how long it is good, such as 90s, 30m, 2h, 1d (default: 1h)",
                metavar="TIME",
                default="1h",
            ),
            arg("--approve", help="let each of them wait until it is approved", action="store_true"),
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
        "On any admin. Every five seconds the newcomer asks the one that made its token; that must be alive.",
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
        (PEER, arg("role", help="admin", metavar="ROLE", choices=["admin"])),
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
        (PEER, arg("--undo", help="take it back: the peer may join again", action="store_true")),
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
            arg("action", help="show, export, remove or import", choices=_ROOT_ACTIONS, metavar="ACTION"),
            arg("file", help="where the key is or goes; - for standard streams", metavar="FILE", nargs="?"),
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
        (arg("token", help="the token, a file that holds it, or - for standard input", metavar="TOKEN"),),
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
)
