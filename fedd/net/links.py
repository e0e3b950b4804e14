"""What there is to say about each link: for people who ask why one is slow, and for scripts.

All of it is read when somebody asks. A rate is the difference of two readings, so that no byte is
counted twice and an idle daemon has no timer more.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Literal

import trio

from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.yamux import SessionUsage
from fedd.net.connection import Connection
from fedd.net.swarm import Swarm

RATE_S: Final = 0.5
"""Between the two readings: some heartbeats would show as bursts in less, and people wait for more."""


@dataclass(frozen=True, slots=True)
class LinkView:
    """One connection. Bytes are those of the wire, encryption included; rates are bytes a second."""

    peer_id: PeerId
    address: str
    direction: Literal["in", "out"]
    age_s: float
    rtt_s: float | None
    bytes_in: int
    bytes_out: int
    rate_in: float
    rate_out: float
    streams: dict[str, int]
    """Open streams by protocol; those in negotiation are under the empty text."""
    usage: SessionUsage
    retired: bool
    """Given up for another connection to the same peer; it ends with its streams."""
    relayed_by: PeerId | None = None
    """The member that passes the bytes on; None: the link is direct."""


async def view_links(swarm: Swarm, rate_s: float = RATE_S) -> list[LinkView]:
    """Look at every link, twice `rate_s` seconds apart; sorted by peer id, then by age."""
    before = {link: (link.bytes_in, link.bytes_out) for link in swarm.all_connections}
    started_at = trio.current_time()
    await trio.sleep(rate_s)
    now = trio.current_time()
    views = [
        _view(link, *before.get(link, (0, 0)), now - max(started_at, link.opened_at), now)
        for link in swarm.all_connections
    ]
    return sorted(views, key=lambda view: (view.peer_id, -view.age_s))


def _view(link: Connection, bytes_in: int, bytes_out: int, for_s: float, now: float) -> LinkView:
    for_s = max(for_s, 0.001)  # one that was made this moment
    return LinkView(
        peer_id=link.peer_id,
        address=link.remote_address,
        direction=link.direction,
        age_s=now - link.opened_at,
        rtt_s=link.rtt_s,
        bytes_in=link.bytes_in,
        bytes_out=link.bytes_out,
        rate_in=(link.bytes_in - bytes_in) / for_s,
        rate_out=(link.bytes_out - bytes_out) / for_s,
        streams=dict(sorted(Counter(stream.protocol for stream in link.streams).items())),
        usage=link.usage(),
        retired=link.retired,
        relayed_by=link.relayed_by,
    )
