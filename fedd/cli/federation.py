"""Who belongs: begin a federation, invite, join, leave."""

from __future__ import annotations

import re
import sys
from argparse import Namespace

from fedd.api.errors import InvalidParameter, NotFound
from fedd.cli.show import Output, seconds
from fedd.control.client import Client

_PREFIX = "fedd1-"

# A token holds a few addresses; a larger file is not one.
MAX_TOKEN_CHARS = 65_536

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def do_init(client: Client, options: Namespace, out: Output) -> int:
    """Begin a federation."""
    reply = client.request("POST", "/v1/federation/init", {"federation": options.federation})
    if out.as_json:
        out.document(reply)
    else:
        out.line(f"federation {reply['federation']} begun; `fedctl invite` lets others in")
    return 0


def do_invite(client: Client, options: Namespace, out: Output) -> int:
    """Print a token. Standard output gets the token alone, so that `$(fedctl invite)` holds it."""
    body = {"uses": options.uses, "expires_s": parse_duration(options.expires)}
    reply = client.request("POST", "/v1/federation/invite", body)
    if out.as_json:
        out.document(reply)
        return 0
    out.line(reply["token"])
    if out.live:
        times = "once" if reply["uses"] == 1 else f"{reply['uses']} times"
        sys.stderr.write(f"good {times}, for {seconds(reply['expires_s'])}: fedctl join TOKEN\n")
    return 0


def do_join(client: Client, options: Namespace, out: Output) -> int:
    """Join with a token."""
    reply = client.request("POST", "/v1/federation/join", {"token": read_token(options.token)})
    if out.as_json:
        out.document(reply)
    else:
        out.line(f"member of {reply['federation']}")
    return 0


def do_leave(client: Client, options: Namespace, out: Output) -> int:
    """Leave for good."""
    reply = client.request("POST", "/v1/federation/leave", {})
    if out.as_json:
        out.document(reply)
    else:
        out.line(f"left {reply['federation']}")
    return 0


def parse_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `30m`, `2h`, `1d`. Raises InvalidParameter."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text)
    if not found:
        raise InvalidParameter(f"{text!r} is no duration", hint="write 90s, 30m, 2h or 1d", field="expires")
    return float(found[1]) * _UNITS[found[2]]


def read_token(given: str) -> str:
    """The token that `given` is, that the file `given` holds, or that comes on standard input for `-`."""
    if given == "-":
        text = sys.stdin.read(MAX_TOKEN_CHARS)
    elif given.startswith(_PREFIX):
        text = given
    else:
        try:
            with open(given, encoding="utf-8") as file:
                text = file.read(MAX_TOKEN_CHARS)
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise NotFound(
                f"{given!r} is no token and no readable file",
                hint=f"a token begins with {_PREFIX} and comes from `fedctl invite`",
            ) from error
    token = text.strip()
    if not token:
        raise InvalidParameter(
            "the token is empty", hint="get one by `fedctl invite` on a member", field="token"
        )
    return token
