"""Plugin-defined commands: list them, send one to a member, broadcast one to all."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from fedd.cli.parameters import parse_parameters
from fedd.cli.show import Output, short, value_text
from fedd.control.client import Client, path_of


def do_commands(client: Client, options: Namespace, out: Output) -> int:
    """All commands, or one with its parameters."""
    if options.name is not None:
        command = client.request("GET", path_of("commands", options.name))
        if out.as_json:
            out.document(command)
        else:
            show_command(out, command)
        return 0
    commands = client.request("GET", "/v1/commands")
    if out.as_json:
        out.document(commands)
        return 0
    out.table(
        ("NAME", "PLUGIN", "FROM", "WHAT IT DOES"),
        [
            (item["name"], f"{item['plugin']} {item['version']}", _audience(item), item["doc"])
            for item in commands
        ],
    )
    return 0


def do_send(client: Client, options: Namespace, out: Output) -> int:
    """Send a command to a member and show its answer."""
    body = {"peer": options.peer, "parameters": parse_parameters(options.parameters)}
    reply = client.request("POST", path_of("commands", options.name, "send"), body)["reply"]
    if out.as_json:
        out.document(reply)
    else:
        show_reply(out, reply)
    return 0


def do_broadcast(client: Client, options: Namespace, out: Output) -> int:
    """Send a command to every member."""
    body = {"parameters": parse_parameters(options.parameters), "wait": not options.no_wait}
    reached = client.request("POST", path_of("commands", options.name, "broadcast"), body)
    if out.as_json:
        out.document(reached)
        return 0
    if options.no_wait:
        out.line("on its way to all; nobody was asked to confirm it")
        return 0
    out.line(f"delivered to {reached['delivered']}")
    if reached["missing"]:
        names = {member["peer_id"]: member["name"] for member in client.request("GET", "/v1/members")}
        who = [names.get(peer) or short(peer) for peer in reached["missing"]]
        out.line(f"not confirmed by {len(who)}: {', '.join(sorted(who))}")
    return 0


def as_question(arguments: Sequence[str]) -> list[str]:
    """`send b facts --help` as `commands facts`: what a plugin's command takes, only the daemon knows.

    Other arguments come back as they are, also those that ask for the help of `send` itself.
    """
    words: list[str] = []
    common: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word == "--socket":
            common += [word, next(rest, "")]
        elif word == "--json" or word.startswith("--socket="):
            common.append(word)
        elif not word.startswith("-"):
            words.append(word)
    place = {"send": 2, "broadcast": 1}.get(words[0] if words else "")
    if place is None or len(words) <= place or not {"--help", "-h"} & set(arguments):
        return list(arguments)
    return [*common, "commands", words[place]]


def show_command(out: Output, command: dict[str, Any]) -> None:
    """Print what a command does and takes, for people."""
    out.line(f"{command['name']} ({command['plugin']} {command['version']})")
    out.line(command["doc"])
    if command["parameters"]:
        out.line()
        out.table(
            ("PARAMETER", "TYPE", "DEFAULT", "MEANING"),
            [
                (
                    item["name"],
                    "|".join(item["choices"]) if item.get("choices") else item["type"],
                    "required" if item.get("required") else json.dumps(item["default"]),
                    item["help"] or "",
                )
                for item in command["parameters"]
            ],
        )
    out.line()
    usual = " ".join(f"{item['name']}=..." for item in command["parameters"] if item.get("required"))
    if command["event_text"]:
        out.line(
            f"it leaves its {command['event_text']} in the event log: the daemon writes it, no plugin runs"
        )
    if command["audience"] == "run":
        out.line("it travels inside the runs of its algorithm; nobody can send it")
        return
    out.line(f"send it: fedctl send PEER {command['name']} {usual}".rstrip())
    if command["audience"] == "members":
        out.line(f"to all:  fedctl broadcast {command['name']} {usual}".rstrip())
    if not command["allowed"]:
        out.line(f'not allowed here: add commands = ["{command["name"]}"] to [policy] of fedd.toml')


def show_reply(out: Output, reply: Any) -> None:
    """Print an answer: a dictionary as aligned lines, nothing for none, a text as it is, else JSON."""
    if isinstance(reply, dict) and reply:
        out.pairs([(name, _text(value)) for name, value in reply.items()])
    elif reply is not None:
        out.line(_text(reply))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else value_text(value)


def _audience(command: dict[str, Any]) -> str:
    if not command["allowed"]:
        return "nobody (not in [policy] commands)"
    return {"local": "this device", "run": "nobody: in runs"}.get(command["audience"], "members")
