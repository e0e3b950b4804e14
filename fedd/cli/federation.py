"""Who belongs: begin a federation, invite, join, approve, grant, revoke, leave; and the root key."""

from __future__ import annotations

import os
import re
import sys
from argparse import Namespace
from typing import Any

from fedd.api.errors import Conflict, FeddError, InvalidParameter, NotFound
from fedd.cli.show import Output, say, seconds, short
from fedd.control.client import Client, path_of

_PREFIX = "fedd1-"

# A token holds a few addresses; a larger file is not one.
MAX_TOKEN_CHARS = 65_536
# A PEM file of an Ed25519 key has 120.
MAX_KEY_CHARS = 4096

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
    body = {
        "uses": options.uses,
        "expires_s": parse_duration(options.expires),
        "approve": options.approve,
    }
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
    elif reply["federation"] is None:
        out.line("no longer waiting to be let in")
    else:
        out.line(f"left {reply['federation']}")
    return 0


def do_approve(client: Client, options: Namespace, out: Output) -> int:
    """Let a newcomer in."""
    reply = client.request("POST", path_of("federation", "pending", options.peer), {})
    return say(out, reply, "approved {peer_id}; it is in as soon as it asks again, within seconds")


def do_deny(client: Client, options: Namespace, out: Output) -> int:
    """Turn a newcomer away."""
    reply = client.request("DELETE", path_of("federation", "pending", options.peer))
    return say(out, reply, "turned {peer_id} away")


def do_grant(client: Client, options: Namespace, out: Output) -> int:
    """Make a member an admin."""
    reply = client.request("POST", "/v1/federation/grant", {"peer": options.peer, "role": options.role})
    return say(out, _called(reply), "{called} is an {role} of {federation} now")


def do_revoke(client: Client, options: Namespace, out: Output) -> int:
    """Throw a member out, or take that back."""
    path = path_of("federation", "revoked", options.peer)
    if options.undo:
        reply = client.request("DELETE", path)
        return say(out, _called(reply), "{called} may join again: `fedctl invite` gives it a token")
    reply = client.request("PUT", path, {})
    text = "{called} is revoked and cut off; it stays out until `fedctl revoke --undo`"
    if reply["stay"] or reply["leave"]:
        text += "; of those it let in, {stay} stay and {leave} have to join anew"
    return say(out, _called(reply), text)


def show_pending(client: Client, out: Output) -> int:
    """Who waits to be approved, here or at another admin."""
    waiting = client.request("GET", "/v1/federation/pending")
    if out.as_json:
        out.document(waiting)
        return 0
    rows = [
        (
            one["name"],
            one["peer_id"],
            one["address"],
            seconds(one["waiting_s"]),
            one["at_name"] or short(one["at"]),
        )
        for one in waiting
    ]
    out.table(("SAYS ITS NAME IS", "PEER", "ADDRESS", "WAITS", "AT"), rows)
    for member in client.request("GET", "/v1/members"):
        if member["admin"] and member["state"] == "dead":
            sys.stderr.write(f"{member['name']} is an admin and dead: who waits there is not known\n")
    return 0


def show_revoked(client: Client, out: Output) -> int:
    """Who was thrown out, and by whom."""
    revoked = client.request("GET", "/v1/federation/revoked")
    if out.as_json:
        out.document(revoked)
    else:
        rows = [(one["name"] or "-", one["peer_id"], " ".join(map(short, one["by"]))) for one in revoked]
        out.table(("NAME", "PEER", "REVOKED BY"), rows)
    return 0


def do_root(client: Client, options: Namespace, out: Output) -> int:
    """Show where the root key is, or move it."""
    if options.action == "show":
        reply = client.request("GET", "/v1/federation/root-key")
        here = "is" if reply["here"] else "is not"
        return say(out, reply, f"the root key of {{federation}} {here} on this device")
    if options.file is None:
        raise InvalidParameter(
            f"`fedctl root {options.action}` needs a file", hint="or - for standard streams", field="file"
        )
    if options.action == "export":
        return _export_root(client, options.file, out)
    pem = read_key(options.file)
    reply = client.request("POST", f"/v1/federation/root-key/{options.action}", {"pem": pem})
    if options.action == "import":
        return say(out, reply, "the root key of {federation} is on this device: it can grant now")
    return say(out, reply, "the root key of {federation} is removed from this device; take care of the copy")


def _export_root(client: Client, file: str, out: Output) -> int:
    reply = client.request("POST", "/v1/federation/root-key/export", {})
    if file == "-":
        if out.as_json:
            out.document(reply)
        else:
            out.line(reply["pem"].rstrip())
        return 0
    with open(_create(file), "w", encoding="ascii") as stream:
        stream.write(reply["pem"])
        stream.flush()
        os.fsync(stream.fileno())
    told = {"federation": reply["federation"], "file": file}
    return say(out, told, "the root key of {federation} is in {file}: keep it where no network reaches")


def _create(file: str) -> int:
    """A new file that only its owner reads. Raises Conflict when it is there, FeddError when it cannot be."""
    try:
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise Conflict(f"{file} is there already", hint="name a new file") from error
    except OSError as error:
        raise FeddError(f"cannot write {file}: {error.strerror}", hint="name another place") from error


def read_key(file: str) -> str:
    """What the key file holds, or standard input for `-`. Raises NotFound."""
    if file == "-":
        return sys.stdin.read(MAX_KEY_CHARS)
    try:
        with open(file, encoding="ascii") as stream:
            return stream.read(MAX_KEY_CHARS)
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"{file!r} is no readable key file", hint="`fedctl root export` writes one") from error


def _called(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply with what to call its peer, for people; `--json` shows the reply as it came."""
    return _Told(reply, called=reply["name"] or short(reply["peer_id"]))


class _Told(dict[str, Any]):
    """A reply and words of our own beside it."""

    def __init__(self, reply: dict[str, Any], **words: str) -> None:
        super().__init__(reply)
        self.words = words

    def __missing__(self, key: str) -> str:
        return self.words[key]


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
