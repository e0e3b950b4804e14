"""Giving everybody's items to all: FloodSet on any graph."""

from __future__ import annotations

from fedd.api.errors import InvalidMessage
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.worker.port import Exchanges, Payload


async def flood_items(exchanges: Exchanges, mine: dict[int, bytes], count: int, tag: str) -> dict[int, bytes]:
    """Everybody's items by the origin's index in `members`, sorted: the same on all survivors of a component.

    An item is passed on in the exchange after it came. It reaches a survivor along a path of distinct
    members, the dead first: `count` is one less than the members that may be on it (FloodSet: N. Lynch,
    "Distributed Algorithms", 6.2, carried to incomplete graphs).
    """
    known = dict(mine)
    news = dict(known)
    for _ in range(count):
        parts: list[int | bytes] = [part for pair in sorted(news.items()) for part in pair]
        answers = await exchanges.swap(dict.fromkeys(exchanges.present, codec.encode(parts)), tag)
        news = {}
        for peer, answer in answers.items():
            for origin, item in _flooded(exchanges, peer, answer):
                if origin not in known:
                    known[origin] = news[origin] = item
    return {origin: known[origin] for origin in sorted(known)}


def _flooded(exchanges: Exchanges, peer: PeerId, payload: Payload) -> list[tuple[int, bytes]]:
    parts = exchanges.decode(peer, payload)
    if isinstance(parts, list) and len(parts) % 2 == 0:
        pairs = list(zip(parts[::2], parts[1::2], strict=True))
        if all(type(o) is int and 0 <= o < len(exchanges.members) and type(i) is bytes for o, i in pairs):
            return pairs
    raise InvalidMessage(f"{peer} sent something else than flooded messages")
