"""Every key of `fedd.toml`: kind, default, bounds, help. The reference page is generated from this table."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

DEFAULT_LISTEN = ("/ip4/0.0.0.0/tcp/4747",)

PRESENCE_PROFILES = ("lan", "metered")


class Key(NamedTuple):
    """One key of `fedd.toml`.

    `kind` is one of text, choice, flag, count, seconds, texts, addresses, peer_addresses, peer_ids, value,
    table or planned (reserved for a later version, refused now). `low` and `high` bound counts and seconds.
    """

    section: str
    name: str
    kind: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = math.inf
    live: bool = False
    """Whether a reload applies a change without a restart."""


KEYS: tuple[Key, ...] = (
    Key("node", "name", "text", None, "What others call this node; the host's name when not given."),
    Key("node", "listen", "addresses", DEFAULT_LISTEN, "Where to listen for links; port 0 takes a free one."),
    Key(
        "node",
        "announce",
        "addresses",
        (),
        "Addresses told to others instead of those found on this machine.",
    ),
    Key(
        "node",
        "connect",
        "peer_addresses",
        (),
        "Peers to link to at start and to keep, with /p2p/ID.",
        live=True,
    ),
    Key(
        "node",
        "mdns",
        "flag",
        True,
        "Find other members on the local network, and be found, by multicast DNS.",
    ),
    Key(
        "federation",
        "name",
        "text",
        "allow-list",
        "The name of the federation of those in `allow`, the same on all of them.",
    ),
    Key(
        "federation",
        "allow",
        "peer_ids",
        (),
        "Peer ids that make up a federation without init, invite and join: each names all others. "
        "Not used while this node is a member of a federation by certificate.",
        live=True,
    ),
    Key(
        "presence",
        "profile",
        "choice",
        "lan",
        "How eager heartbeats are: `lan` each second, `metered` every five seconds.",
        choices=PRESENCE_PROFILES,
    ),
    Key(
        "limits",
        "max_connections",
        "count",
        128,
        "Links and strangers' connections in all.",
        low=8,
        high=4096,
    ),
    Key(
        "limits",
        "max_pending_handshakes",
        "count",
        64,
        "Connections in their handshake at once.",
        low=4,
        high=1024,
    ),
    Key(
        "limits",
        "max_relayed_bytes_per_s",
        "count",
        32 * 1024 * 1024,
        "Bytes a second that this node passes on between other members, in all.",
        low=16 * 1024,
        high=1 << 40,
    ),
    Key("limits", "max_runs", "count", 16, "Runs that this node takes part in at once.", low=1, high=256),
    Key("limits", "max_results", "count", 256, "Results kept in the state directory.", low=1, high=100_000),
    Key(
        "limits",
        "max_payload_bytes",
        "count",
        16 * 1024 * 1024,
        "The largest message of an algorithm.",
        low=1024,
        high=1024 * 1024 * 1024,
    ),
    Key(
        "limits",
        "edge_timeout_s",
        "seconds",
        30.0,
        "How long a run waits for a link to an alive neighbour before both ends cut the edge.",
        low=1,
        high=3600,
    ),
    Key(
        "limits",
        "stall_timeout_s",
        "seconds",
        60.0,
        "The least time that this node's own worker may be silent before it leaves the run.",
        low=1,
        high=86_400,
    ),
    Key(
        "policy",
        "algorithms",
        "texts",
        (),
        "Algorithms and plugins that may run here beside the bundled ones, by name.",
        live=True,
    ),
    Key(
        "policy",
        "commands",
        "texts",
        (),
        "Commands and plugins whose commands are handled here beside the bundled ones, by name.",
        live=True,
    ),
    Key(
        "policy",
        "aggregators",
        "texts",
        (),
        "Aggregators and plugins whose aggregators may be used here beside the bundled ones, by name.",
        live=True,
    ),
    Key(
        "policy",
        "inputs",
        "table",
        {},
        "Which algorithms may read an input: `temp = ['consensus']`; an input not named here is open to all.",
        live=True,
    ),
    Key(
        "policy",
        "initiators",
        "texts",
        (),
        "Peer ids or names that may start runs here; nobody named means any member.",
        live=True,
    ),
    Key(
        "policy",
        "network",
        "texts",
        (),
        "Plugins whose processes may open IPv4 and IPv6 connections; no other may.",
        live=True,
    ),
    Key(
        "policy",
        "writable",
        "texts",
        (),
        "Directories in which plugins may write, beside their own and the temporary ones.",
        live=True,
    ),
    Key("metrics", "listen", "planned", None, "Serve Prometheus metrics over TCP."),
    Key("inputs.NAME", "value", "value", None, "A constant: number, string or nested lists.", live=True),
    Key(
        "inputs.NAME", "file", "text", None, "A .csv, .npy, .npz or .json file, read by each run.", live=True
    ),
    Key(
        "inputs.NAME",
        "command",
        "texts",
        None,
        "A program and its arguments; what it prints is read.",
        live=True,
    ),
    Key(
        "inputs.NAME",
        "learner",
        "text",
        None,
        "A learner registered by a plugin, which gets what value, file or command gives; "
        "all further keys are its options (`fedctl learners NAME`).",
        live=True,
    ),
    Key("inputs.NAME", "interval_s", "planned", None, "How often a command is run ahead of need."),
    Key("plugins.NAME", "*", "value", None, "Handed to the plugin of that name."),
)

INPUT_SOURCES = ("value", "file", "command")
INPUT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
