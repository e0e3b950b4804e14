"""What happens on this node, as it happens: one sentence a line."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from fedd.cli.runs import names_of
from fedd.cli.show import Output, short
from fedd.control.client import Client

Event = Mapping[str, Any]

WHY = {
    "closed": "its links were closed",
    "silent": "it fell silent",
    "unreachable": "no path leads to it",
    "restarted": "its process was started anew",
    "left": "it said so itself",
    "revoked": "its certificate was revoked",
}
"""What the reasons of members mean; others are shown as they are. Being alive needs none."""

_NODE = {
    "isolated": "no live link is left, this node is probably cut off; verdicts on others are held back",
    "cloned_key": "another machine uses this node's identity key: give one of them a key of its own",
}
# In columns of their own.
_TOLD = ("seq", "kind", "unix_s")


def do_events(client: Client, options: Namespace, out: Output) -> int:
    """What happens, as it happens."""
    query = {} if options.since is None else {"since": str(options.since)}
    lines = None if out.as_json else EventLines(names_of(client))
    for event in client.stream("GET", "/v1/events", query=query):
        if lines is None:
            out.item(event)
        else:
            out.line(lines.line(event))
    if out.as_json:
        out.item({"kind": "end"})
    return 0


class EventLines:
    """Makes lines of events. `names` maps peer ids to names, and grows with the events."""

    def __init__(
        self, names: dict[str, str], local: Callable[[float], time.struct_time] = time.localtime
    ) -> None:
        self._names = names
        self._local = local
        self._sentences: dict[str, Callable[[dict[str, Any]], str]] = {
            "member": self._member,
            "link": self._link,
            "run": self._run,
            "input": self._input,
            "federation": self._federation,
            "plugin": self._plugin,
            "command": self._command,
            "node": self._node,
        }

    def line(self, event: Event) -> str:
        """Number, date, time, kind and what happened; fields that the sentence has no words for follow."""
        if event["kind"] == "lagged":
            return f"... {event['missed']} events came too fast to be shown"
        rest = {name: value for name, value in event.items() if name not in _TOLD}
        sentence = self._sentences.get(event["kind"])
        words = [sentence(rest)] if sentence is not None else []
        words += [
            f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in rest.items()
        ]
        when = time.strftime("%m-%d %H:%M:%S", self._local(event["unix_s"]))
        return f"{event['seq']:>5} {when}  {event['kind']:<10} {' '.join(words)}"

    def _member(self, rest: dict[str, Any]) -> str:
        peer, name = rest.pop("peer_id", ""), rest.pop("name", "")
        if name:
            self._names[peer] = name
        reason = rest.pop("reason", "")
        why = "" if reason in ("", "reachable") else f": {WHY.get(reason, reason)}"
        old = rest.pop("old", None)
        before = f" (was {old})" if old else " (new)"
        return f"{self._call(peer)} is {rest.pop('state', 'unknown')}{why}{before}"

    def _link(self, rest: dict[str, Any]) -> str:
        peer, state = rest.pop("peer_id", ""), rest.pop("state", "")
        reason = rest.pop("reason", "")
        why = f": {reason}" if reason else ""
        # Without the peer's id, whose owner has just been named.
        address = rest.pop("address", "").partition("/p2p/")[0]
        direction = {"in": "from", "out": "to"}.get(rest.pop("direction", ""), "with")
        return f"link {direction} {self._call(peer)} {state}{why} {address}".rstrip()

    def _run(self, rest: dict[str, Any]) -> str:
        run, state = rest.pop("run_id", "")[:8], rest.pop("state", "")
        error = rest.pop("error", "")
        return f"{run} {rest.pop('algorithm', '')} {state}" + (f": {error}" if error else "")

    def _input(self, rest: dict[str, Any]) -> str:
        error = rest.pop("error", "")
        return f"{rest.pop('input', '')} {f'cannot be used: {error}' if error else 'set'}"

    def _federation(self, rest: dict[str, Any]) -> str:
        peer = rest.pop("peer_id", "")
        words = (rest.pop("what", ""), self._call(peer) if peer else "", rest.pop("name", ""))
        return " ".join(word for word in words if word)

    def _plugin(self, rest: dict[str, Any]) -> str:
        return f"{rest.pop('name', '')} does not work: {rest.pop('error', 'no reason given')}"

    def _command(self, rest: dict[str, Any]) -> str:
        peer, name, error = rest.pop("peer_id", ""), rest.pop("name", ""), rest.pop("error", "")
        rest.pop("plugin", "")
        sender = f"{rest.pop('command', 'a command')} of {name or short(peer)}"
        return f"{sender} was not handled: {error}" if error else f"{sender}: {rest.pop('text', '')}"

    def _node(self, rest: dict[str, Any]) -> str:
        what, reason = rest.pop("what", ""), rest.pop("reason", "")
        applied, waiting = rest.pop("applied", None), rest.pop("needs_restart", None)
        words: str = _NODE.get(what, what)
        words += f": {reason}" if reason else ""
        words += f", applied {', '.join(applied)}" if applied else ""
        return words + (f", after a restart {', '.join(waiting)}" if waiting else "")

    def _call(self, peer: str) -> str:
        name = self._names.get(peer, "")
        return f"{name} ({short(peer)})" if name else short(peer)
