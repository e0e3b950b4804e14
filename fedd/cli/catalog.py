"""What can be done here: plugins and what they offer, inputs."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from fedd.api.errors import InvalidParameter
from fedd.cli.show import Output, value_text
from fedd.control.client import Client, path_of

RIGHTS_NOTE = "Plugins read what the daemon's user may read; fedctl status says what they are kept from."


def do_plugins(client: Client, options: Namespace, out: Output) -> int:
    """Plugins found here."""
    plugins = client.request("GET", "/v1/plugins")
    if out.as_json:
        out.document(plugins)
        return 0
    out.table(
        ("NAME", "DISTRIBUTION", "VERSION", "WHAT IT OFFERS"),
        [
            (
                plugin["name"],
                plugin["distribution"] or "-",
                plugin["version"] or "-",
                _offer(plugin),
            )
            for plugin in plugins
        ],
    )
    out.line()
    out.line(RIGHTS_NOTE)
    return 0


def do_algorithms(client: Client, options: Namespace, out: Output) -> int:
    """All algorithms, or one with its parameters."""
    return _list_or_show(
        client, options, out, "algorithms", "start it: fedctl run {name} [key=value]... --input NAME"
    )


def do_learners(client: Client, options: Namespace, out: Output) -> int:
    """All learners, or one with its options."""
    how = "configure it: [inputs.NAME] in fedd.toml with learner = '{name}', its options and its data"
    return _list_or_show(client, options, out, "learners", how)


def do_aggregators(client: Client, options: Namespace, out: Output) -> int:
    """All aggregators, or one with its options."""
    how = "use it: fedctl run learning aggregator={name} --input NAME"
    return _list_or_show(client, options, out, "aggregators", how)


def do_inputs(client: Client, options: Namespace, out: Output) -> int:
    """Inputs of this device."""
    inputs = client.request("GET", "/v1/inputs")
    if out.as_json:
        out.document(inputs)
        return 0
    out.table(("NAME", "SOURCE", "WHAT"), [_input_row(item) for item in inputs])
    return 0


def do_set(client: Client, options: Namespace, out: Output) -> int:
    """Make or replace a constant input."""
    body = {"value": parse_value(options.value)}
    reply = client.request("PUT", path_of("inputs", options.input), body)
    if out.as_json:
        out.document(reply)
    else:
        out.line(f"{reply['input']} = {value_text(reply['value'], 200)}")
    return 0


def parse_value(text: str) -> Any:
    """The JSON value `text`; a bare word is a string. Raises InvalidParameter on anything in between."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as error:
        raise InvalidParameter("the value is nested too deeply", field="value") from error
    except ValueError as error:
        if text[:1].isalpha() and text not in ("NaN", "Infinity"):
            return text
        raise InvalidParameter(
            f"{text[:60]!r} is no JSON value: {error}",
            hint='write a number, a "string" or a [list], quoted for the shell',
            field="value",
        ) from error


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large for a number of 64 bits")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _list_or_show(client: Client, options: Namespace, out: Output, kinds: str, how: str) -> int:
    """All of a kind, or the one that is named and `how` to use it."""
    if options.name is not None:
        item = client.request("GET", path_of(kinds, options.name))
        if out.as_json:
            out.document(item)
        else:
            _show_one(out, item, how.format(name=item["name"]))
        return 0
    items = client.request("GET", f"/v1/{kinds}")
    if out.as_json:
        out.document(items)
        return 0
    out.table(
        ("NAME", "PLUGIN", "WHAT IT DOES"),
        [(item["name"], f"{item['plugin']} {item['version']}", _doc(item)) for item in items],
    )
    return 0


def _doc(item: dict[str, Any]) -> str:
    return str(item["doc"]) if item.get("allowed", True) else f"{item['doc']} (not in [policy])"


def _show_one(out: Output, item: dict[str, Any], how: str) -> None:
    out.line(f"{item['name']} ({item['plugin']} {item['version']})")
    out.line(_doc(item))
    if item.get("abilities"):
        out.line(f"can do: {', '.join(item['abilities'])}")
    if item.get("contract"):
        joinable = "members may join later" if item.get("joinable") else "nobody joins later"
        out.line(f"contract: {item['contract']}; {joinable}")
    if item["parameters"]:
        out.line()
        out.table(
            ("PARAMETER", "TYPE", "DEFAULT", "MEANING"),
            [
                (each["name"], _type_text(each), json.dumps(each["default"]), each["help"] or "")
                for each in item["parameters"]
            ],
        )
    out.line()
    out.line(how)


def _type_text(parameter: dict[str, Any]) -> str:
    return "|".join(parameter["choices"]) if parameter.get("choices") else str(parameter["type"])


def _offer(plugin: dict[str, Any]) -> str:
    if plugin.get("error"):
        return f"failed: {plugin['error']}"
    kinds = ("algorithms", "commands", "learners", "aggregators")
    names = ", ".join(name for kind in kinds for name in plugin.get(kind, ())) or "-"
    return names if plugin.get("allowed", True) else f"{names} (not in [policy])"


def _input_row(item: dict[str, Any]) -> tuple[str, str, str]:
    name, kind, what = _data_row(item)
    if "learner" in item:
        options = ", ".join(f"{key}={value}" for key, value in item["options"].items())
        what = f"{item['learner']}{f' ({options})' if options else ''}, data: {what}"
    return name, kind, f"{what} - {item['error']}" if "error" in item else what


def _data_row(item: dict[str, Any]) -> tuple[str, str, str]:
    for kind in ("value", "path", "command"):
        if kind in item:
            shown = item[kind]
            return (
                str(item["name"]),
                str(item["kind"]),
                shown if isinstance(shown, str) else value_text(shown, 60),
            )
    return str(item["name"]), str(item["kind"]), "-"
