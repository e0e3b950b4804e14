"""Giving everybody's items to all: FloodSet on any graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fedd.api.errors import InvalidMessage
from fedd.api.types import PeerId
from fedd.core import codec
from fedd.worker.port import Exchanges, Payload
from fedd.worker.reading import read_all

T = TypeVar("T")


async def flood_items(
    exchanges: Exchanges, mine: dict[int, bytes], count: int, tag: str, read: Callable[[int, bytes], T]
) -> dict[int, T]:
    """Everybody's items by the origin's index in `members`, sorted: the same on all survivors of a component.

    An item is passed on in the exchange after it came. It reaches a survivor along a path of distinct
    members, the dead first: `count` is one less than the members that may be on it (FloodSet: N. Lynch,
    "Distributed Algorithms", 6.2, carried to incomplete graphs).

    `read(origin, item)` makes of an item what is returned. Who hands on one for which it raises is cut off:
    an honest member would not have. `read` must therefore raise for an item on all members or none, or
    on those between whose own items and it no member finds both good.
    """
    known = {origin: read(origin, item) for origin, item in mine.items()}
    news = dict(mine)

    def flooded(peer: PeerId, payload: Payload) -> list[tuple[int, bytes, T]]:
        pairs = _pairs(exchanges, payload)
        return [(origin, item, read(origin, item)) for origin, item in pairs if origin not in known]

    for _ in range(count):
        parts: list[int | bytes] = [part for pair in sorted(news.items()) for part in pair]
        answers = await exchanges.swap(dict.fromkeys(exchanges.present, codec.encode(parts)), tag)
        news = {}
        for found in read_all(exchanges, answers, flooded).values():
            for origin, item, value in found:
                if origin not in known:
                    known[origin], news[origin] = value, item
    return {origin: known[origin] for origin in sorted(known)}


def _pairs(exchanges: Exchanges, payload: Payload) -> list[tuple[int, bytes]]:
    parts = exchanges.decode(payload)
    if isinstance(parts, list) and len(parts) % 2 == 0:
        pairs = list(zip(parts[::2], parts[1::2], strict=True))
        if all(type(o) is int and 0 <= o < len(exchanges.members) and type(i) is bytes for o, i in pairs):
            return pairs
    raise InvalidMessage("it sent something else than flooded messages")
