"""Operations of all members together, made of exchanges: flood, merge, gather, reduce."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedd.api.algorithm import Merged
from fedd.api.errors import InvalidMessage
from fedd.api.types import Message, PeerId
from fedd.core import codec
from fedd.worker import arrays
from fedd.worker.port import Exchanges, Payload


async def flood(exchanges: Exchanges, message: Message, tag: str) -> dict[PeerId, Message]:
    """Give every node `message`, return everybody's: each is passed on in the exchange after it came.

    FloodSet (N. Lynch, "Distributed Algorithms", 6.2) on any graph: a message reaches a survivor along a path
    of distinct members, the dead first, so that len(members) - 1 exchanges suffice.
    """
    members = exchanges.members
    heard = await _flood(exchanges, {members.index(exchanges.me): arrays.encode(message)}, f"flood:{tag}")
    exchanges.name_contributors(tuple(members[origin] for origin in heard), None)
    return {members[origin]: exchanges.decode(members[origin], item) for origin, item in heard.items()}


async def _flood(exchanges: Exchanges, mine: dict[int, bytes], tag: str) -> dict[int, bytes]:
    """Everybody's items by the origin's index in `members`, sorted."""
    known = dict(mine)
    news = dict(known)
    for _ in range(len(exchanges.members) - 1):
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


async def merge(
    exchanges: Exchanges, message: Message, combine: Callable[[Any, Any], Message], tag: str
) -> Merged:
    """Combine everybody's message by an idempotent, commutative and associative function."""
    members = exchanges.members
    value = message
    origins = 1 << members.index(exchanges.me)
    for _ in range(len(members) - 1):
        payload = codec.encode([_mask(origins, len(members)), arrays.encode(value)])
        answers = await exchanges.swap(dict.fromkeys(exchanges.present, payload), f"merge:{tag}")
        for peer, answer in answers.items():
            match exchanges.decode(peer, answer):
                case [bytes(mask), bytes(theirs)] if int.from_bytes(mask, "little") >> len(members) == 0:
                    origins |= int.from_bytes(mask, "little")
                    value = combine(value, exchanges.decode(peer, theirs))
                case _:
                    raise InvalidMessage(f"{peer} sent something else than a merged value")
    contributors = peers_in(origins, members)
    exchanges.name_contributors(contributors, None)
    return Merged(value, contributors)


def _mask(origins: int, count: int) -> bytes:
    return origins.to_bytes((count + 7) // 8, "little")


def peers_in(origins: int, members: tuple[PeerId, ...]) -> tuple[PeerId, ...]:
    """The members whose bits are set, sorted."""
    return tuple(peer for index, peer in enumerate(members) if origins >> index & 1)


async def gather(
    exchanges: Exchanges, message: Message, to: PeerId, tag: str, *, complete: bool
) -> dict[PeerId, Message] | None:
    """Bring everybody's message to `to`; `complete`: all members were neighbours when the run began."""
    if not complete:
        heard = await flood(exchanges, message, tag)
        return heard if to == exchanges.me else None
    mine = arrays.encode(message)
    payloads = {peer: mine if peer == to else b"" for peer in exchanges.present}
    answers = await exchanges.swap(payloads, f"gather:{tag}")
    if to != exchanges.me:
        return None
    found = {peer: exchanges.decode(peer, answer) for peer, answer in answers.items()}
    found[to] = exchanges.decode(to, mine)
    return {peer: found[peer] for peer in sorted(found)}


async def reduce(
    exchanges: Exchanges, message: Message, combine: Callable[[Any, Any], Message], tag: str
) -> Merged:
    """Combine everybody's message, each exactly once, in the order of the members."""
    heard = await flood(exchanges, message, tag)
    contributors = tuple(heard)
    value = heard[contributors[0]]
    for peer in contributors[1:]:
        value = combine(value, heard[peer])
    return Merged(value, contributors)
