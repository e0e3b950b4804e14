"""The links of this node, and the bounds of its daemon."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from fedd.cli.show import Output, count_bytes, seconds, short
from fedd.control.client import Client


def do_links(client: Client, options: Namespace, out: Output) -> int:
    """Every link: how old, how fast, what it carries."""
    links = client.request("GET", "/v1/links")
    if out.as_json:
        out.document(links)
        return 0
    if not links:
        out.line("no links - see `fedctl connect` and `fedctl join`")
        return 0
    out.table(
        (
            "NAME",
            "PEER",
            "DIR",
            "AGE",
            "RTT",
            "IN",
            "OUT",
            "STREAMS",
            "UNREAD",
            "LIMITS",
            "RELAYS",
            "ADDRESS",
        ),
        [
            (
                link["name"] or ("-" if link["member"] else "stranger"),
                short(link["peer_id"]),
                link["direction"],
                seconds(link["age_s"]),
                "-" if link["rtt_ms"] is None else f"{link['rtt_ms']:.3g} ms",
                _amount(link["bytes_in"], link["bytes_in_per_s"]),
                _amount(link["bytes_out"], link["bytes_out_per_s"]),
                _counts({_short_protocol(name): count for name, count in link["streams"].items()}),
                count_bytes(link["windows"]["buffered_bytes"]),
                _counts(link["limits_reached"]),
                f"{link['circuits']} ({count_bytes(link['circuit_bytes'])})"
                if link["circuit_bytes"]
                else "-",
                f"relayed by {link['relayed_by']}"
                if link["relayed_by"]
                else link["address"].partition("/p2p/")[0],
            )
            for link in links
        ],
    )
    return 0


def do_limits(client: Client, options: Namespace, out: Output) -> int:
    """Every bound of the daemon."""
    limits = client.request("GET", "/v1/limits")
    if out.as_json:
        out.document(limits)
        return 0
    out.table(
        ("LIMIT", "PRESENT", "MAXIMUM", "REACHED", "WHAT IT IS"),
        [
            (
                limit["name"],
                f"{limit['present']:g}",
                f"{limit['maximum']:.10g}",
                f"{limit['reached']} x" if limit["reached"] else "-",
                limit["help"],
            )
            for limit in limits
        ],
    )
    return 0


def _amount(total_bytes: int, bytes_per_s: float) -> str:
    return f"{count_bytes(total_bytes)} ({count_bytes(bytes_per_s)}/s)"


def _counts(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "-"


def _short_protocol(protocol: str) -> str:
    """`presence` for /fedd/presence/1.0.0: what the others have in common tells nothing."""
    parts = protocol.strip("/").split("/")
    return parts[-2] if len(parts) > 1 else protocol or "opening"
