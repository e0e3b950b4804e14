"""`fedctl topology` asks no daemon: a child builds the graph and its spectrum, this process draws it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from argparse import Namespace
from html import escape as xml
from typing import Any

from fedd.api.errors import FeddError, InvalidParameter, TimedOut, Unhealthy
from fedd.cli.edges import EDGES, with_edges
from fedd.cli.show import Output, counted, escape
from fedd.control.client import Client

TIMEOUT_S = 120.0
"""A directed graph of 1024 nodes takes seconds on a desktop; a small board is twenty times slower."""

_SIZE = 720.0
"""Edge of the picture."""
_MAX_LABELS = 64
"""More numbers round a circle overlap."""


def do_topology(client: Client, options: Namespace, out: Output) -> int:
    """What a topology is like, and its picture."""
    if options.nodes is None and not options.topology.startswith(EDGES):
        raise InvalidParameter("how many nodes?", hint="write --nodes 16", field="nodes")
    described = describe(options.topology, options.nodes or 0, options.seed, options.tolerance)
    if options.output is not None:
        save(options.output, drawing(described))
    if out.as_json:
        out.document(described)
        return 0
    out.line(f"{escape(options.topology)} of {counted(len(described['members']), 'node')}")
    out.pairs(rows(described))
    return 0


def describe(topology: str, nodes: int, seed: int, tolerance: float) -> dict[str, Any]:
    """What `fedd.worker.topology.describe_topology` says.

    Raises InvalidParameter when there is no such graph, TimedOut, or Unhealthy when NumPy cannot be loaded.
    """
    if nodes < 0 or seed < 0:
        raise InvalidParameter("nodes and seed are no negative numbers", field="nodes")
    command = (sys.executable, "-I", "-m", "fedd.worker", "topology", with_edges(topology))
    try:
        done = subprocess.run(
            [*command, str(nodes), str(seed), repr(tolerance)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimedOut(
            f"the spectrum of {nodes} nodes took more than {TIMEOUT_S:g} s", hint="ask for fewer"
        ) from None
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise Unhealthy(f"the graph could not be computed: {last[:200]}")
    described: dict[str, Any] = json.loads(done.stdout)
    if "error" in described:
        raise InvalidParameter(described["error"], hint=described["hint"], field=described["field"])
    described["topology"] = topology
    return described


def rows(described: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines of the table."""
    low, high = described["degree_min"], described["degree_max"]
    tolerance = described["tolerance"]
    kind = "directed" if described["directed"] else "undirected"
    if len(described["arcs"]) > 1:
        kind += f", arcs take turns over {len(described['arcs'])} rounds"
    found = [
        ("edges", f"{len(described['edges'])}, {kind}"),
        ("neighbors", str(low) if low == high else f"{low} to {high}"),
        ("diameter", str(described["diameter"])),
        ("weights", described["weights"]),
        ("spectral gap", f"{described['spectral_gap']:.6g}"),
        (f"rounds to {tolerance:g}", _rounds(described["rounds"])),
    ]
    if described["chebyshev_rounds"] is not None:
        found.append(("", f"{described['chebyshev_rounds']} with method=chebyshev"))
    return found


def drawing(described: dict[str, Any]) -> str:
    """The graph as an .svg: members on a circle, the first on top, clockwise; arrows where it is directed."""
    members = described["members"]
    centre, radius = _SIZE / 2, _SIZE / 2 - 60
    places = [
        (centre + radius * math.sin(angle), centre - radius * math.cos(angle))
        for angle in (2 * math.pi * number / len(members) for number in range(len(members)))
    ]
    dot = max(3.0, min(12.0, 2.2 * radius / len(members)))
    arcs = {(source, target) for phase in described["arcs"] for source, target in phase}
    lines = [_line(places[one], places[other], dot, arcs, one, other) for one, other in described["edges"]]
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{dot:.1f}"/>' for x, y in places]
    labels = []
    if len(members) <= _MAX_LABELS:
        for (x, y), name in zip(places, members, strict=True):
            outward = (dot + 14) / radius
            at_x, at_y = x + (x - centre) * outward, y + (y - centre) * outward + 4
            labels.append(f'<text x="{at_x:.1f}" y="{at_y:.1f}">{xml(name[:16])}</text>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_SIZE:g} {_SIZE:g}">',
            f"<title>{xml(described['topology'])}, spectral gap {described['spectral_gap']:.6g}</title>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="#456"/></marker></defs>',
            f'<rect width="{_SIZE:g}" height="{_SIZE:g}" fill="#fff"/>',
            '<g stroke="#456" stroke-opacity="0.6" stroke-width="1.2">',
            *lines,
            '</g><g fill="#1b6ca8">',
            *dots,
            '</g><g font-family="sans-serif" font-size="12" text-anchor="middle" fill="#222">',
            *labels,
            "</g></svg>\n",
        ]
    )


def save(path: str, text: str) -> None:
    """Write the picture. Raises InvalidParameter for another ending, FeddError when it cannot be written."""
    if not path.endswith(".svg"):
        raise InvalidParameter(f"{path} is no .svg", hint="write -o graph.svg", field="output")
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise FeddError(f"{path} cannot be written: {error.strerror}") from error


def _line(
    start: tuple[float, float],
    end: tuple[float, float],
    dot: float,
    arcs: set[tuple[int, int]],
    one: int,
    other: int,
) -> str:
    """An edge from dot to dot, with a head at each end that an arc points to."""
    length = math.dist(start, end)
    cut = dot / length
    x1, y1 = (a + (b - a) * cut for a, b in zip(start, end, strict=True))
    x2, y2 = (b + (a - b) * cut for a, b in zip(start, end, strict=True))
    heads = ' marker-end="url(#arrow)"' if (one, other) in arcs else ""
    heads += ' marker-start="url(#arrow)"' if (other, one) in arcs else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"{heads}/>'


def _rounds(count: int | None) -> str:
    return "never: an eigenvalue has modulus 1" if count is None else str(count)
