"""Every bound that a user can meet, in one shape: how much is used, the most, how often reached.

Each room tells its own when it is asked; nothing is sampled, and nothing is counted but refusals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from fedd.core.dataclass import dataclass

if TYPE_CHECKING:
    from fedd.core.yamux import SessionUsage
    from fedd.net.swarm import Swarm


@dataclass(frozen=True, slots=True)
class Bound:
    """One bound. `present`, `maximum` and their unit are as `help` says; `reached` counts since the start."""

    name: str
    present: float
    maximum: float
    reached: int
    help: str


def swarm_bounds(swarm: Swarm) -> list[Bound]:
    """The doors, the seats for connections, and what one connection may take (the fullest one's use)."""
    limits, reached, refused = swarm.limits, swarm.reached, swarm.doors.refused
    pending, begun, failures = swarm.doors.busiest(trio.current_time())
    connections = swarm.all_connections
    strangers = sum(not swarm.member_check(connection.peer_id) for connection in connections)
    bounds = [
        Bound(
            "connections",
            len(connections),
            limits.connections,
            reached["connections"],
            "open connections; max_connections in [limits]",
        ),
        Bound(
            "strangers",
            strangers,
            limits.strangers,
            reached["strangers"],
            "connections that leave seats for members free",
        ),
        Bound(
            "pending_handshakes",
            swarm.doors.pending,
            limits.pending_handshakes,
            refused["pending"],
            "inbound handshakes under way; max_pending_handshakes in [limits]",
        ),
        Bound(
            "pending_handshakes_per_address",
            pending,
            limits.pending_handshakes_per_address,
            refused["prefix"],
            "of one IPv4 address or IPv6 /56; the busiest",
        ),
        Bound(
            "handshakes_per_second",
            round(begun, 1),
            limits.handshakes_per_s,
            refused["rate"],
            "inbound handshakes begun of those that a second has",
        ),
        Bound(
            "failures_per_address",
            round(failures, 1),
            limits.failures_burst,
            refused["failures"],
            "failed handshakes held against an address, the worst; they fade",
        ),
    ]
    return bounds + _link_bounds(swarm)


def _link_bounds(swarm: Swarm) -> list[Bound]:
    limits = swarm.limits.streams
    usages = [connection.usage() for connection in swarm.all_connections]

    def bound(name: str, maximum: float, used: Callable[[SessionUsage], float], help: str) -> Bound:
        reached = swarm.reached[name] + sum(usage.reached.get(name, 0) for usage in usages)
        return Bound(f"link.{name}", max(map(used, usages), default=0), maximum, reached, help)

    return [
        bound(
            "inbound_streams",
            limits.inbound_streams,
            lambda usage: usage.inbound_streams,
            "streams that a member has open to this node",
        ),
        bound(
            "inbound_quota",
            swarm.limits.streams_per_stranger,
            lambda usage: 0,
            "streams that a stranger may have open to this node; reached by anybody",
        ),
        bound(
            "unacknowledged_streams",
            limits.unacknowledged_streams,
            lambda usage: usage.unacknowledged_streams,
            "streams opened here and not acknowledged",
        ),
        bound(
            "abandoned_streams",
            limits.abandoned_streams,
            lambda usage: usage.abandoned_streams,
            "streams closed here and not by the peer",
        ),
        bound(
            "control_frames",
            limits.control_frames,
            lambda usage: usage.control_frames,
            "pongs and resets that wait to leave; beyond it the link is closed",
        ),
        bound(
            "max_window_bytes",
            limits.max_window_bytes,
            lambda usage: usage.largest_window,
            "receive window of one stream",
        ),
        bound(
            "extra_window_bytes",
            limits.extra_window_bytes,
            lambda usage: usage.extra_window,
            "what the windows of one link have grown by, together",
        ),
        bound(
            "buffered_bytes",
            limits.buffered_bytes,
            lambda usage: usage.buffered,
            "bytes of one link that nobody has read yet",
        ),
    ]
