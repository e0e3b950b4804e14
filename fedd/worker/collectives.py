"""Operations of all members together, made of exchanges: flood, merge, gather, reduce.

`read(peer, payload)` makes of an encoded message what the algorithm works with. A message for which it raises
costs its sender the edge, and nobody the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedd.api.algorithm import Merged
from fedd.api.errors import InvalidMessage
from fedd.api.types import Message, PeerId
from fedd.core import codec
from fedd.core.graph import Graph
from fedd.worker import arrays
from fedd.worker.combining import Combiner
from fedd.worker.flooding import flood_items
from fedd.worker.port import Exchanges, Payload
from fedd.worker.reading import read_all
from fedd.worker.reduction import Reduction

Read = Callable[[PeerId, Payload], Any]


async def flood(exchanges: Exchanges, message: Message, tag: str, read: Read) -> dict[PeerId, Any]:
    """Give every node `message`, return everybody's, in len(members) - 1 exchanges."""
    members = exchanges.members
    mine = {members.index(exchanges.me): arrays.encode(message)}
    heard = await flood_items(
        exchanges, mine, len(members) - 1, f"flood:{tag}", lambda origin, item: read(members[origin], item)
    )
    exchanges.name_contributors(tuple(members[origin] for origin in heard), None)
    return {members[origin]: value for origin, value in heard.items()}


async def merge(
    exchanges: Exchanges, message: Message, combine: Callable[[Any, Any], Message], tag: str
) -> Merged:
    """Combine everybody's message by an idempotent, commutative and associative function."""
    members = exchanges.members
    value = message
    origins = 1 << members.index(exchanges.me)
    combiner = Combiner(exchanges, combine, message)

    def merged(peer: PeerId, answer: Payload) -> tuple[int, Any]:
        match exchanges.decode(answer):
            case [bytes(mask), bytes(theirs)] if int.from_bytes(mask, "little") >> len(members) == 0:
                return int.from_bytes(mask, "little"), exchanges.decode(theirs)
        raise InvalidMessage("it sent something else than a merged value")

    for _ in range(len(members) - 1):
        payload = codec.encode([_mask(origins, len(members)), arrays.encode(value)])
        answers = await exchanges.swap(dict.fromkeys(exchanges.present, payload), f"merge:{tag}")
        for peer, (mask, theirs) in read_all(exchanges, answers, merged).items():
            fits, value = combiner.add(value, peer, theirs)
            origins |= mask if fits else 0
    contributors = peers_in(origins, members)
    exchanges.name_contributors(contributors, None)
    return Merged(value, contributors)


def _mask(origins: int, count: int) -> bytes:
    return origins.to_bytes((count + 7) // 8, "little")


def peers_in(origins: int, members: tuple[PeerId, ...]) -> tuple[PeerId, ...]:
    """The members whose bits are set, sorted."""
    return tuple(peer for index, peer in enumerate(members) if origins >> index & 1)


async def gather(
    exchanges: Exchanges, message: Message, to: PeerId, tag: str, read: Read, *, complete: bool
) -> dict[PeerId, Any] | None:
    """Bring everybody's message to `to`; `complete`: all members were neighbours when the run began."""
    if not complete:
        heard = await flood(exchanges, message, tag, read)
        return heard if to == exchanges.me else None
    mine = arrays.encode(message)
    payloads = {peer: mine if peer == to else b"" for peer in exchanges.present}
    answers = await exchanges.swap(payloads, f"gather:{tag}")
    if to != exchanges.me:
        return None
    found = read_all(exchanges, answers, read)
    found[to] = read(to, mine)
    return {peer: found[peer] for peer in sorted(found)}


async def reduce(
    exchanges: Exchanges,
    graph: Graph,
    base: tuple[PeerId, ...],
    message: Message,
    combine: Callable[[Any, Any], Message],
    tag: str,
    read: Read,
) -> Merged:
    """Combine everybody's message, each exactly once. `base`: who was in the last agreement of all."""
    result = await Reduction(exchanges, graph, base, Combiner(exchanges, combine, message), tag, read).run(
        message
    )
    contributors = peers_in(result.origins, exchanges.members)
    exchanges.name_contributors(contributors, None)
    return Merged(read(exchanges.me, result.value), contributors)
