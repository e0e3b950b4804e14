"""What can be done here: plugins, algorithms, inputs."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from fedd.api.errors import InvalidParameter
from fedd.cli.show import Output, value_text
from fedd.control.client import Client, path_of

RIGHTS_NOTE = "Plugins run with the daemon's rights."


def do_plugins(client: Client, options: Namespace, out: Output) -> int:
    """Plugins found here."""
    plugins = client.request("GET", "/v1/plugins")
    if out.as_json:
        out.document(plugins)
        return 0
    out.table(
        ("NAME", "DISTRIBUTION", "VERSION", "ALGORITHMS AND COMMANDS"),
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
    if options.name is not None:
        algorithm = client.request("GET", path_of("algorithms", options.name))
        if out.as_json:
            out.document(algorithm)
        else:
            _show_algorithm(out, algorithm)
        return 0
    algorithms = client.request("GET", "/v1/algorithms")
    if out.as_json:
        out.document(algorithms)
        return 0
    out.table(
        ("NAME", "PLUGIN", "WHAT IT DOES"),
        [(item["name"], f"{item['plugin']} {item['version']}", item["doc"]) for item in algorithms],
    )
    return 0


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


def _show_algorithm(out: Output, algorithm: dict[str, Any]) -> None:
    out.line(f"{algorithm['name']} ({algorithm['plugin']} {algorithm['version']})")
    out.line(algorithm["doc"])
    if algorithm["parameters"]:
        out.line()
        out.table(
            ("PARAMETER", "TYPE", "DEFAULT", "MEANING"),
            [
                (item["name"], _type_text(item), json.dumps(item["default"]), item["help"] or "")
                for item in algorithm["parameters"]
            ],
        )
    out.line()
    out.line(f"start it: fedctl run {algorithm['name']} [key=value]... --input NAME")


def _type_text(parameter: dict[str, Any]) -> str:
    return "|".join(parameter["choices"]) if parameter.get("choices") else str(parameter["type"])


def _offer(plugin: dict[str, Any]) -> str:
    if plugin.get("error"):
        return f"failed: {plugin['error']}"
    names = ", ".join([*plugin["algorithms"], *plugin.get("commands", ())]) or "-"
    return names if plugin.get("allowed", True) else f"{names} (not in [policy])"


def _input_row(item: dict[str, Any]) -> tuple[str, str, str]:
    for kind in ("value", "path", "command"):
        if kind in item:
            shown = item[kind]
            return (
                str(item["name"]),
                str(item["kind"]),
                shown if isinstance(shown, str) else value_text(shown, 60),
            )
    return str(item["name"]), str(item["kind"]), "-"
