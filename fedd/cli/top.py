"""The federation as this node sees it now, again and again: members, what their links carry, runs.

On a terminal a table that stays in its place, until `q` or Ctrl-C. Without one, the table is printed again at
each refresh; with --json, one document a line at each refresh. `--count` ends all three.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fedd.api.errors import InvalidParameter
from fedd.cli.node import presence_cells
from fedd.cli.show import Output, count_bytes, counted, escape, seconds, table_lines
from fedd.control.client import Client

MEMBER_HEADINGS = (
    *("NAME", "PEER", "STATE", "SINCE", "WHY", "LINK", "RTT", "HEARD"),
    *("IN", "IN/S", "OUT", "OUT/S", "STREAMS"),
)
RUN_HEADINGS = ("RUN", "ALGORITHM", "STATE", "ROUND", "MEMBERS", "STARTED")

LEAST_INTERVAL_S = 0.5
"""The daemon measures rates over half a second."""

_STATES = ("suspect", "dead", "alive", "left", "stranger")
"""In this order, below this node itself: first what somebody may have to look after."""

# Alive is what is expected: no colour for the many.
_STYLES = {"suspect": "yellow", "dead": "red", "left": "dim", "stranger": "magenta"}

Picture = dict[str, Any]


def do_top(client: Client, options: Namespace, out: Output) -> int:
    """Show pictures until told otherwise."""
    if not options.interval >= LEAST_INTERVAL_S:
        raise InvalidParameter(
            f"--interval is {options.interval:g} s", hint=f"it is at least {LEAST_INTERVAL_S:g}"
        )
    if options.count is not None and options.count < 1:
        raise InvalidParameter(f"--count is {options.count}", hint="it is at least 1")
    if out.live:
        return _live(client, options)
    for number, picture in enumerate(pictures(client, options.interval, options.count, time.sleep)):
        if out.as_json:
            out.item(picture)
            continue
        if number:
            out.line()
        for line in [*header(picture), "", *rows(picture)]:
            out.line(line)
    if out.as_json:
        out.item({"kind": "end"})
    return 0


def pictures(
    client: Client, interval_s: float, count: int | None, pause: Callable[[float], object]
) -> Iterator[Picture]:
    """One picture every `interval_s` seconds, `count` of them or for ever; `pause` waits between them.

    A `pause` that returns True ends it.
    """
    before: Picture | None = None
    while count is None or count > 0:
        started_s = time.monotonic()
        before = look(client, before)
        yield before
        count = None if count is None else count - 1
        if count != 0 and pause(max(0.0, interval_s - (time.monotonic() - started_s))) is True:
            return


def look(client: Client, before: Picture | None = None) -> Picture:
    """Ask the daemon for everything that a picture shows.

    `{status{...}, cpu_percent, members[{..., bytes_in, bytes_out, bytes_in_per_s, bytes_out_per_s, streams}],
    runs[]}`; `cpu_percent` is None in the first picture, since it is the processor time since the one
    before. Links to peers that are no members are members of the state `stranger`.
    """
    links = client.request("GET", "/v1/links")
    members = client.request("GET", "/v1/members")
    status = client.request("GET", "/v1/status")
    known = {member["peer_id"] for member in members}
    strangers = {link["peer_id"]: link for link in links if link["peer_id"] not in known}
    members += [
        {
            "peer_id": peer,
            "name": link.get("name") or "",
            "state": "stranger",
            "link": "direct",
            "rtt_ms": link["rtt_ms"],
            "since_s": link["age_s"],
        }
        for peer, link in strangers.items()
    ]
    for member in members:
        member |= _carried([link for link in links if link["peer_id"] == member["peer_id"]])
    members.sort(key=_order)
    return {
        "status": status,
        "cpu_percent": _cpu_percent(before["status"], status) if before else None,
        "members": members,
        "runs": client.request("GET", "/v1/runs"),
    }


def _carried(links: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all connections with one peer carry together; None where there is none."""
    if not links:
        names = ("bytes_in", "bytes_out", "bytes_in_per_s", "bytes_out_per_s", "streams")
        return dict.fromkeys(names)
    return {
        **{
            name: sum(link[name] for link in links)
            for name in ("bytes_in", "bytes_out", "bytes_in_per_s", "bytes_out_per_s")
        },
        "streams": sum(sum(link["streams"].values()) for link in links),
    }


def _cpu_percent(before: Mapping[str, Any], now: Mapping[str, Any]) -> float | None:
    """Of one processor, between two states of one process; None when they are of two."""
    for_s: float = now["uptime_s"] - before["uptime_s"]
    if for_s <= 0:
        return None
    spent_s: float = now["cpu_s"] - before["cpu_s"]
    return round(100 * spent_s / for_s, 2)


def _order(member: Mapping[str, Any]) -> tuple[bool, int, str, str]:
    state = member["state"]
    place = _STATES.index(state) if state in _STATES else len(_STATES)
    return member["link"] != "self", place, member["name"], member["peer_id"]


# ---- as text ------------------------------------------------------------------------------------


def header(picture: Picture) -> list[str]:
    """Two lines about this node and everybody."""
    status, members = picture["status"], picture["members"]
    linked = [member for member in members if member["bytes_in"] is not None]
    rates = [sum(member[name] for member in linked) for name in ("bytes_in_per_s", "bytes_out_per_s")]
    cpu = picture["cpu_percent"]
    counts = {state: sum(member["state"] == state for member in members) for state in _STATES}
    first = [
        f"{status['name']} in {status['federation'] or 'no federation'}",
        f"up {seconds(status['uptime_s'])}",
        f"memory {count_bytes(status['rss_bytes'])}",
        f"cpu {'-' if cpu is None else f'{cpu:.1f} %'}",
        f"in {count_bytes(rates[0])}/s",
        f"out {count_bytes(rates[1])}/s",
    ]
    second = [
        "members: " + (", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none"),
        f"links: {len(linked)}",
        f"streams: {sum(member['streams'] for member in linked)}",
        f"runs: {status['runs_active']} active",
    ]
    return ["   ".join(first), "   ".join(second)]


def rows(picture: Picture) -> list[str]:
    """The table of members, and that of the runs if there are any."""
    lines = table_lines(MEMBER_HEADINGS, [_member_row(member) for member in picture["members"]])
    if picture["runs"]:
        lines += ["", *table_lines(RUN_HEADINGS, [_run_row(run) for run in picture["runs"]])]
    return lines


def _member_row(member: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        *presence_cells(member),
        _amount(member["bytes_in"]),
        _amount(member["bytes_in_per_s"]),
        _amount(member["bytes_out"]),
        _amount(member["bytes_out_per_s"]),
        "-" if member["streams"] is None else str(member["streams"]),
    )


def _run_row(run: Mapping[str, Any]) -> tuple[str, ...]:
    members = run.get("members")
    rounds = f"{run.get('round', 0)}" + (f"/{run['rounds']}" if run.get("rounds") else "")
    return (
        run["run_id"][:8],
        run["algorithm"],
        run["state"],
        rounds,
        str(len(members) if isinstance(members, list) else members),
        f"{seconds(run.get('started_s_ago'))} ago",
    )


def _amount(value: float | None) -> str:
    return "-" if value is None else count_bytes(value)


# ---- on a terminal ------------------------------------------------------------------------------


def _live(client: Client, options: Namespace) -> int:
    """Draw on the whole terminal, and give it back as it was."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with _keys() as pause, Live(console=console, screen=True, auto_refresh=False) as live:
        for picture in pictures(client, options.interval, options.count, pause):
            live.update(_drawn(picture, console.height), refresh=True)
    return 0


def _drawn(picture: Picture, height: int) -> Any:
    """A picture in colours, cut to as many lines as the terminal has; the last says what is missing."""
    from rich.text import Text

    body = rows(picture)
    # Two lines of header, an empty one, one for the foot.
    room = max(1, height - 4)
    hidden = len(body) - room
    if hidden > 0:
        body = body[:room]
    foot = "q quits" + (f"   {counted(hidden, 'more line')} do not fit" if hidden > 0 else "")
    states = [member["state"] for member in picture["members"]]
    drawn = Text(no_wrap=True, overflow="ellipsis")
    drawn.append("\n".join(escape(line) for line in header(picture)) + "\n\n", "bold")
    for number, line in enumerate(body):
        style = "reverse" if number == 0 else ""
        if 0 < number <= len(states):
            style = _STYLES.get(states[number - 1], "")
        drawn.append(line + "\n", style)
    drawn.append(foot, "dim")
    return drawn


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], object]]:
    """A pause that a key ends: True when that was `q`. Keys are read one by one and not shown meanwhile."""
    if not sys.stdin.isatty():
        yield time.sleep
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)

    def pause(pause_s: float) -> bool:
        end_s = time.monotonic() + pause_s
        while select.select([descriptor], [], [], max(0.0, end_s - time.monotonic()))[0]:
            keys = os.read(descriptor, 64)
            if not keys or b"q" in keys.lower():
                return True
        return False

    try:
        yield pause
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
