"""This node, its links, its events, and the bare API."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

from fedd.api.errors import InvalidParameter
from fedd.cli.events import WHY
from fedd.cli.show import Output, count_bytes, say, seconds, short, table_lines
from fedd.control.client import Client, path_of

MEMBER_HEADINGS = ("NAME", "PEER", "STATE", "SINCE", "WHY", "LINK", "RTT", "HEARD", "VERSION", "ADDRESS")

WATCH_S = 1.0
"""As often as members are heard of."""

# What makes a list of members another one; the rest changes with every heartbeat.
_LASTING = ("peer_id", "name", "state", "addresses", "link", "version", "reason")


def do_status(client: Client, options: Namespace, out: Output) -> int:
    """This node at a glance."""
    status = client.request("GET", "/v1/status")
    if out.as_json:
        out.document(status)
        return 0
    members = ", ".join(f"{count} {state}" for state, count in status["members"].items() if count)
    out.pairs(
        [
            ("name", status["name"]),
            ("peer id", status["peer_id"]),
            ("federation", _place(status)),
            ("members", members or "-"),
            ("addresses", " ".join(status["addresses"]) or "-"),
            ("runs", f"{status['runs_active']} active"),
            ("plugins", ", ".join(status["plugins"]) or "-"),
            ("confined", _confinement(status.get("confinement"))),
            ("version", status["version"]),
            ("up", seconds(status["uptime_s"])),
            ("memory", count_bytes(status["rss_bytes"])),
        ]
    )
    return 0


def _confinement(found: Mapping[str, Any] | None) -> str:
    """By what plugins are kept from what is not theirs, and from what they are not."""
    if not found:
        return "-"
    means = [f"Landlock {found['landlock']}"] if found["landlock"] else []
    means += ["seccomp"] if found["seccomp"] else []
    by = " and ".join(means) or "nothing"
    return f"plugins, by {by}" + (f" - NOT from {', '.join(found['open'])}" if found["open"] else "")


def _place(status: Mapping[str, Any]) -> str:
    """The federation, or why there is none."""
    revoked = status.get("revoked")
    if status["federation"]:
        words = {"admin": "admin", "root_key": "root key here"}
        rights = ", ".join(text for key, text in words.items() if status.get(key))
        return f"{status['federation']} ({rights})" if rights else str(status["federation"])
    if status.get("waits_for"):
        return f"none - waits for {short(status['waits_for'])} to approve it"
    if revoked:
        return f"none - REVOKED from {revoked['federation']}: {revoked['reason']}"
    return "none - see `fedctl init` and `fedctl join`"


def do_members(client: Client, options: Namespace, out: Output) -> int:
    """Everyone known, once or until interrupted."""
    if options.pending or options.revoked:
        from fedd.cli import federation

        return (federation.show_pending if options.pending else federation.show_revoked)(client, out)
    if options.watch:
        return _watch_members(client, out)
    members = client.request("GET", "/v1/members")
    if out.as_json:
        out.document(members)
    else:
        out.table(MEMBER_HEADINGS, [_member_row(member) for member in members])
    return 0


def _watch_members(client: Client, out: Output) -> int:
    """Look every second: on a terminal redraw, elsewhere print the list whenever it has changed."""
    if out.live:
        from fedd.cli.live import redraw  # here, because it loads rich

        redraw(_member_tables(client))
    seen = None
    while True:
        members = client.request("GET", "/v1/members")
        lasting = [[member.get(key) for key in _LASTING] for member in members]
        if lasting != seen:
            if out.as_json:
                out.item(members)
            else:
                if seen is not None:
                    out.line()
                out.table(MEMBER_HEADINGS, [_member_row(member) for member in members])
            seen = lasting
        time.sleep(WATCH_S)


def _member_tables(client: Client) -> Iterator[list[str]]:
    while True:
        members = client.request("GET", "/v1/members")
        yield table_lines(MEMBER_HEADINGS, [_member_row(member) for member in members])
        time.sleep(WATCH_S)


def presence_cells(member: Mapping[str, Any]) -> tuple[str, ...]:
    """Name, peer, state, since when, why, link, round trip and when last heard, as every table has them."""
    return (
        member["name"] or "-",
        short(member["peer_id"]),
        member["state"],
        seconds(member.get("since_s")),
        why(member),
        link_kind(member),
        "-" if member["rtt_ms"] is None else f"{member['rtt_ms']:.3g} ms",
        seconds(member.get("last_heard_s")),
    )


def _member_row(member: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        *presence_cells(member),
        member["version"] or "-",
        _bare(member["addresses"]),
    )


def link_kind(member: Mapping[str, Any]) -> str:
    """How this node reaches a member; there is no way to the dead."""
    return str(member["link"]) if member["state"] not in ("dead", "left") else "-"


def why(member: Mapping[str, Any]) -> str:
    """What put a member into its state; being alive needs no reason."""
    reason = member.get("reason") or ""
    return WHY.get(reason, reason) if reason and member["state"] != "alive" else "-"


def do_connect(client: Client, options: Namespace, out: Output) -> int:
    """Link to a peer, and keep the link."""
    return say(out, client.request("POST", "/v1/links", {"address": options.address}), "linked to {peer_id}")


def do_disconnect(client: Client, options: Namespace, out: Output) -> int:
    """Drop a link."""
    return say(out, client.request("DELETE", path_of("links", options.peer)), "no longer linked to {peer_id}")


def do_ping(client: Client, options: Namespace, out: Output) -> int:
    """Round trips to a peer."""
    reply = client.request("POST", "/v1/ping", {"peer": options.peer, "count": options.count})
    if out.as_json:
        out.document(reply)
        return 0
    times = reply["rtt_ms"]
    for number, rtt_ms in enumerate(times, 1):
        out.line(f"{number}: {rtt_ms:.3f} ms")
    via = f" through {reply['relayed_by']}" if reply["relayed_by"] else ""
    mean = sum(times) / len(times)
    out.line(f"{short(reply['peer_id'])}{via}: {min(times):.3f} / {mean:.3f} / {max(times):.3f} ms")
    return 0


def do_api(client: Client, options: Namespace, out: Output) -> int:
    """A request as it is; always replies in JSON."""
    from fedd.control.requests import match  # here, because no other command needs the table of routes

    body = None
    if options.body is not None:
        try:
            body = json.loads(options.body)
        except (ValueError, RecursionError) as error:
            raise InvalidParameter(f"the body is no JSON: {error}") from error
    method = options.method.upper()
    if not method.isalpha() or any(not "!" <= char <= "~" for char in options.path):
        raise InvalidParameter(f"{method} {options.path} is no request", hint="such as GET /v1/status")
    route, _ = match(method, options.path.partition("?")[0])
    if not route.streams:
        out.document(client.request(method, options.path, body))
        return 0
    for item in client.stream(method, options.path, body):
        out.item(item)
    out.item({"kind": "end"})
    return 0


def _bare(addresses: list[str]) -> str:
    """The first address without the peer id, which has its own column."""
    if not addresses:
        return "-"
    more = f" (+{len(addresses) - 1})" if len(addresses) > 1 else ""
    return addresses[0].partition("/p2p/")[0] + more
