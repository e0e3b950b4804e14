"""FloodSet with early stopping: everybody who is left ends with the same ballots."""

from __future__ import annotations

import hashlib

from fedd.api import Message, RunContext
from fedd_voting.box import BallotBox

TAG = "fedd.vote"


async def flood(ctx: RunContext, box: BallotBox, own: list[Message]) -> int:
    """Spread the ballots until all who are left are known to hold the same; returns the exchanges made.

    Every exchange carries the ballots that its sender learnt in the one before, the digest of all its
    ballots, and a hash of who it still exchanges with, itself included. A node is done when one exchange
    brought, from everybody it exchanges with, its own digest and its own hash: then none of them has a
    ballot that another lacks, and none can learn one from outside, so that all of them, whoever dies
    afterwards, end with these. That takes two exchanges when nobody dies. At the latest it is done after
    len(members) - 1: a ballot that a node learns in exchange k has come through k others, and there are no
    more (this needs no complete graph, and holds when an edge was cut).

    Sources: N. Lynch, "Distributed Algorithms", 1996, 6.2 (FloodSet); D. Dolev, R. Reischuk, H. R. Strong,
    "Early stopping in Byzantine agreement", J. ACM 37 (1990). Errors as `RunContext.exchange`.
    """
    news = box.take(own)
    most = len(ctx.members) - 1
    for made in range(1, most + 1):
        near = tuple(ctx.neighbors)
        if not near:
            return made - 1
        mine: dict[str, Message] = {
            "ballots": news,
            "digest": box.digest(),
            "left": hashlib.sha256("\n".join(sorted([ctx.me, *near])).encode()).digest(),
        }
        answers = await ctx.exchange(mine, TAG)
        news = []
        same = len(answers) == len(near)
        for answer in answers.values():
            theirs = answer if isinstance(answer, dict) else {}
            same = same and theirs.get("digest") == mine["digest"] and theirs.get("left") == mine["left"]
            news += box.take(theirs.get("ballots"))
        if same:
            return made
    return most
