"""Votes: everybody who is left ends with the same winner, whoever dies meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import trio

from fedd.api import Algorithm, Conflict, InvalidParameter, Message, RunContext, TimedOut, Unhealthy, hookimpl
from fedd_voting.ballots import Question, Rule, candidates, options_of
from fedd_voting.box import BallotBox
from fedd_voting.flooding import flood
from fedd_voting.tally import Quorum, count, winner

__all__ = ["Vote", "fedd_register_algorithms"]

MAX_QUESTION_BYTES = 1000
"""A sentence: it is part of what every voter signs."""


@dataclass(frozen=True)
class Vote:
    """Signed ballots, one tally everywhere: plurality, approval, Borda, or a train set.

    A device's ballot is its input; one without abstains, and for a train set draws a ballot by chance.
    `value` is {"winner", "tally", "digest"}: an option (for a train set a list of members), or None without
    quorum; {option: count}; and the SHA-256 of the ballot set in hexadecimal. Needs a complete graph to
    end early; see `fedd_voting.flooding.flood` for the method and its sources.
    """

    name: ClassVar[str] = "vote"
    topology: ClassVar[str] = "complete"
    question: str = field(default="", metadata={"help": "what is asked, for the people who read it"})
    options: str = field(default="yes,no", metadata={"help": "what can be chosen, with commas between"})
    rule: Rule = field(default="plurality", metadata={"help": "how ballots are counted"})
    quorum: str = field(
        default="", metadata={"help": "votes that the winner needs, of how many members: 5/7"}
    )
    size: int = field(default=4, metadata={"help": "train-set: how many members to choose"})
    time_limit_s: float = field(
        default=60.0, metadata={"help": "end without a winner when it takes longer; 0: no limit"}
    )

    def __post_init__(self) -> None:
        if len(self.question.encode()) > MAX_QUESTION_BYTES:
            raise ValueError(f"question must have up to {MAX_QUESTION_BYTES} bytes")
        if self.size < 1:
            raise ValueError(f"size must be at least 1, not {self.size}")
        if not 0 <= self.time_limit_s <= 86400:
            raise ValueError(f"time_limit_s must be 0 to 86400, not {self.time_limit_s:g}")
        options_of(self.options)
        Quorum.read(self.quorum)

    async def run(self, ctx: RunContext) -> Message:
        """Vote.

        Raises TimedOut when the others did not all answer within the limit, Conflict when the run starts
        over.
        """
        if ctx.epoch > 1:  # a member that is gone may have finished before, with ballots that are lost now
            raise Conflict("a vote does not start over with other members", hint="ask again, in a new run")
        quorum = Quorum.read(self.quorum)
        if quorum.of and len(ctx.members) > quorum.of:
            raise InvalidParameter(
                f"the quorum is {self.quorum}, and this run has {len(ctx.members)} members",
                hint="name the members that may vote with --members, or another quorum",
                field="quorum",
            )
        is_train_set = self.rule == "train-set"
        options = candidates(ctx.members) if is_train_set else options_of(self.options)
        question = Question(self.question, options, self.rule)
        box = BallotBox(question, ctx.members, ctx.verify)
        own = await self._own(ctx, question, box)
        with trio.move_on_after(self.time_limit_s or float("inf")) as scope:
            await flood(ctx, box, own)
        if scope.cancelled_caught:
            raise TimedOut(
                f"the vote was not over after {self.time_limit_s:g} s",
                hint="a member is alive and does not answer; see `fedctl members`",
            )
        ballots = box.ballots
        ctx.report(ballots=len(ballots), void=len(box.void), needed=quorum.needed)
        return {
            "winner": _message(winner(question, ballots, quorum, self.size)),
            "tally": dict(count(question, ballots)),
            "digest": box.digest().hex(),
        }

    async def _own(self, ctx: RunContext, question: Question, box: BallotBox) -> list[Message]:
        """This device's ballot, signed; empty when it abstains."""
        if ctx.input is not None:
            ballot = question.read(ctx.input)
        elif question.rule == "train-set":
            ballot = question.draw(self.size, ctx.rng("ballot"))
        else:
            return []
        data = question.encode(ballot)
        signed = box.signed_data(data)
        signature = await ctx.sign(signed)
        if not ctx.verify(ctx.me, signed, signature):  # the others would leave it out without a word
            raise Unhealthy("this node's signature under its ballot is not valid")
        return [[ctx.me, data, signature]]


def _message(won: str | list[str] | None) -> Message:
    return list(won) if isinstance(won, list) else won


@hookimpl
def fedd_register_algorithms() -> list[type[Algorithm]]:
    """Register the vote."""
    return [Vote]
