"""What this node can tell of each member, in one shape for people and programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from zlib import crc32

from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.membership import Membership
from fedd.core.verdicts import State

SAME_RTT_S: Final = 0.02
"""Round trips that differ by less are equal when a relay is chosen: load changes them by as much."""


@dataclass(frozen=True, slots=True)
class MemberView:
    """What this node knows of one member; times in seconds, None where there is nothing to say.

    `link`: "self", "direct" (a live link), "relayed" (a connection through a member that both are linked
    with, which proves no link), or "indirect" (reachable through others, or not at all).
    """

    peer_id: PeerId
    name: str
    state: State
    addresses: tuple[str, ...]
    rtt_s: float | None
    last_heard_s: float | None
    link: str
    version: str
    since_s: float
    reason: str


def views_of(
    core: Membership,
    entered_at: float,
    heard: Callable[[PeerId, float], float],
    relayed: Callable[[PeerId], bool],
    now: float,
) -> list[MemberView]:
    """Everybody `core` knows, its own node first, which entered at `entered_at`.

    `heard(peer, at)` is when a byte last came from `peer`, at least `at`; `relayed(peer)` whether the only
    connection with it is relayed. Times in seconds, monotonic.
    """
    mine = core.records[core.me]
    views = [
        MemberView(
            core.me,
            mine.name,
            "alive",
            mine.addresses,
            None,
            None,
            "self",
            mine.version,
            now - entered_at,
            "",
        )
    ]
    for peer in core.members():
        record, state = core.record_of(peer), core.state_of(peer)
        assert record is not None and state is not None  # noqa: S101, PT018 - members() lists those
        link = core.link_of(peer)
        since, reason = core.since(peer)
        views.append(
            MemberView(
                peer_id=peer,
                name=record.name,
                state=state,
                addresses=record.addresses,
                rtt_s=link[1] if link else None,
                last_heard_s=max(0.0, now - heard(peer, link[0])) if link else None,
                link="direct" if link else "relayed" if relayed(peer) else "indirect",
                version=record.version,
                since_s=now - since,
                reason=reason,
            )
        )
    return views


def ways_to(core: Membership, peer: PeerId) -> list[PeerId]:
    """Members that could pass bytes on to `peer`: both ends of their link with it list it.

    Those linked with this node come first, of them those that can be dialled (they carry more), then those
    with a short round trip; at the end those that would have to be dialled first. Of equals each pair of
    members prefers another (rendezvous hashing, Thaler and Ravishankar 1998), so that all of them carry.
    """
    pair = f"{min(core.me, peer)} {max(core.me, peer)}"

    def rank(way: PeerId) -> tuple[bool, bool, float, int]:
        link = core.link_of(way)
        rtt_s = link[1] if link is not None else None
        return (
            link is None,
            not core.addresses_of(way),
            rtt_s // SAME_RTT_S if rtt_s is not None else float("inf"),
            crc32(f"{pair} {way}".encode()),
        )

    ways = [
        way
        for way in core.edges.adjacent(peer)
        if way != core.me
        and core.state_of(way) == "alive"
        and (core.link_of(way) is not None or core.addresses_of(way))
    ]
    return sorted(ways, key=rank)
