"""`fedctl export`: a run's answer and its curves as a file."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from fedd.api.errors import Conflict, FeddError, InvalidParameter
from fedd.cli.runs import names_of
from fedd.cli.show import Output, counted
from fedd.control.client import Client, path_of

FORMATS = (".npz", ".csv", ".svg")


def do_export(client: Client, options: Namespace, out: Output) -> int:
    """Write the file that the name's ending asks for."""
    kind = os.path.splitext(options.output)[1].lower()
    if kind not in FORMATS:
        raise InvalidParameter(
            f"{options.output} is no name of a file that can be made",
            hint=f"end it in {', '.join(FORMATS)}",
            field="output",
        )
    found = client.request("GET", path_of("runs", options.run, "history"))
    nodes, missing = found["nodes"], found["missing"]
    if kind == ".csv":
        data = curves_csv(nodes).encode()
    elif kind == ".svg":
        data = _svg(client, found["run_id"], nodes)
    else:
        data = _npz(client, found["run_id"], nodes)
    _write(options.output, data)
    if out.as_json:
        out.document(
            {"run_id": found["run_id"], "file": options.output, "bytes": len(data), "missing": missing}
        )
        return 0
    rounds = max((len(node["rounds"]) for node in nodes), default=0)
    out.line(
        f"{options.output}: {counted(len(nodes), 'member')}, up to {counted(rounds, 'row')} each, "
        f"{counted(len(data), 'byte')}"
    )
    for gap in missing:
        out.line(f"without {gap['name']}: {gap['reason']}")
    return 0


def curves_csv(nodes: Sequence[Mapping[str, Any]]) -> str:
    """One line a member and round: name, peer_id, round, then every metric, empty where there is none."""
    metrics = list(dict.fromkeys(name for node in nodes for name in node["series"]))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "peer_id", "round", *metrics])
    for node in nodes:
        series = [node["series"].get(metric) for metric in metrics]
        for index, number in enumerate(node["rounds"]):
            values = [None if column is None else column[index] for column in series]
            row = ["" if value is None else repr(value) for value in values]
            writer.writerow([node["name"], node["peer_id"], number, *row])
    return text.getvalue()


def _svg(client: Client, run_id: str, nodes: Sequence[Mapping[str, Any]]) -> bytes:
    from fedd.cli.curves import draw, panels

    algorithm = client.request("GET", path_of("runs", run_id))["algorithm"]
    names = {**names_of(client), **{node["peer_id"]: node["name"] for node in nodes}}
    return draw(f"{algorithm}, run {run_id[:12]}", panels(nodes, names)).encode()


def _npz(client: Client, run_id: str, nodes: Sequence[Mapping[str, Any]]) -> bytes:
    from fedd.cli.npz import Entry, numbers, value_entries, whole_numbers, write_npz

    entries: list[Entry] = []
    with contextlib.suppress(Conflict):  # it goes on, and has no value yet
        value = client.request("GET", path_of("runs", run_id, "value"))["value"]
        entries += value_entries("value", value)
    for node in nodes:
        name = node["name"].replace("/", "_")
        if any(entry.name == f"{name}/round" for entry in entries):
            name = node["peer_id"]  # two members of one name
        entries.append(whole_numbers(f"{name}/round", node["rounds"]))
        entries += [
            numbers(f"{name}/{metric.replace('/', '_')}", values) for metric, values in node["series"].items()
        ]
    file = io.BytesIO()
    write_npz(file, entries)
    return file.getvalue()


def _write(path: str, data: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise FeddError(
            f"cannot write {path}: {error.strerror}", hint="check the directory, its rights and its space"
        ) from error
