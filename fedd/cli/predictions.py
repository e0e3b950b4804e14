"""What is foreseen of a run, before it is proposed to anybody."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from fedd.cli.show import Output, count_bytes, counted, escape, number
from fedd.control.client import Client

_BYTES = ("planned_bytes", "predicted_bytes")
_NOT_ROWS = frozenset(
    ("edges", "diameter", "messages", "spectral_gap", "mixing_rounds", "step_bound_formula", "warning")
)
"""What other rows hold."""

_NAMES = {
    "curvature": "curvature here",
    "strong_convexity": "convexity here",
    "step_bound": "largest step",
    "step_bound_unknown": "largest step",
    "predicted_iterations": "iterations to 1e-6",
    "predicted_bytes": "bytes to 1e-6",
    "planned_bytes": "bytes planned",
    "rounds_predicted": "rounds",
    "error": "not foreseen",
}


def ask(client: Client, body: Mapping[str, Any]) -> dict[str, Any]:
    """The reply of `POST /v1/predictions` to the body of `POST /v1/runs`."""
    told: dict[str, Any] = client.request("POST", "/v1/predictions", dict(body))
    return told


def show(out: Output, told: Mapping[str, Any]) -> None:
    """Print it as a table, or as one document; warnings go to standard error."""
    if out.as_json:
        out.document(told)
    else:
        out.line(f"{escape(told['algorithm'])} is foreseen, nothing is started")
        out.pairs([*_about(told), *_said(told["prediction"])])
    warn(told["prediction"])


def announce(told: Mapping[str, Any]) -> None:
    """Write to standard error what somebody wants to know who watches the run begin."""
    found = told["prediction"]
    if "spectral_gap" in found:
        sys.stderr.write(f"{_graph(told)}, {counted(found['messages'], 'message')} each\n")
    parts = [f"{name} {value}" for name, value in _said(found)]
    if parts:
        sys.stderr.write(f"{escape(told['algorithm'])}: {'; '.join(parts)}\n")
    warn(found)


def warn(found: Mapping[str, Any]) -> None:
    """Write the warning that is in a prediction, if there is one."""
    if "warning" in found:
        sys.stderr.write(f"fedctl: warning: {escape(str(found['warning']))}\n")


def _graph(told: Mapping[str, Any]) -> str:
    found = told["prediction"]
    rounds = found.get("mixing_rounds")
    averaging = "averaging never ends: an eigenvalue has modulus 1"
    if rounds is not None:
        averaging = f"{counted(round(rounds), 'round')} of averaging to 1e-6"
    return (
        f"{_topology(told)} of {counted(len(told['members']), 'member')}: "
        f"spectral gap {found['spectral_gap']:.3g}, diameter {found['diameter']}, {averaging}"
    )


def _topology(told: Mapping[str, Any]) -> str:
    name = str(told["topology"])
    return "edges of a file" if name.startswith("edges:") else escape(name)


def _about(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of the table that any run has."""
    found = told["prediction"]
    rows = [("members", f"{len(told['members'])}, quorum {told['quorum']}")]
    if "spectral_gap" in found:
        rows.append(("graph", f"{_graph(told)} (seed {told['seed']})"))
    else:
        rows.append(("graph", _topology(told)))
    if "messages" in found:
        rows.append(("messages", f"{found['messages']} in an exchange"))
    return rows


def _said(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of what the algorithm says."""
    rows = []
    for name, value in found.items():
        if name in _NOT_ROWS:
            continue
        text = count_bytes(value) if name in _BYTES else escape(number(value))
        if name in _BYTES:
            text += " from this node"
        if name == "step_bound" and "step_bound_formula" in found:
            text += f" = {escape(found['step_bound_formula'])}, L the curvature here"
        rows.append((_NAMES.get(name, escape(name)), text))
    return rows
